"""The catalogue of environments: load, validate, merge, resolve to what is started, check, add one's own.

An environment is a named software stack: container images by architecture and accelerator, or a Python of this machine.
This room reads the catalogue files (shipped, site, project, user), looks whether what they name is on this machine, and
builds argv and environment variables; what it starts is what `check`, the one question to an interpreter and the making of images
(`build`, `pull`, `verify`: podman or buildah, skopeo, Apptainer) need. It writes the user's own catalogue (`add`), the image of a
variant into a catalogue (`build`, `pull`), SIF files, and a cache. Images are the business of `obtaining` and `verifying`, which the
web process never imports: they are not named here.
"""

from lossi.environments.catalog import Catalog, load, project_file, shipped_file, user_file
from lossi.environments.checking import MLFLOW_VERSION, Check, check
from lossi.environments.command import bind, bind_options, clean_environment, command, runtime
from lossi.environments.models import ACCELERATORS, ARCHITECTURES, Environment, Mount, Problem, Variant, Way, schema
from lossi.environments.own import add
from lossi.environments.resolution import TARGETS, cache_key, facts, lacking, resolve, ways

__all__ = [
    "ACCELERATORS",
    "ARCHITECTURES",
    "MLFLOW_VERSION",
    "TARGETS",
    "Catalog",
    "Check",
    "Environment",
    "Mount",
    "Problem",
    "Variant",
    "Way",
    "add",
    "bind",
    "bind_options",
    "cache_key",
    "check",
    "clean_environment",
    "command",
    "facts",
    "lacking",
    "load",
    "project_file",
    "resolve",
    "runtime",
    "schema",
    "shipped_file",
    "user_file",
    "ways",
]

"""The catalogue of environments: load, validate, merge, resolve to what is started, check, add one's own.

An environment is a named software stack: container images by architecture and accelerator, or a Python of this machine.
This room reads the catalogue files (shipped, site, project, user), looks whether what they name is on this machine, and
builds argv and environment variables; it starts only what `check` and the one question to an interpreter need.
It writes the user's own catalogue (`add`) and a cache.
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

"""The catalogue of environments: load, validate, merge, resolve to what is started, check, add one's own.

An environment is a named software stack: container images by architecture and accelerator, or a Python of this machine.
This room reads the catalogue files (shipped, site, project, user), looks whether what they name is on this machine, and
builds argv and environment variables; what it starts is what `check`, the one question to an interpreter and the making of images
(`build`, `pull`, `verify`: podman or buildah, skopeo, Apptainer) need. It writes the user's own catalogue (`add`), the image of a
variant into a catalogue (`build`, `pull`), SIF files, and a cache. Images are the business of `obtaining` and `verifying`, which the
web process never imports: they are not named here.
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)

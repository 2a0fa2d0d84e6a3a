"""The catalogue of environments: load, validate, merge, resolve to what is started, check, add one's own.

An environment is a named software stack: container images by architecture and accelerator, or a Python of this machine. This
room reads the catalogue files (shipped, site, user, project), checks whether interpreters and images exist here, and builds
argv and environment variables. It starts programs only for `check`, for one question to an interpreter, and for images
(`images`: podman or buildah, skopeo, Apptainer), which the web process never imports. It writes the user's own catalogue,
the image of a variant into a catalogue, SIF files, and a cache.
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)

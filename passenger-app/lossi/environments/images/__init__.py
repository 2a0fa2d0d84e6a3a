"""Images of environments: build, pull, convert to SIF, verify and record their digests. Minutes each, never in the web process."""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)

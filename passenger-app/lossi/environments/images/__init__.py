"""Images of environments: build, pull, convert to SIF, verify, record digests. Takes minutes; never in the web process."""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)

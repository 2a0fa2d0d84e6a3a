"""Projects: where they are, their stores and index, and the snapshot of their code at submission.

Writes ``<project>/.lossi``, the user's registry of projects and the cache of empty stores; reads git repositories through
libgit2, which never runs programs from a repository's configuration.
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)

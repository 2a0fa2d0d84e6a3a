"""Which directories are projects, their stores and index, and the snapshot of their code at submission.

Touches ``<project>/.lossi``, the user's registry of projects and the cache of empty stores; reads git repositories through
libgit2, which runs nothing that a repository's configuration names.
"""

from lazy_loader import attach_stub

__getattr__, __dir__, __all__ = attach_stub(__name__, __file__)

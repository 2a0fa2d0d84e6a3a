"""Which directories are projects, their stores and index, and the snapshot of their code at submission.

Touches ``<project>/.lossi``, the user's registry of projects and the cache of empty stores; reads git repositories through
libgit2, which runs nothing that a repository's configuration names.
"""

from lossi.projects import index, snapshot, stores
from lossi.projects.description import GitInfo, ProjectInfo, describe
from lossi.projects.project import Project
from lossi.projects.registry import by_name_or_path, find, forget, init, register, registered
from lossi.projects.run_folders import runs_in

__all__ = [
    "GitInfo",
    "Project",
    "ProjectInfo",
    "by_name_or_path",
    "describe",
    "find",
    "forget",
    "index",
    "init",
    "register",
    "registered",
    "runs_in",
    "snapshot",
    "stores",
]

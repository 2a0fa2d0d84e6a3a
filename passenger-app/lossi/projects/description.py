"""Describe a project as users see it in a list: its path, commit, and number of jobs and runs. Only reads."""

from __future__ import annotations

import contextlib
import os
import sqlite3

from pydantic import BaseModel, ConfigDict, Field

from lossi.errors import LossiError
from lossi.projects import git, index, stores
from lossi.projects.project import Project


class GitInfo(BaseModel):
    """The git repository that contains a project."""

    model_config = ConfigDict(frozen=True)

    commit: str | None = Field(description="Full hash; null before the first commit.")
    branch: str | None = Field(description="Null if HEAD is detached.")
    dirty: bool | None = Field(description="Whether files differ from the commit; null: not checked.")


class ProjectInfo(BaseModel):
    """A directory that Lossi works in."""

    model_config = ConfigDict(frozen=True)

    name: str = Field(description="The folder's name, or the name in Open OnDemand's Project Manager.")
    path: str = Field(description="Absolute path, links resolved.")
    git: GitInfo | None = Field(description="Null if there is no repository.")
    jobs: int | None = Field(description="Number of jobs in the index; null if it cannot be read.")
    runs: int | None = Field(description="Number of runs in the store that are not deleted; null if it cannot be read.")
    writable: bool = Field(description="Whether this user can submit jobs there.")
    store_revision: str | None = Field(description="Schema revision of the tracking store; null if there is no store yet.")


def describe(project: Project, *, changes: bool = False) -> ProjectInfo:
    """Return a project's description. Unreadable parts are None, never an error.

    Parameters
    ----------
    project
        An existing project.
    changes
        Whether to compare the working tree with the commit, which checks every file.
    """
    revision = None
    with contextlib.suppress(LossiError):
        revision = stores.revision(project.store)
    return ProjectInfo(
        name=project.name,
        path=os.fsencode(project.root).decode("utf-8", "replace"),
        git=_git(project, changes),
        jobs=_jobs(project),
        runs=_runs(project),
        writable=os.access(project.home if project.home.exists() else project.root, os.W_OK | os.X_OK),
        store_revision=revision,
    )


def _git(project: Project, changes: bool) -> GitInfo | None:
    try:
        head = git.head(project.root)
        if head is None:
            return None
        dirty = None
        if changes:
            tree = git.read(project.root)
            if tree is None:
                return None
            dirty = bool(tree.changed or tree.untracked) or tree.commit is None
    except git.Unreadable:
        return None
    return GitInfo(commit=head[0], branch=head[1], dirty=dirty)


def _jobs(project: Project) -> int | None:
    try:
        if project.index.exists():
            with index.reading(project) as connection:
                return int(connection.execute("SELECT count(*) FROM jobs").fetchone()[0])
        if not project.jobs.exists():
            return 0
        with os.scandir(project.jobs) as entries:
            return sum(entry.is_dir(follow_symlinks=False) for entry in entries)
    except (OSError, LossiError):
        return None


def _runs(project: Project) -> int | None:
    try:
        if not project.store.exists():
            return 0
        with contextlib.closing(stores.connect_readonly(project.store)) as connection:
            row = connection.execute("SELECT count(*) FROM runs WHERE lifecycle_stage = 'active'").fetchone()
            return int(row[0])
    except (OSError, LossiError, sqlite3.Error):
        return None

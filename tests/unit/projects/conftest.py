"""A project in a home of its own, an empty store made once by the real MLflow, and repositories made by libgit2."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from git_repository import Repository
from snapshots import MIB, Take, Taken

from lossi import projects
from lossi.projects import stores


@pytest.fixture
def project(home: Path) -> projects.Project:
    """Return a new project without git."""
    return projects.init(home / "work" / "digits")


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an empty store made by the MLflow of this interpreter."""
    cache = tmp_path_factory.mktemp("cache")
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(cache)
    try:
        return stores.template([sys.executable], "tests", {"PATH": os.environ["PATH"]})
    finally:
        if before is None:
            del os.environ["XDG_CACHE_HOME"]
        else:
            os.environ["XDG_CACHE_HOME"] = before


@pytest.fixture
def repository(home: Path) -> Repository:
    """Return an empty repository that is also a project."""
    new_repository = Repository(home / "work" / "repo")
    projects.init(new_repository.root)
    return new_repository


@pytest.fixture
def new_repository() -> Callable[[Path], Repository]:
    """Return a way to make further repositories."""
    return Repository


@pytest.fixture
def take(tmp_path: Path) -> Take:
    """Return a way to take snapshots."""
    out = tmp_path / "out"
    out.mkdir()

    def take(repository: Repository | projects.Project, limit: int = 50 * MIB, include: tuple[str, ...] = ()) -> Taken:
        return Taken(repository.root, out, limit, include)

    return take

"""A project in a home of its own, an empty store made once by the real MLflow, and repositories made by libgit2."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pygit2
import pytest

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
        return stores.template([sys.executable], "tests", {"PATH": os.defpath})
    finally:
        if before is None:
            del os.environ["XDG_CACHE_HOME"]
        else:
            os.environ["XDG_CACHE_HOME"] = before


class Repository:
    """A git repository for tests, written with libgit2 so that the git program is not needed."""

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.root = root
        self.git = pygit2.init_repository(str(root), initial_head="main")
        self.git.config["core.autocrlf"] = "false"

    def write(self, path: str, content: str | bytes = "x\n") -> Path:
        """Write a file of the working tree."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        return file

    def commit(self, *paths: str) -> str:
        """Commit these paths, or everything that is not ignored."""
        self.git.index.read()
        if paths:
            for path in paths:
                self.git.index.add(path)
        else:
            self.git.index.add_all()
        self.git.index.write()
        who = pygit2.Signature("Test", "test@example.org", 1_700_000_000, 0)
        parents = [] if self.git.head_is_unborn else [self.git.head.target]
        return str(self.git.create_commit("HEAD", who, who, "test", self.git.index.write_tree(), parents))


@pytest.fixture
def repository(home: Path) -> Repository:
    """Return an empty repository that is also a project."""
    made = Repository(home / "work" / "repo")
    projects.init(made.root)
    return made


@pytest.fixture
def new_repository() -> Callable[[Path], Repository]:
    """Return a way to make further repositories."""
    return Repository

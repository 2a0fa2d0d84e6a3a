"""A project with a store, and an empty store created once by the real MLflow."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from ingest_support import World

from lossi.projects import Project, stores


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty store, created by the MLflow of this interpreter."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        return stores.template([sys.executable], "tests", {"PATH": os.environ["PATH"]})


def make_world(folder: Path, template: Path) -> World:
    """Make a project with an empty store in ``folder``."""
    root = folder / "a project? 100%20"
    root.mkdir(parents=True)
    project = Project(root)
    stores.ensure(project, template)
    return World(project, template, folder / "node")


@pytest.fixture
def world(home: Path, tmp_path: Path, template: Path) -> World:
    """A project in a folder whose name must be quoted in SQLite URIs."""
    return make_world(tmp_path, template)

"""Projects with a store created by MLflow and filled by its client or, for many runs, row by row."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from lossi.projects import Project, stores


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty store, created by the MLflow of this environment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        return stores.template([sys.executable], "tests", {})


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow creates folders in the working directory: keep them out of the repository."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")


@pytest.fixture
def project(home: Path, tmp_path: Path, template: Path) -> Project:
    """A project with an empty store, in a folder whose name needs quoting."""
    return make_project(tmp_path / "a project", template)


def make_project(folder: Path, template: Path) -> Project:
    """Make a folder a project with an empty store."""
    folder.mkdir(parents=True)
    project = Project(folder)
    project.home.mkdir()
    stores.ensure(project, template)
    return project


@pytest.fixture
def client(project: Project) -> MlflowClient:
    """MLflow's own client on the project's store."""
    return MlflowClient(f"sqlite:///{project.store}")


@pytest.fixture
def rows(project: Project) -> Iterator[Callable[..., None]]:
    """Insert a row into a table of the store: ``rows("params", key="lr", value="1", run_uuid=…)``."""
    connection = sqlite3.connect(project.store)

    def write(table: str, **values: object) -> None:
        names = ", ".join(values)
        connection.execute(f"INSERT INTO {table} ({names}) VALUES ({', '.join('?' * len(values))})", tuple(values.values()))
        connection.commit()

    yield write
    connection.close()

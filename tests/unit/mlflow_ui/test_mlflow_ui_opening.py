"""When MLflow gets a copy of a store, or nothing."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest

from lossi.errors import NotSupported
from lossi.files import locks
from lossi.mlflow_ui import opening
from lossi.mlflow_ui.opening import Mode
from lossi.projects import Project
from lossi.tracking.ingest import lease


@pytest.fixture
def project(home: Path, tmp_path: Path) -> Project:
    root = tmp_path / "a project"
    (root / ".lossi").mkdir(parents=True)
    new_project = Project(root)
    store(new_project.store, "dc11669786a5")
    return new_project


def store(path: Path, revision: str) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
        connection.execute("INSERT INTO alembic_version VALUES (?)", (revision,))
        connection.commit()


def test_a_store_of_another_revision_is_never_given_to_mlflow(project: Project, tmp_path: Path) -> None:
    project.store.unlink()
    store(project.store, "000000000000")
    before = project.store.read_bytes()
    with pytest.raises(NotSupported, match="would change in place"):
        opening.open_project(project, tmp_path, hold=True)
    assert project.store.read_bytes() == before and not (project.home / lease.LEASE).exists()


def test_the_store_itself_is_opened_under_the_lease(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "hold_between_nodes", lambda folder: True)
    opened = opening.open_project(project, tmp_path, hold=True)
    assert opened.mode is Mode.WRITABLE and opened.uri == f"sqlite:///{project.store}" and opened.lease is not None
    monkeypatch.setattr(opening, "PATIENCE_S", 0.0)
    second = opening.open_project(project, tmp_path, hold=True)
    assert second.mode is Mode.COPY and "another process" in second.why
    opened.lease.release()


def test_locks_that_hold_on_one_node_only_mean_a_copy(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "hold_between_nodes", lambda folder: False)
    opened = opening.open_project(project, tmp_path, hold=True)
    assert opened.mode is Mode.COPY and "one node only" in opened.why and "mode=ro" in opened.uri
    assert not (project.home / lease.LEASE).exists()
    (copy,) = tmp_path.glob("*.db")
    assert copy.stat().st_mode & 0o777 == 0o400
    opening.open_project(project, tmp_path, hold=True)
    assert len(list(tmp_path.glob("*.db"))) == 1

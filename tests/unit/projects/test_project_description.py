"""What a list of projects shows, also of ones that are half broken."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest
from git_repository import Repository

from lossi import projects
from lossi.errors import Unavailable
from lossi.projects import index, stores


def test_new_project_has_nothing(project: projects.Project) -> None:
    info = projects.describe(project)
    assert (info.name, info.path, info.git, info.jobs, info.runs) == ("digits", str(project.root), None, 0, 0)
    assert info.writable
    assert info.store_revision is None


def test_counts_and_commit(repository: Repository, template: Path) -> None:
    project = projects.Project(repository.root)
    stores.ensure(project, template)
    repository.write("a.py")
    commit = repository.commit()
    with contextlib.closing(sqlite3.connect(project.store)) as connection:
        for number, stage in enumerate(["active", "active", "deleted"]):
            connection.execute(
                "INSERT INTO runs (run_uuid, lifecycle_stage, experiment_id, source_type, status) VALUES (?, ?, 0, 'LOCAL', 'RUNNING')",
                (str(number), stage),
            )
        connection.commit()
    for job in ("a", "b"):
        (project.jobs / job).mkdir()
    info = projects.describe(project)
    assert (info.runs, info.jobs, info.store_revision) == (2, 2, stores.revision(project.store))
    assert info.git == projects.GitInfo(commit=commit, branch="main", dirty=None)
    assert projects.describe(project, changes=True).git == projects.GitInfo(commit=commit, branch="main", dirty=False)
    repository.write("a.py", "changed")
    assert projects.describe(project, changes=True).git == projects.GitInfo(commit=commit, branch="main", dirty=True)
    with index.writing(project) as connection:
        connection.execute(
            "INSERT INTO jobs (id, name, kind, experiment, environment, user, tasks, state, created) VALUES ('a','a','notebook','e','local','me',1,'queued','t')"
        )
    assert projects.describe(project).jobs == 1


def test_broken_parts_are_unknown_not_errors(repository: Repository) -> None:
    project = projects.Project(repository.root)
    project.store.write_text("no database" * 100)
    project.index.write_text("no database" * 100)
    (repository.root / ".git" / "HEAD").write_text("nonsense")
    info = projects.describe(project, changes=True)
    assert (info.runs, info.jobs, info.git, info.store_revision) == (None, None, None, None)


def test_folder_that_is_not_a_project_yet(home: Path) -> None:
    (home / "plain" / ".git").mkdir(parents=True)
    info = projects.describe(projects.find(home / "plain"))
    assert (info.jobs, info.runs, info.writable) == (0, 0, True)


# --- the index ---


def test_index_is_made_shared_and_read(project: projects.Project) -> None:
    with index.reading(project) as connection:
        assert connection.execute("SELECT count(*) FROM jobs").fetchone()[0] == 0
    assert not project.index.exists()
    with index.writing(project) as connection:
        connection.execute("INSERT INTO task_runs VALUES ('r', 'j', 0, 0)")
    with index.reading(project) as connection:
        assert connection.execute("SELECT run_id FROM task_runs").fetchone()["run_id"] == "r"
        with pytest.raises(sqlite3.OperationalError):
            connection.execute("DELETE FROM task_runs")


def test_failed_change_of_the_index_leaves_nothing(project: projects.Project) -> None:
    with pytest.raises(KeyError), index.writing(project) as connection:
        connection.execute("INSERT INTO task_runs VALUES ('r', 'j', 0, 0)")
        raise KeyError
    with index.reading(project) as connection:
        assert connection.execute("SELECT count(*) FROM task_runs").fetchone()[0] == 0


def test_broken_index_says_that_it_can_be_deleted(project: projects.Project) -> None:
    project.index.write_text("no database" * 100)
    for way in (index.reading, index.writing):
        with pytest.raises(Unavailable) as caught, way(project) as connection:
            connection.execute("SELECT 1 FROM jobs")
        assert "delete" in caught.value.hint
    project.index.unlink()
    with index.writing(project):
        pass


@pytest.mark.parametrize("name", ["with space", "a?b#c", "a%20b"])
def test_index_of_a_project_of_any_name(home: Path, name: str) -> None:
    project = projects.init(home / name)
    with index.writing(project) as connection:
        connection.execute("INSERT INTO task_runs VALUES ('r', 'j', 0, 0)")
    assert project.index.exists()
    with index.reading(project) as connection:
        assert connection.execute("SELECT count(*) FROM task_runs").fetchone()[0] == 1

"""The embedded store is one that the unmodified MLflow opens, and its ids and places are MLflow's own."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from lossi import projects
from lossi.errors import Conflict, InvalidInput, NotFound, NotSupported, Unavailable
from lossi.projects import stores

ODD_NAMES = ["with space", "a?b", "a%20b", "a%b", "a#b", "a;b&c=d", "ünï☃", "q'\"x"]


def page_bytes(path: Path) -> int:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("PRAGMA page_size").fetchone()[0])


def client(uri: str) -> Any:
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ["DO_NOT_TRACK"] = "true"
    import mlflow

    return mlflow.MlflowClient(uri, uri)


@pytest.fixture
def stored(project: projects.Project, template: Path) -> projects.Project:
    stores.ensure(project, template)
    return project


# --- the empty store ---


def test_template_is_small_valid_and_of_a_known_revision(template: Path) -> None:
    assert page_bytes(template) == 1024
    assert template.stat().st_size < 400_000
    assert stores.revision(template) in stores.KNOWN_REVISIONS


def test_known_revision_is_the_one_of_the_installed_mlflow(template: Path) -> None:
    from mlflow.store.db.utils import _get_latest_schema_revision
    from mlflow.version import VERSION

    assert stores.KNOWN_REVISIONS[_get_latest_schema_revision()] == ".".join(VERSION.split(".")[:2])


def test_template_is_made_once_per_key_and_again_for_another(home: Path, tmp_path: Path) -> None:
    calls = tmp_path / "calls"
    fake = tmp_path / "py thon"
    # Not MLflow: only what the parent does with the child's answer matters here.
    body = """
import os, sqlite3, sys
assert sys.argv[1:3] == ["-I", "-c"]
assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == os.environ["DO_NOT_TRACK"] == "true"
assert "MLFLOW_TRACKING_URI" not in os.environ and os.environ["KEPT"] == "1"
open({calls!r}, "a").write("x")
print("noise of an image's start script", file=sys.stderr)
c = sqlite3.connect(":memory:")
c.executescript("create table alembic_version(version_num); insert into alembic_version values('r');"
                "create table experiments(experiment_id); insert into experiments values(0)")
sys.stdout.buffer.write(c.serialize())
"""
    fake.write_text(f"#!{sys.executable}\n{body.format(calls=str(calls))}")
    fake.chmod(0o755)
    variables = {"KEPT": "1", "MLFLOW_TRACKING_URI": "http://elsewhere", "PATH": os.environ["PATH"]}
    first = stores.template([str(fake)], "sha256:abc/../../x", variables)
    assert first.is_relative_to(home)
    assert stores.template([str(fake)], "sha256:abc/../../x", variables) == first
    assert calls.read_text() == "x"
    assert stores.template([str(fake)], "another", variables) != first
    assert calls.read_text() == "xx"


@pytest.mark.parametrize(
    ("argv", "error", "words", "hint"),
    [
        (["/no/such/python"], Unavailable, "cannot start", "lossi env check"),
        (["/bin/sh", "-c", "exit 0"], Unavailable, "could not create", "lossi env check"),
        (["/bin/sh", "-c", "echo 'SQLite format 3 not really'; exit 0"], Unavailable, "could not create", "lossi env check"),
        (["/bin/sh", "-c", "printf 'SQLite format 3\\0garbage'"], Unavailable, "cannot be used", "try again"),
        (
            ["/bin/sh", "-c", "echo \"ModuleNotFoundError: No module named 'sqlalchemy'\" >&2; exit 1"],
            NotSupported,
            "mlflow-skinny",
            "lossi env check",
        ),
    ],
)
def test_environment_that_cannot_make_a_store(home: Path, argv: list[str], error: type[Exception], words: str, hint: str) -> None:
    for _ in range(2):  # a failure is not cached
        with pytest.raises(error, match=words) as caught:
            stores.template(argv, "bad", {})
        assert hint in caught.value.hint  # type: ignore[attr-defined]


# --- the project's store ---


def test_ensure_creates_the_same_store_as_mlflow(stored: projects.Project, template: Path) -> None:
    assert page_bytes(stored.store) == 4096
    assert stores.revision(stored.store) == stores.revision(template)
    experiment = client(stores.tracking_uri(stored)).get_experiment("0")
    assert (experiment.name, experiment.artifact_location) == ("Default", str(stored.artifacts / "0"))
    assert sorted(path.name for path in stored.home.iterdir()) == [".gitignore", "artifacts", "jobs", "mlflow.db"]


def test_ensure_never_touches_an_existing_store(stored: projects.Project, template: Path) -> None:
    before = (stored.store.stat().st_mtime_ns, stored.store.stat().st_ino)
    stores.ensure(stored, template)
    assert (stored.store.stat().st_mtime_ns, stored.store.stat().st_ino) == before


def test_two_creators_at_once(project: projects.Project, template: Path) -> None:
    threads = [threading.Thread(target=stores.ensure, args=(project, template)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stores.revision(project.store) in stores.KNOWN_REVISIONS
    assert not [path for path in project.home.iterdir() if "part" in path.name]


def test_store_of_a_group_project_is_writable_by_the_group(home: Path, template: Path) -> None:
    root = home / "shared"
    root.mkdir()
    root.chmod(0o2770)
    before = os.umask(0o022)
    try:
        project = projects.init(root)
        stores.ensure(project, template)
        experiment = stores.ensure_experiment(project, "e")
    finally:
        os.umask(before)
    assert stat.S_IMODE(project.store.stat().st_mode) == 0o660
    assert stat.S_IMODE((project.artifacts / experiment.id).stat().st_mode) == 0o2770


@pytest.mark.parametrize("name", ODD_NAMES)
def test_unmodified_client_in_a_project_of_any_name(home: Path, template: Path, name: str) -> None:
    project = projects.init(home / name)
    stores.ensure(project, template)
    experiment = stores.ensure_experiment(project, "sweep")
    mlflow = client(stores.tracking_uri(project))
    (home / "figure.txt").write_text("figure")
    before = {path.name for path in home.iterdir()}
    for experiment_id in ("0", experiment.id):
        run = mlflow.create_run(experiment_id)
        mlflow.log_artifact(run.info.run_id, str(home / "figure.txt"))
        assert [item.path for item in mlflow.list_artifacts(run.info.run_id)] == ["figure.txt"]
        place = stores.local_path(run.info.artifact_uri)
        assert place == project.artifacts / experiment_id / run.info.run_id / "artifacts"
        assert (place / "figure.txt").read_text() == "figure"
    with contextlib.closing(stores.connect_readonly(project.store)) as connection:
        assert connection.execute("SELECT count(*) FROM runs").fetchone()[0] == 2
    # A misread path would have made a folder beside.
    assert {path.name for path in home.iterdir()} == before


def test_fluent_client_with_the_plain_uri(stored: projects.Project) -> None:
    """As a user would write it, in a process of its own; MLflow runs no migration (its log would say so)."""
    uri = f"sqlite:///{stored.store}"
    assert uri == stores.tracking_uri(stored)
    stores.ensure_experiment(stored, "digits")
    code = f"""
import mlflow
mlflow.set_tracking_uri({uri!r})
mlflow.set_experiment("digits")
with mlflow.start_run() as run:
    mlflow.log_param("c", 1); mlflow.log_metric("acc", 0.9); mlflow.log_text("hello", "note.txt")
print(run.info.artifact_uri)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=stored.root,
        timeout=120,
        env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"},
    )
    assert done.returncode == 0, done.stderr
    assert "pdating database" not in done.stderr and "Creating initial" not in done.stderr
    place = Path(done.stdout.strip().splitlines()[-1])
    assert place.is_relative_to(stored.artifacts / "1")
    assert (place / "note.txt").read_text() == "hello"
    assert not (stored.root / "mlruns").exists()


# --- experiments ---


def test_experiment_ids_are_those_mlflow_would_give(stored: projects.Project) -> None:
    mlflow = client(stores.tracking_uri(stored))
    assert stores.ensure_experiment(stored, "first").id == "1"
    assert mlflow.create_experiment("theirs", str(stored.artifacts / "2")) == "2"
    assert stores.ensure_experiment(stored, "second").id == "3"
    assert stores.ensure_experiment(stored, "first").id == "1"
    assert stores.ensure_experiment(stored, "theirs") == stores.Experiment("2", "theirs", str(stored.artifacts / "2"))
    ours = mlflow.get_experiment_by_name("second")
    assert (ours.experiment_id, ours.lifecycle_stage, ours.artifact_location) == ("3", "active", str(stored.artifacts / "3"))
    assert ours.creation_time == ours.last_update_time > 1_700_000_000_000
    assert mlflow.create_run("3").info.artifact_uri.startswith(str(stored.artifacts / "3"))


def test_concurrent_creation_gives_one_experiment(stored: projects.Project) -> None:
    ids: list[str] = []
    threads = [threading.Thread(target=lambda: ids.append(stores.ensure_experiment(stored, "same").id)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ids == ["1"] * 8


def test_deleted_experiment_is_a_conflict_with_a_hint(stored: projects.Project) -> None:
    experiment = stores.ensure_experiment(stored, "gone")
    client(stores.tracking_uri(stored)).delete_experiment(experiment.id)
    with pytest.raises(Conflict, match="deleted") as caught:
        stores.ensure_experiment(stored, "gone")
    assert f"restore --experiment-id {experiment.id}" in caught.value.hint


@pytest.mark.parametrize("name", ["", "  ", "a\nb", "x" * 501, "\x1b[31m", "\udcff"])
def test_invalid_experiment_names_are_refused(stored: projects.Project, name: str) -> None:
    with pytest.raises(InvalidInput):
        stores.ensure_experiment(stored, name)


def test_odd_experiment_names_are_accepted(stored: projects.Project) -> None:
    for name in ("x" * 500, "'; DROP TABLE experiments; --", "Übung %20?", "../../etc"):
        experiment = stores.ensure_experiment(stored, name)
        assert stores.local_path(experiment.artifact_location) == stored.artifacts / experiment.id
        assert client(stores.tracking_uri(stored)).get_experiment_by_name(name).experiment_id == experiment.id


def test_unknown_revision_is_read_but_never_written(stored: projects.Project) -> None:
    known = stores.ensure_experiment(stored, "known")
    with contextlib.closing(sqlite3.connect(stored.store)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
        connection.commit()
    assert stores.ensure_experiment(stored, "known") == known
    with pytest.raises(NotSupported, match="another MLflow"):
        stores.ensure_experiment(stored, "new")
    with contextlib.closing(stores.connect_readonly(stored.store)) as connection:
        assert connection.execute("SELECT count(*) FROM experiments").fetchone()[0] == 2


# --- opening ---


def test_missing_store_is_not_found_and_not_created(project: projects.Project) -> None:
    for attempt in (stores.connect_readonly, stores.revision):
        with pytest.raises(NotFound):
            attempt(project.store)
    with pytest.raises(NotFound):
        stores.ensure_experiment(project, "e")
    assert not project.store.exists()


def test_readonly_connection_cannot_write(stored: projects.Project) -> None:
    with contextlib.closing(stores.connect_readonly(stored.store)) as connection:
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            connection.execute("DELETE FROM experiments")
        assert connection.execute("PRAGMA trusted_schema").fetchone()[0] == 0


@pytest.mark.parametrize("name", [*ODD_NAMES, "x.db?mode=rwc", b"caf\xe9"])
def test_any_path_is_opened_as_itself(tmp_path: Path, template: Path, name: str | bytes) -> None:
    path = tmp_path / os.fsdecode(name)
    path.write_bytes(template.read_bytes())
    assert stores.revision(path) in stores.KNOWN_REVISIONS
    assert [item.name for item in tmp_path.iterdir()] == [os.fsdecode(name)]


def test_files_that_are_not_stores_have_no_revision(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("hello, this is not a database at all" * 50)
    sqlite3.connect(tmp_path / "empty").close()
    with contextlib.closing(sqlite3.connect(tmp_path / "other")) as connection:
        connection.execute("CREATE TABLE t (x)")
    for name in ("text", "empty", "other"):
        assert stores.revision(tmp_path / name) is None


def test_locked_store_is_explained(stored: projects.Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "WRITE_TIMEOUT_S", 0.05)
    with contextlib.closing(sqlite3.connect(stored.store, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable, match="locked") as caught:
            stores.ensure_experiment(stored, "e")
        assert "another process" in caught.value.hint
        writer.execute("ROLLBACK")
    assert stores.ensure_experiment(stored, "e").id == "1"


# --- the store of a task ---


def test_task_starts_with_the_projects_experiments(stored: projects.Project, template: Path, tmp_path: Path) -> None:
    stores.ensure_experiment(stored, "one")
    experiment = stores.ensure_experiment(stored, "two ☃")
    client(stores.tracking_uri(stored)).create_run("1")
    destination = tmp_path / "tracking.db"
    stores.task_template(stored, template, experiment, destination)
    assert page_bytes(destination) == 1024
    assert destination.stat().st_size < 400_000
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    task = client(f"sqlite:///{destination}")
    assert {(item.experiment_id, item.name) for item in task.search_experiments()} == {
        ("0", "Default"),
        ("1", "one"),
        ("2", "two ☃"),
    }
    run = task.create_run(experiment.id)
    assert run.info.artifact_uri == f"{stored.artifacts}/2/{run.info.run_id}/artifacts"
    assert task.search_runs(["0", "1"]) == []


def test_vanished_experiment_is_a_conflict(stored: projects.Project, template: Path, tmp_path: Path) -> None:
    with pytest.raises(Conflict):
        stores.task_template(stored, template, stores.Experiment("7", "ghost", "/x"), tmp_path / "t.db")
    assert list(tmp_path.glob("*.db*")) == [] and list(tmp_path.glob(".*")) == []


@pytest.mark.slow
def test_registered_model_is_found_by_its_alias_in_a_task(stored: projects.Project, template: Path, tmp_path: Path) -> None:
    """`models:/name@alias` of the project, as a notebook in a task would say it; both ways MLflow 3 registers."""
    code = """
import sys, mlflow
mlflow.set_tracking_uri(sys.argv[1])
class Double(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input: list[int]) -> list[int]:
        return [2 * x for x in model_input]
if sys.argv[2] == "make":
    mlflow.set_experiment("models")
    with mlflow.start_run() as run:
        mlflow.pyfunc.log_model(name="model", python_model=Double(), registered_model_name="doubler", pip_requirements=[])
        info = mlflow.pyfunc.log_model(name="model", python_model=Double(), pip_requirements=[])
    mlflow.register_model(info.model_uri, "doubler")
    client = mlflow.MlflowClient()
    client.set_registered_model_alias("doubler", "best", 2)
    client.set_registered_model_tag("doubler", "k", "v")
    client.set_model_version_tag("doubler", "1", "k", "v")
else:
    for uri in ("models:/doubler@best", "models:/doubler/1"):
        assert mlflow.pyfunc.load_model(uri).predict([1, 2]) == [2, 4]
    client = mlflow.MlflowClient()
    assert client.get_registered_model("doubler").tags == {"k": "v"}
    assert client.get_model_version("doubler", "1").tags == {"k": "v"}
"""
    experiment = stores.ensure_experiment(stored, "models")
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}

    def run(uri: str, what: str) -> None:
        done = subprocess.run(
            [sys.executable, "-c", code, uri, what], capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=300
        )
        assert done.returncode == 0, done.stderr

    run(stores.tracking_uri(stored), "make")
    destination = tmp_path / "task.db"
    stores.task_template(stored, template, experiment, destination)
    run(f"sqlite:///{destination}", "use")

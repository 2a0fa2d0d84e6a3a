"""Snapshots, runs and artifact locations of a store, with a small store in MLflow's form."""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from lossi.contract import records
from lossi.runner import publish, store, task_runs
from lossi.runner.relocation import Relocation

SCHEMA = """
CREATE TABLE experiments (experiment_id INTEGER PRIMARY KEY, name TEXT UNIQUE, artifact_location TEXT, lifecycle_stage TEXT);
CREATE TABLE runs (run_uuid TEXT PRIMARY KEY, name TEXT, user_id TEXT, status TEXT, start_time INT, end_time INT,
                   lifecycle_stage TEXT, artifact_uri TEXT, experiment_id INT);
CREATE TABLE tags (key TEXT, value TEXT, run_uuid TEXT, PRIMARY KEY (key, run_uuid));
CREATE TABLE params (key TEXT, value TEXT NOT NULL, run_uuid TEXT, PRIMARY KEY (key, run_uuid));
CREATE TABLE metrics (value REAL);
INSERT INTO experiments VALUES (0, 'Default', '/a/0', 'active');
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "work" / "tracking.db"
    path.parent.mkdir()
    with sqlite3.connect(path) as connection:
        connection.executescript("PRAGMA page_size=1024;" + SCHEMA)
    connection.close()
    (tmp_path / "task").mkdir()
    return path


def add_run(
    path: Path, run: str, *, start: int = 1, status: str = "RUNNING", end: int | None = None, parent: str | None = None
) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(
            "INSERT INTO runs VALUES (?, ?, '', ?, ?, ?, 'active', ?, 0)", (run, run, status, start, end, f"/a/0/{run}/artifacts")
        )
        if parent:
            connection.execute("INSERT INTO tags VALUES ('mlflow.parentRunId', ?, ?)", (parent, run))
    connection.close()


def test_snapshot_is_named_by_its_content_and_replaces_the_older(small: Path, tmp_path: Path) -> None:
    folder = tmp_path / "task"
    (folder / "tracking-notes.db").touch()
    first = publish.publish(small, folder, 1)
    add_run(small, "r")
    second = publish.publish(small, folder, 2, amend=lambda c: store.set_tags(c, "r", {"k": "v"}))
    assert not first.exists()
    assert second.name == records.SNAPSHOT_PATTERN.format(seq=2, digest=hashlib.sha256(second.read_bytes()).hexdigest()[:16])
    assert publish.snapshots(folder) == [(2, second)]
    assert [path.name for path in small.parent.iterdir()] == ["tracking.db"]
    with sqlite3.connect(small) as connection:
        assert connection.execute("SELECT count(*) FROM tags").fetchone() == (0,)  # only the copy was amended
        assert connection.execute("PRAGMA page_size").fetchone() == (1024,)
    connection.close()


def test_snapshot_is_one_committed_state_while_a_client_writes(small: Path, tmp_path: Path) -> None:
    """Each transaction adds two rows: a snapshot with an odd number would be a torn one."""
    stop = threading.Event()

    def write() -> None:
        connection = sqlite3.connect(small, isolation_level=None, timeout=10)
        while not stop.is_set():
            connection.executescript("BEGIN IMMEDIATE; INSERT INTO metrics VALUES (1); INSERT INTO metrics VALUES (2); COMMIT;")
        connection.close()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for seq in range(1, 15):
            path = publish.publish(small, tmp_path / "task", seq)
            connection = sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)
            assert connection.execute("SELECT count(*) FROM metrics").fetchone()[0] % 2 == 0
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            connection.close()
    finally:
        stop.set()
        writer.join()


def test_publishing_gives_up_on_a_locked_store(small: Path, tmp_path: Path) -> None:
    holder = sqlite3.connect(small, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        publish.publish(small, tmp_path / "task", 1, busy_s=0.3)
    holder.close()
    assert publish.snapshots(tmp_path / "task") == []


def test_restoring_skips_a_damaged_snapshot(small: Path, tmp_path: Path) -> None:
    folder, restored = tmp_path / "task", tmp_path / "restored.db"
    assert not publish.restore(folder, restored)
    good = publish.publish(small, folder, 1)
    (folder / records.SNAPSHOT_PATTERN.format(seq=2, digest="0" * 16)).write_bytes(b"half")
    assert publish.restore(folder, restored)
    assert restored.read_bytes() == good.read_bytes()


def test_the_publisher_waits_for_runs_changes_and_the_interval(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "task"
    now = 0.0
    monkeypatch.setattr(publish, "time", SimpleNamespace(monotonic=lambda: now))
    publisher = publish.Publisher(small, folder, interval_s=0.1, amend=lambda _: None)

    def published(after_s: float) -> list[int]:
        nonlocal now
        now += after_s
        publisher.poll()
        publisher.wait()
        return [seq for seq, _ in publish.snapshots(folder)]

    with sqlite3.connect(small) as connection:
        connection.execute("INSERT INTO metrics VALUES (1)")
    assert published(0.2) == []  # changed, but no run
    add_run(small, "r")
    assert published(0.05) == []  # not yet
    assert published(0.1) == [1]
    assert published(0.3) == [1]  # nothing changed
    publisher.finish()
    assert [seq for seq, _ in publish.snapshots(folder)] == [2]
    assert publisher.problem == ""
    publisher.task_folder = tmp_path / "gone"
    publisher.finish()
    assert "does not exist" in publisher.problem


FACTS = task_runs.RunFacts(tags={"lossi.task": "0"}, params={"p": 1}, artifact_location="/a/0")


def finalised(path: Path, state: str, failed_ms: int | None = None) -> list[store.Run]:
    with store.opened(path) as connection:
        return task_runs.finalise(connection, FACTS, task_runs.TaskEnd(state, 10, 1000, failed_ms))


def test_the_first_run_that_is_not_nested_is_the_tasks(small: Path) -> None:
    for name, start, parent in (("late", 30, None), ("child", 5, "early"), ("early", 20, None)):
        add_run(small, name, start=start, parent=parent)
    assert [run.id for run in finalised(small, "succeeded")] == ["early", "late", "child"]


@pytest.mark.parametrize(
    ("state", "status", "end", "failed", "expected"),
    [
        ("succeeded", "RUNNING", None, None, "FINISHED"),
        ("failed", "RUNNING", None, None, "FAILED"),
        ("cancelled", "RUNNING", None, None, "KILLED"),
        ("timed_out", "RUNNING", None, None, "KILLED"),
        ("out_of_memory", "RUNNING", None, None, "FAILED"),
        ("failed", "FINISHED", 500, 600, "FINISHED"),
        ("failed", "FINISHED", 700, 600, "FAILED"),
        ("cancelled", "FAILED", 700, 600, "FAILED"),
        ("succeeded", "FAILED", 700, None, "FAILED"),
    ],
)
def test_status_of_runs_at_the_end(
    small: Path, state: str, status: str, end: int | None, failed: int | None, expected: str
) -> None:
    add_run(small, "r", status=status, end=end)
    (run,) = finalised(small, state, failed)
    assert (run.status, run.end_ms) == (expected, end or 1000)
    assert finalised(small, state, failed) == [run]


def test_an_unknown_required_column_is_refused(small: Path) -> None:
    with sqlite3.connect(small) as connection:
        connection.execute("DROP TABLE runs")
        connection.execute(
            "CREATE TABLE runs (run_uuid TEXT, name TEXT, user_id TEXT, status TEXT, start_time INT, end_time INT,"
            " lifecycle_stage TEXT, artifact_uri TEXT, experiment_id INT, tenant TEXT NOT NULL)"
        )
    with pytest.raises(store.StoreError, match=r"runs\.tenant"):
        finalised(small, "succeeded")


def params_of(connection: sqlite3.Connection) -> dict[str, str]:
    return dict(connection.execute("SELECT key, value FROM params").fetchall())


def test_resumed_run_can_replace_params_and_keeps_the_others(small: Path) -> None:
    finalised(small, "cancelled")
    with store.opened(small) as connection:
        run_id, earlier = task_runs.resume(connection, 5000)
        (run,) = store.runs(connection)
        assert (run.id, run.status, run.end_ms) == (run_id, "RUNNING", None)
        assert params_of(connection) == {}
        kept = {"p": "1", "host": "first"}
        assert earlier == {run.id: {"p": "1"}}
        again = replace(FACTS, earlier_params={run.id: kept})
        store.add_params(connection, run.id, {"host": "second"})  # logged by this attempt
        task_runs.amend_live(connection, again)
        assert params_of(connection) == {"p": "1", "host": "second"}
        task_runs.finalise(connection, again, task_runs.TaskEnd("succeeded", 0, 1000))
        assert params_of(connection) == {"p": "1", "host": "second"}


def test_other_open_runs_of_an_earlier_attempt_are_ended(small: Path) -> None:
    add_run(small, "own", status="RUNNING", start=1)
    add_run(small, "open", status="RUNNING", start=2)
    add_run(small, "done", status="FINISHED", end=3, start=3)
    with store.opened(small) as connection:
        assert task_runs.resume(connection, 5000)[0] == "own"
        ends = {run.id: (run.status, run.end_ms) for run in store.runs(connection)}
    assert ends == {"own": ("RUNNING", None), "open": ("KILLED", 5000), "done": ("FINISHED", 3)}


def test_snapshots_of_a_later_attempt_are_always_newer(small: Path, tmp_path: Path) -> None:
    task = tmp_path / "task"
    first = publish.Publisher(small, task, interval_s=1, amend=lambda _: None)
    first.finish()
    second = publish.Publisher(small, task, interval_s=1, amend=lambda _: None, first_seq=1_000_000)
    second.finish()
    first.finish()  # on an abandoned node
    assert [seq for seq, _ in publish.snapshots(task)] == [2, 1_000_001]


def test_artifacts_on_the_node_get_their_final_path(tmp_path: Path) -> None:
    work, home = tmp_path / "work", tmp_path / "home"
    (work / "code" / "nb").mkdir(parents=True)
    relocation = Relocation(work, work / "code", Path("/p"), home)
    assert relocation.final_path(work / "code" / "nb" / "mlruns" / "2" / "r") == home / "2" / "r"
    assert relocation.final_path(work / "code" / "mine") == home / "other" / "code" / "mine"
    assert relocation.final_path(tmp_path / "elsewhere") is None
    assert relocation.final_path(tmp_path / "workshop") is None  # a longer name is another folder
    relocation.link(work / "code" / "nb")
    assert relocation.final_path(work / "code" / "nb" / "mlruns" / "2") == home / "2"
    relocation.tidy()
    assert not home.exists()


def test_locations_are_read_back_as_mlflow_reads_them() -> None:
    for path in ("/a/b", "/100%25 of/a", "/ü ?#"):
        assert store.local_path(store.location_of(Path(path))) == Path(path)
    assert store.local_path("s3://bucket/x") is None
    assert store.local_path("file://elsewhere/x") is None

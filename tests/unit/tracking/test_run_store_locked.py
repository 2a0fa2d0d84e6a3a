"""Reading stores that are locked, half written, foreign, damaged or missing; it never changes them."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lossi import tracking
from lossi.errors import Forbidden, NotFound, Unavailable
from lossi.projects import Project, index
from lossi.tracking.query import last_state, store as stores

REVISION = "dc11669786a5"
SCHEMA = """
CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL);
CREATE TABLE experiments (experiment_id INTEGER PRIMARY KEY, name VARCHAR(256), lifecycle_stage VARCHAR(32));
CREATE TABLE runs (run_uuid VARCHAR(32) PRIMARY KEY, name VARCHAR(250), status VARCHAR(9), start_time BIGINT, experiment_id INTEGER);
CREATE TABLE params (key VARCHAR(250), value VARCHAR(8000), run_uuid VARCHAR(32), PRIMARY KEY (key, run_uuid));
CREATE TABLE tags (key VARCHAR(250), value VARCHAR(8000), run_uuid VARCHAR(32), PRIMARY KEY (key, run_uuid));
CREATE TABLE latest_metrics (key VARCHAR(250), value FLOAT, step BIGINT, run_uuid VARCHAR(32), PRIMARY KEY (key, run_uuid));
"""
WRITER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA cache_size=5")
connection.execute("BEGIN IMMEDIATE")
connection.execute("UPDATE params SET value = value || ' uncommitted'")
connection.execute("UPDATE runs SET name = 'uncommitted'")
print("spilled", flush=True)
sys.stdin.readline()
connection.execute(sys.argv[2])
print("done", flush=True)
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project whose store has only some of MLflow's columns, with 300 runs."""
    project = Project(tmp_path / "what? 100%")
    project.home.mkdir(parents=True)
    connection = sqlite3.connect(project.store)
    connection.executescript(SCHEMA)
    connection.execute("INSERT INTO alembic_version VALUES (?)", (REVISION,))
    connection.execute("INSERT INTO experiments VALUES (0, 'Default', 'active')")
    for number in range(300):
        run = f"{number:032x}"
        connection.execute("INSERT INTO runs VALUES (?, 'committed', 'FINISHED', ?, 0)", (run, number))
        connection.execute("INSERT INTO params VALUES ('lr', ?, ?)", ("x" * 200, run))
        connection.execute("INSERT INTO latest_metrics VALUES ('loss', 0.5, 1, ?)", (run,))
    connection.commit()
    connection.close()
    return project


@pytest.fixture
def writer(project: Project) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Start another process that has written half a transaction to the store and holds its lock."""
    started: list[subprocess.Popen[str]] = []

    def start(then: str = "ROLLBACK") -> subprocess.Popen[str]:
        command = [sys.executable, "-c", textwrap.dedent(WRITER), str(project.store), then]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None and process.stdout.readline() == "spilled\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def names(project: Project) -> set[object]:
    table = tracking.search(project, columns=["run_name"], limit=None)
    assert len(table.columns["run_name"]) == 300
    return set(table.columns["run_name"])


def test_during_a_write_the_last_committed_state_is_read_and_marked_stale(
    project: Project, writer: Callable[[str], subprocess.Popen[str]]
) -> None:
    process = writer("COMMIT")
    before = project.store.read_bytes()
    assert b"uncommitted" in before, "the test needs a transaction that is half in the file"
    table = tracking.search(project, columns=["run_name", "params.lr"], limit=None)
    assert table.stale and table.total == 300
    assert set(table.columns["run_name"]) == {"committed"} and set(table.columns["params.lr"]) == {"x" * 200}
    assert project.store.read_bytes() == before
    process.stdin.write("\n")  # type: ignore[union-attr]
    process.stdin.flush()  # type: ignore[union-attr]
    assert process.stdout.readline() == "done\n"  # type: ignore[union-attr]
    assert names(project) == {"uncommitted"}, "the writer lost nothing through the reader"
    assert not tracking.search(project).stale


def test_a_short_lock_is_waited_for(
    project: Project, writer: Callable[[str], subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    process = writer("ROLLBACK")
    waited: list[float] = []

    def release(seconds: float) -> None:
        waited.append(seconds)
        process.communicate("\n")

    monkeypatch.setattr(stores.time, "sleep", release)
    table = tracking.search(project, columns=["run_name"])
    assert waited and not table.stale and set(table.columns["run_name"]) == {"committed"}


def test_what_a_dead_writer_left_is_read_and_not_changed(
    project: Project, writer: Callable[[str], subprocess.Popen[str]]
) -> None:
    process = writer("COMMIT")
    process.kill()
    process.wait()
    journal = project.store.with_name("mlflow.db-journal")
    before = (project.store.read_bytes(), journal.read_bytes())
    table = tracking.search(project, columns=["run_name"], limit=None)
    assert table.stale and set(table.columns["run_name"]) == {"committed"}
    assert (project.store.read_bytes(), journal.read_bytes()) == before


def test_a_transaction_over_two_databases_is_rolled_back_too(
    project: Project, writer: Callable[[str], subprocess.Popen[str]], tmp_path: Path
) -> None:
    process = writer("COMMIT")
    process.kill()
    process.wait()
    journal = project.store.with_name("mlflow.db-journal")
    name = str(tmp_path / "mlflow.db-mj00000000").encode()
    ending = len(name).to_bytes(4, "big") + sum(name).to_bytes(4, "big") + last_state.MAGIC
    locking_page = (2**30 // 4096 + 1).to_bytes(4, "big")
    with journal.open("ab") as stream:
        stream.write(locking_page + name + ending)
    plain = tmp_path / "plain"
    plain.mkdir()
    for path in (project.store, journal):
        shutil.copy(path, plain)
    with sqlite3.connect(plain / "mlflow.db") as connection:  # the super-journal is gone: SQLite ignores the journal
        uncommitted = connection.execute("SELECT count(*) FROM runs WHERE name = 'uncommitted'").fetchone()[0]
    connection.close()
    assert uncommitted, "the test needs a journal that SQLite does not roll back by itself"
    assert names(project) == {"committed"}


def test_facts_of_tasks_are_read_from_the_last_state_too(
    project: Project, writer: Callable[[str], subprocess.Popen[str]]
) -> None:
    with index.writing(project) as connection:
        connection.execute("INSERT INTO tasks (job_id, task, state) VALUES ('j', 0, 'failed')")
        connection.execute("INSERT INTO task_runs VALUES (?, 'j', 0, 0)", (f"{7:032x}",))
    writer("COMMIT")
    table = tracking.search(project, filter="job.state = 'failed'", columns=["run_name", "job.task"])
    assert table.stale and table.columns == {"run_name": ["committed"], "job.task": [0]}


def test_a_locked_store_too_large_to_copy_asks_to_try_again(
    project: Project, writer: Callable[[str], subprocess.Popen[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    writer("COMMIT")
    monkeypatch.setattr(last_state, "MAX_BYTES", 10)
    with pytest.raises(Unavailable, match="locked") as raised:
        tracking.search(project)
    assert "again" in raised.value.hint


def test_no_store_reads_as_an_empty_one(tmp_path: Path) -> None:
    project = Project(tmp_path)
    table = tracking.search(project, filter="metrics.a > 1 AND job.state = 'failed'", order_by=["job.elapsed_s", "params.x"])
    assert table.total == 0 and table.next_cursor is None and all(column == [] for column in table.columns.values())
    assert tracking.list_experiments(project).items == []
    assert "".join(tracking.export(project)).startswith("run_id,")
    for query in (
        lambda: tracking.run(project, "a"),
        lambda: tracking.compare(project, ["a"]),
        lambda: tracking.artifacts(project, "a"),
    ):
        with pytest.raises(NotFound, match="no run a"):
            query()
    assert not project.home.exists(), "reading creates nothing"


def test_an_empty_file_reads_as_an_empty_store(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.home.mkdir()
    project.store.touch()
    assert tracking.search(project).total == 0


def test_missing_tables_and_columns_read_as_empty(project: Project) -> None:
    table = tracking.search(project, filter="metrics.loss = 0.5 AND tags.x IS NULL", order_by=["metrics.loss"], limit=2)
    assert table.total == 300 and table.columns["metrics.loss"] == [0.5, 0.5] and table.read_only_revision is None
    assert tracking.search(project, filter="datasets.name = 'x'").total == 0
    detail = tracking.run(project, f"{7:032x}")
    assert detail.metrics["loss"].last == 0.5 and detail.datasets == [] and detail.user_id is None
    assert tracking.list_experiments(project).items[0].runs == 300


def test_an_unknown_revision_is_read_and_reported(project: Project) -> None:
    with sqlite3.connect(project.store) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    connection.close()
    assert tracking.search(project).read_only_revision == "ffffffffffff"
    assert tracking.run(project, f"{7:032x}").read_only_revision == "ffffffffffff"
    assert tracking.compare(project, [f"{7:032x}"]).read_only_revision == "ffffffffffff"


def test_a_file_that_is_not_a_store_is_reported(tmp_path: Path) -> None:
    project = Project(tmp_path)
    project.home.mkdir()
    project.store.write_bytes(b"no database at all" * 100)
    with pytest.raises(Unavailable, match="cannot be read") as raised:
        tracking.search(project)
    assert str(project.store) in raised.value.hint


def test_a_damaged_index_hides_no_runs_but_is_reported_if_needed(project: Project) -> None:
    project.index.write_bytes(b"no database at all" * 100)
    assert tracking.search(project).total == 300
    assert "".join(tracking.export(project)).count("\n") == 301
    assert tracking.compare(project, [f"{7:032x}", f"{8:032x}"]).runs
    assert tracking.run(project, f"{7:032x}").job is None
    with pytest.raises(Unavailable, match=r"index.*cannot be read") as raised:
        tracking.search(project, filter="job.state = 'failed'")
    assert "delete it" in raised.value.hint


def test_a_hostile_store_reads_as_plain_data(project: Project) -> None:
    connection = sqlite3.connect(project.store)
    connection.executescript(
        """
        DROP TABLE tags;
        CREATE VIEW tags AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)
            SELECT 'k' AS key, i AS value, 'r' AS run_uuid FROM n;
        INSERT INTO params VALUES ('blob', X'ff00fe', '00000000000000000000000000000001');
        INSERT INTO params VALUES ('text', CAST(X'ff61' AS TEXT), '00000000000000000000000000000001');
        INSERT INTO latest_metrics VALUES ('words', 'many', 'x', '00000000000000000000000000000001');
        INSERT INTO latest_metrics VALUES ('endless', 9e999, 1, '00000000000000000000000000000001');
        UPDATE runs SET start_time = 'yesterday', name = X'80' WHERE run_uuid = '00000000000000000000000000000001';
        """
    )
    connection.close()
    table = tracking.search(project, filter="run_id = '00000000000000000000000000000001'")
    row = {name: column[0] for name, column in table.columns.items()}
    assert row["params.text"] == "\ufffda" and row["metrics.words"] == "many" and row["metrics.endless"] == "Infinity"
    table.model_dump_json()
    tracking.run(project, "00000000000000000000000000000001").model_dump_json()
    tracking.compare(project, ["00000000000000000000000000000001"]).model_dump_json()


def test_a_query_that_never_ends_is_stopped(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "LIMIT_S", 0.2)
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    with pytest.raises(Unavailable, match="took longer"):
        stores.read(project, lambda store: store.rows(endless))


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_without_read_permission_the_error_names_it(project: Project) -> None:
    project.store.chmod(0)
    with pytest.raises(Forbidden, match=r"mlflow\.db"):
        tracking.search(project)
    project.store.chmod(0o600)
    project.home.chmod(0)
    try:
        with pytest.raises(Forbidden, match="may not read"):
            tracking.search(project)
    finally:
        project.home.chmod(0o700)


def test_nothing_is_left_of_a_copy(
    project: Project, writer: Callable[[str], subprocess.Popen[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "tmp"
    place.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place))
    writer("COMMIT")
    assert tracking.search(project).stale
    assert list(place.iterdir()) == []

"""Damaged, foreign and unreadable snapshots, stores and disks: a clear problem, and nothing else lost."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import sqlite3
from pathlib import Path

import pytest
from ingest_support import Task, World, dump, job_id

from lossi.contract import records
from lossi.projects import stores
from lossi.tracking.ingest import lease as leases
from lossi.tracking.ingest.entry import ingest_runs


def publish_bytes(folder: Path, data: bytes, seq: int = 1) -> Path:
    """Publish any bytes under a name with the right checksum."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / records.SNAPSHOT_PATTERN.format(seq=seq, digest=hashlib.sha256(data).hexdigest()[:16])
    path.write_bytes(data)
    return path


@pytest.fixture
def good(world: World) -> Task:
    """A task that succeeded, in a job with one that did not."""
    world.job(1, tasks=2)
    task = world.task(1)
    task.log.run("good")
    task.finish()
    return task


def damaged_store(task: Task) -> bytes:
    data = bytearray(task.log.path.read_bytes())
    data[1024:9000] = bytes(7976)
    return bytes(data)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("checksum", "checksum is not the one in its name"),
        ("truncated", "checksum is not the one in its name"),
        ("text", "not an SQLite database"),
        ("empty", "not an SQLite database"),
        ("pages", "cannot be read"),
        ("no mlflow", "schema revision is not known: None"),
        ("revision", "schema revision is not known: 0123456789ab"),
        ("constraint", "cannot be merged"),
        ("types", "cannot be merged"),
    ],
)
def test_a_bad_snapshot_is_reported_and_stays(world: World, good: Task, fault: str, reason: str) -> None:
    bad = world.task(0)
    run = bad.log.run("bad")
    bad.exit(run)
    whole = bad.log.path.read_bytes()
    if fault == "checksum":
        path = publish_bytes(bad.folder, whole)
        path.write_bytes(whole[:-1] + b"x")
    elif fault == "truncated":
        path = publish_bytes(bad.folder, whole)
        path.write_bytes(whole[: len(whole) // 2])
    elif fault in ("text", "empty"):
        path = publish_bytes(bad.folder, b"hello\n" * 100 if fault == "text" else b"")
    elif fault == "pages":
        path = publish_bytes(bad.folder, damaged_store(bad))
    elif fault == "no mlflow":
        with contextlib.closing(sqlite3.connect(bad.folder / "x.db")) as connection:
            connection.execute("CREATE TABLE t (x)")
            connection.commit()
        path = publish_bytes(bad.folder, (bad.folder / "x.db").read_bytes())
    else:
        if fault == "revision":
            bad.log.sql.execute("UPDATE alembic_version SET version_num = '0123456789ab'")
        elif fault == "constraint":
            bad.log.sql.execute("PRAGMA ignore_check_constraints=ON")
            bad.log.sql.execute("UPDATE runs SET status = 'PERHAPS'")
        else:
            bad.log.sql.execute("PRAGMA foreign_keys=OFF")
            bad.log.sql.execute("UPDATE runs SET run_uuid = x'00ff', start_time = 'noon'")
            bad.log.run("two")
        path = publish_bytes(bad.folder, bad.log.path.read_bytes())
    for _ in range(2):  # refused, then remembered
        report = ingest_runs(world.project)
        (problem,) = report.problems
        assert reason in problem.why
        assert problem.job_id == job_id(1)
        assert problem.hint
        assert report.remaining == 0
    assert path.exists()
    assert world.rows("runs", "name") == [("good",)]
    assert world.ledger("ingested_jobs") == []
    dump(world.project)


def test_a_refused_snapshot_is_not_read_again_until_it_changes(world: World, good: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = world.task(0)
    run = bad.log.run("was bad")
    bad.finish(run)
    (path,) = bad.folder.glob("tracking-*.db")
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"x")
    ingest_runs(world.project)
    with monkeypatch.context() as patch:
        patch.setattr("lossi.tracking.ingest.snapshots.Reader.read", lambda *_, **__: pytest.fail("read again"))
        assert len(ingest_runs(world.project).problems) == 1
    path.write_bytes(whole)
    os.utime(path, ns=(1, 1))
    report = ingest_runs(world.project)
    assert (report.taken, report.problems) == (1, ())
    assert world.rows("runs", "name") == [("good",), ("was bad",)]
    assert world.ledger("ingested_jobs") == [(job_id(1), 1)]


def test_an_older_good_snapshot_is_used_if_the_newest_is_bad(world: World) -> None:
    task = world.task()
    run = task.log.run("one")
    first = task.publish()
    kept = first.read_bytes()
    task.log.metric(run, "loss", 1.0)
    task.finish(run)
    first.write_bytes(kept)
    (newest,) = task.folder.glob("tracking-00000002-*.db")
    newest.write_bytes(b"damaged")
    report = ingest_runs(world.project)
    assert (report.taken, len(report.problems)) == (1, 1)
    assert world.rows("runs", "name") == [("one",)]
    assert newest.exists()


def test_one_bad_snapshot_among_many_spoils_nothing(world: World) -> None:
    world.job(1, tasks=20)
    for number in range(20):
        task = world.task(number)
        task.log.run(f"run {number}")
        if number == 7:
            task.log.sql.execute("PRAGMA ignore_check_constraints=ON")
            task.log.sql.execute("UPDATE runs SET lifecycle_stage = 'nowhere'")
        task.finish()
    report = ingest_runs(world.project)
    assert (report.taken, len(report.problems)) == (19, 1)
    assert len(world.rows("runs")) == 19
    assert len(world.files()) == 1


def test_a_store_of_an_unknown_revision_is_never_written(world: World, good: Task) -> None:
    with world.store() as store:
        store.sql.execute("UPDATE alembic_version SET version_num = 'feedfeedfeed'")
    before = world.project.store.read_bytes()
    report = ingest_runs(world.project)
    (problem,) = report.problems
    assert "feedfeedfeed" in problem.what
    assert stores.KNOWN_REVISIONS["dc11669786a5"] in problem.hint
    assert world.project.store.read_bytes() == before
    assert len(world.files()) == 1


def test_a_damaged_store_is_reported(world: World, good: Task) -> None:
    world.project.store.write_bytes(b"not a database at all" * 1000)
    (problem,) = ingest_runs(world.project).problems
    assert "damaged" in problem.what
    assert len(world.files()) == 1


def test_no_store_and_no_template_is_a_problem(world: World, good: Task) -> None:
    world.project.store.unlink()
    (world.project.jobs / job_id(1) / records.TEMPLATE).unlink()
    (problem,) = ingest_runs(world.project).problems
    assert "there is no store" in problem.what
    assert len(world.files()) == 1


def test_a_job_directory_without_a_spec_does_no_harm(world: World, good: Task) -> None:
    for text in ("", "{", '{"id": 3}', "[]"):
        (world.project.jobs / job_id(1) / records.SPEC).write_text(text)
        assert ingest_runs(world.project).problems == ()
    assert world.rows("runs", "name") == [("good",)]


def test_an_invalid_exit_record_ends_the_task_all_the_same(world: World) -> None:
    for job, text in enumerate(("", "[]", '{"run_ids": 3}', '{"run_ids": [1, null]}'), start=1):
        task = world.task(0, job)
        task.log.run(f"run {job}")
        task.publish()
        (task.folder / records.EXIT).write_text(text)
    assert ingest_runs(world.project).taken == 4
    assert world.files() == []


def test_a_store_locked_by_another_process_is_busy(world: World, good: Task) -> None:
    with world.store() as store:
        store.sql.execute("BEGIN IMMEDIATE")
        report = ingest_runs(world.project, budget_s=0.1)
        store.sql.execute("ROLLBACK")
    assert (report.busy, report.taken) == (True, 0)
    assert ingest_runs(world.project).taken == 1


def test_a_reader_that_locks_the_store_only_delays(world: World, good: Task) -> None:
    with contextlib.closing(stores.connect_readonly(world.project.store)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM runs").fetchall()
        assert ingest_runs(world.project, budget_s=0.1).busy
    assert ingest_runs(world.project).taken == 1
    assert world.rows("runs", "name") == [("good",)]


def test_a_full_disk_is_a_problem_and_loses_nothing(world: World, good: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    from lossi.tracking.ingest import session

    def full(*arguments: object, **more: object) -> sqlite3.Connection:
        connection = sqlite3.connect(*arguments, **more)  # type: ignore[arg-type]
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count={pages}")
        return connection

    good.log.sql.execute("BEGIN")
    for step in range(2000):
        good.log.metric(good.log.value("SELECT run_uuid FROM runs"), "loss", 1.0, step)
    good.log.sql.execute("COMMIT")
    good.finish()
    with monkeypatch.context() as patch:
        patch.setattr(session, "connect", full)
        (problem,) = ingest_runs(world.project).problems
    assert problem.why == "the filesystem is full"
    assert world.rows("runs") == []
    assert ingest_runs(world.project).taken == 1
    assert len(world.rows("metrics")) == 2000


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_project_is_not_an_error(world: World, good: Task) -> None:
    world.project.home.chmod(0o550)
    try:
        report = ingest_runs(world.project)
    finally:
        world.project.home.chmod(0o750)
    assert (report.read_only, report.taken, report.problems) == (True, 0, ())


def test_without_write_permission_there_is_a_report_and_no_error(
    world: World, good: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK and real(path, mode))
    report = ingest_runs(world.project)
    assert (report.read_only, report.taken, report.problems) == (True, 0, ())
    assert not (world.project.home / leases.LEASE).exists()


def test_a_lease_held_by_another_process_is_busy(world: World, good: Task) -> None:
    with (world.project.home / leases.LOCK).open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        report = ingest_runs(world.project)
    assert (report.busy, report.taken) == (True, 0)
    assert ingest_runs(world.project).taken == 1


def test_a_lease_lost_during_the_merge_commits_nothing(world: World, good: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    from lossi.tracking.ingest import merge

    real = merge.merge

    def merge_and_lose(*arguments: object) -> None:
        real(*arguments)  # type: ignore[arg-type]
        (world.project.home / leases.LEASE).unlink()

    with monkeypatch.context() as patch:
        patch.setattr(merge, "merge", merge_and_lose)
        report = ingest_runs(world.project)
    assert (report.busy, report.taken) == (True, 0)
    assert world.rows("runs") == []
    assert ingest_runs(world.project).taken == 1

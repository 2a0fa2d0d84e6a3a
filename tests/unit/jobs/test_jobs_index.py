"""The index can be lost, damaged, locked or read-only."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from direct_scheduler import DirectScheduler, now, running

from lossi import jobs
from lossi.contract.records import TaskError
from lossi.jobs.schedulers import TaskView
from lossi.jobs.state import refresh, table
from lossi.projects import Project, index as store

Spec = Callable[..., Any]
Ends = Callable[..., None]


def everything(project: Project) -> list[Any]:
    page = jobs.list_jobs(project)
    return [page, [jobs.get(project, job.id) for job in page.items], [jobs.tasks(project, job.id) for job in page.items]]


@pytest.fixture
def busy(project: Project, sweep: Any, spec: Spec, direct: DirectScheduler, ends: Ends) -> Project:
    """A project with jobs in several states."""
    first, second = sweep(4), jobs.submit(project, spec(parameters={"name": "x"}))
    ends(first.id, 0)
    ends(first.id, 1, "failed", exit_code=3, error=TaskError("E", "m"))
    direct.say(first.id, 0, TaskView("succeeded", "COMPLETED", started=now(), ended=now()))
    direct.say(first.id, 1, TaskView("failed", "FAILED", started=now(), ended=now()))
    direct.say(first.id, 2, TaskView("queued", "PENDING", "Priority"))
    ends(second.id, 0, cpu_s=30.0, max_rss_mb=100.0)
    direct.say(second.id, 0, TaskView("succeeded", "COMPLETED", started=now(), ended=now()))
    return project


@pytest.mark.parametrize("harm", ["deleted", "not a database", "empty", "cut off", "overwritten in the middle"])
def test_an_index_that_is_lost_or_damaged_is_made_again(busy: Project, harm: str) -> None:
    before = everything(busy)
    data = busy.index.read_bytes()
    busy.index.unlink()
    if harm != "deleted":
        middle = len(data) // 2
        busy.index.write_bytes(
            {
                "not a database": b"hello" * 1000,
                "empty": b"",
                "cut off": data[:5000],
                "overwritten in the middle": data[:4096] + b"\xff" * (len(data) - 4096),
            }[harm]
        )
        assert middle
    assert everything(busy) == before
    assert everything(busy) == before
    aside = list(busy.home.glob("lossi.db.broken-*"))
    assert len(aside) == (0 if harm in ("deleted", "empty") else 1)


def test_rebuild_makes_the_same_rows_and_keeps_the_ledger(busy: Project) -> None:
    before = everything(busy)
    with store.writing(busy) as connection:
        connection.execute("INSERT INTO ingested_jobs VALUES ('x', 1)")
        connection.execute("UPDATE jobs SET name = 'wrong'")
        connection.execute("DELETE FROM tasks")
    assert jobs.rebuild(busy) == 2
    assert everything(busy) == before
    with store.reading(busy) as connection:
        assert connection.execute("SELECT job_id FROM ingested_jobs").fetchone()[0] == "x"


def test_runs_of_a_task_come_from_the_ledger(busy: Project) -> None:
    job = jobs.list_jobs(busy).items[0]
    with store.writing(busy) as connection:
        connection.executemany("INSERT INTO task_runs VALUES (?, ?, 0, ?)", [("second", job.id, 1), ("first", job.id, 0)])
    assert jobs.task(busy, job.id, 0).run_ids == ["first", "second"]


@contextlib.contextmanager
def unwritable(project: Project) -> Iterator[None]:
    """A project that cannot be written: mounted read-only for root, without permission for others."""
    if os.geteuid() == 0:
        if subprocess.run(["mount", "--bind", str(project.root), str(project.root)], capture_output=True).returncode:
            pytest.skip("this machine does not let root mount")
        subprocess.run(["mount", "-o", "remount,ro,bind", str(project.root)], check=True)
        try:
            yield
        finally:
            subprocess.run(["umount", "--lazy", str(project.root)], check=True)
        return
    folders = [project.home, project.jobs]
    for folder in folders:
        folder.chmod(0o500)
    project.index.exists() and project.index.chmod(0o400)
    try:
        yield
    finally:
        for folder in folders:
            folder.chmod(0o750)
        project.index.exists() and project.index.chmod(0o640)


@pytest.mark.parametrize("state", ["up to date", "old", "missing", "broken"])
def test_a_project_that_cannot_be_written_can_be_read(busy: Project, direct: DirectScheduler, ends: Ends, state: str) -> None:
    if state != "old":
        everything(busy)
    if state == "missing":
        busy.index.unlink()
    if state == "broken":
        busy.index.write_bytes(b"hello" * 1000)
    with unwritable(busy):
        content = everything(busy)
    if busy.index.exists():
        busy.index.unlink()
    assert content == everything(busy)


def test_an_older_refresh_does_not_undo_a_newer_one(busy: Project, direct: DirectScheduler, ends: Ends) -> None:
    """The older one reads before a task ends and writes after the newer one has settled it."""
    job = next(item for item in jobs.list_jobs(busy).items if item.tasks == 4)
    direct.say(job.id, 2, running())
    with store.reading(busy) as connection:
        old = refresh.find_changes(busy, connection)
    ends(job.id, 2)
    direct.say(job.id, 2, TaskView("succeeded", "COMPLETED", started=now(), ended=now()))
    assert jobs.task(busy, job.id, 2).state == "succeeded"
    with store.writing(busy) as connection:
        table.apply(connection, old.jobs)
    assert jobs.task(busy, job.id, 2).state == "succeeded"
    assert jobs.get(busy, job.id).counts == {"failed": 1, "queued": 1, "succeeded": 2}


def test_an_index_that_stays_locked_can_be_read(busy: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    before = everything(busy)
    busy.index.unlink()
    jobs.refresh(busy)
    connection = sqlite3.connect(busy.index, isolation_level=None)
    real = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *a, **k: real(*a, **{**k, "timeout": 0.1}))
    connection.execute("BEGIN EXCLUSIVE")
    try:
        assert everything(busy) == before
    finally:
        connection.close()


def test_an_index_of_an_older_lossi_is_read_and_gets_the_columns_it_lacks(busy: Project, direct: DirectScheduler) -> None:
    before = everything(busy)
    with contextlib.closing(sqlite3.connect(busy.index)) as connection:
        for column in ("energy_j", "time_limit_s", "host"):
            connection.execute(f"ALTER TABLE tasks DROP COLUMN {column}")
        connection.commit()
    job = before[0].items[0]
    assert jobs.task(busy, job.id, 0).state == "succeeded"
    direct.say(before[0].items[1].id, 2, running())
    jobs.list_jobs(busy)
    with store.reading(busy) as connection:
        connection.execute("SELECT energy_j, time_limit_s FROM tasks")
    jobs.rebuild(busy)
    assert jobs.task(busy, job.id, 0).host == "n1"


def test_an_index_of_a_newer_lossi_is_read_even_where_nothing_can_be_written(busy: Project) -> None:
    before = everything(busy)
    with contextlib.closing(sqlite3.connect(busy.index)) as connection:
        connection.execute("ALTER TABLE tasks ADD COLUMN water_l REAL")
        connection.commit()
    assert everything(busy) == before
    with unwritable(busy):
        assert everything(busy) == before

"""Watching jobs: the index follows schedulers and directories, can be lost, broken or read-only, and one bad job harms no other."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from direct_scheduler import DirectScheduler, now

from lossi import jobs
from lossi.contract import records
from lossi.contract.records import Progress, TaskError
from lossi.errors import InvalidInput, NotFound
from lossi.jobs import schedulers
from lossi.jobs.schedulers import TaskView
from lossi.jobs.state import reconcile, refresh, table
from lossi.projects import Project, index as store

Spec = Callable[..., Any]
Ends = Callable[..., None]


@pytest.fixture
def sweep(project: Project, spec: Spec) -> Callable[[int], Any]:
    return lambda number: jobs.submit(project, spec(sweep={"grid": {"depth": list(range(number))}}))


def running(since: str | None = None) -> TaskView:
    return TaskView("running", "RUNNING", "", None, None, "n1", since or now())


def writes(project: Project) -> int:
    """Return how often the index file was changed (SQLite counts it in its header)."""
    return int.from_bytes(project.index.read_bytes()[24:28], "big")


# -- following ---------------------------------------------------------------------------------------------------------


def test_a_sweep_from_queued_to_its_end(project: Project, sweep: Any, direct: DirectScheduler, ends: Ends) -> None:
    job = sweep(3)
    assert (job.state, job.counts, job.reason, job.progress) == ("queued", {"queued": 3}, "waits for a slot", 0.0)
    direct.say(job.id, 0, running())
    job = jobs.get(project, job.id)
    assert (job.state, job.counts, job.reason) == ("running", {"running": 1, "queued": 2}, "")
    assert job.started
    ends(job.id, 0)
    direct.say(job.id, 0, TaskView("succeeded", "COMPLETED", started=now(), ended=now()))
    job = jobs.get(project, job.id)
    assert (job.state, job.counts, job.progress) == ("queued", {"queued": 2, "succeeded": 1}, 0.3333)
    for task in (1, 2):
        ends(job.id, task, "failed" if task == 2 else "succeeded", exit_code=task, reason="cell 3 raised ValueError")
        direct.say(job.id, task, TaskView("failed", "FAILED", started=now(), ended=now()))
    job = jobs.get(project, job.id)
    assert (job.state, job.counts, job.reason) == ("failed", {"failed": 1, "succeeded": 2}, "of 3 tasks 1 failed")
    assert (job.ended, job.progress) == ("2024-01-01T00:01:00.000Z", 1.0)


def test_the_reason_of_the_only_task_is_the_jobs(project: Project, spec: Spec, ends: Ends) -> None:
    job = jobs.submit(project, spec())
    error = TaskError("ValueError", "no labels", 2, "Traceback…")
    ends(job.id, 0, "failed", exit_code=1, reason="cell 2 raised ValueError", error=error, notes=["kernel ir replaced"])
    assert jobs.get(project, job.id).reason == "cell 2 raised ValueError"
    task = jobs.task(project, job.id, 0)
    assert task.error == error
    assert (task.notes, task.host, task.exit_code, task.elapsed_s) == (["kernel ir replaced"], "n1", 1, 60.0)


def test_a_settled_job_is_not_asked_about_and_nothing_is_written(
    project: Project, spec: Spec, direct: DirectScheduler, ends: Ends
) -> None:
    job = jobs.submit(project, spec())
    ends(job.id, 0)
    direct.say(job.id, 0, TaskView("succeeded", "COMPLETED", started=now(), ended=now()))
    jobs.get(project, job.id)
    asked, written = direct.polls, writes(project)
    shutil.rmtree(project.jobs / job.id / "tasks")
    for _ in range(3):
        assert jobs.list_jobs(project).items[0].state == "succeeded"
    assert (direct.polls, writes(project)) == (asked, written)


def test_looking_at_running_jobs_writes_only_what_is_new(project: Project, sweep: Any, direct: DirectScheduler) -> None:
    job = sweep(3)
    direct.say(job.id, 0, running())
    jobs.get(project, job.id)
    written = writes(project)
    for _ in range(3):
        jobs.list_jobs(project)
    assert writes(project) == written
    direct.say(job.id, 1, running())
    jobs.list_jobs(project)
    assert writes(project) > written


def test_all_jobs_of_a_scheduler_are_one_question(project: Project, spec: Spec, direct: DirectScheduler) -> None:
    for _ in range(5):
        jobs.submit(project, spec())
    asked = direct.polls
    jobs.list_jobs(project)
    assert direct.polls == asked + 1


def test_an_account_that_arrives_late_is_waited_for(project: Project, spec: Spec, direct: DirectScheduler, ends: Ends) -> None:
    job = jobs.submit(project, spec())
    (project.jobs / job.id / "tasks/0").mkdir()
    direct.say(job.id, 0, TaskView("failed", "FAILED", exit_code=1, started=now(), ended=now()))
    assert jobs.get(project, job.id).state == "running"
    ends(job.id, 0, "failed", reason="cell 1 raised KeyError")
    assert jobs.get(project, job.id).reason == "cell 1 raised KeyError"


def test_without_an_account_the_scheduler_is_believed_after_a_while(
    project: Project, spec: Spec, direct: DirectScheduler
) -> None:
    job = jobs.submit(project, spec())
    (project.jobs / job.id / "tasks/0").mkdir()
    direct.say(
        job.id, 0, TaskView("node_failed", "NODE_FAIL", "", None, None, "n7", "2024-01-01T00:00:00Z", "2024-01-01T00:00:09Z")
    )
    task = jobs.task(project, job.id, 0)
    assert (task.state, task.scheduler_state, task.host, task.elapsed_s) == ("node_failed", "NODE_FAIL", "n7", 9.0)
    assert task.reason == reconcile.NO_ACCOUNT


def test_a_scheduler_that_has_forgotten_a_job_is_settled_by_the_accounts(
    project: Project, sweep: Any, direct: DirectScheduler, ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconcile, "LAG_S", 0.0)
    job = sweep(2)
    ends(job.id, 0)
    direct.forget(job.id)
    found = jobs.get(project, job.id)
    assert (found.state, found.counts, found.reason) == ("unknown", {"succeeded": 1, "unknown": 1}, schedulers.FORGOTTEN)
    assert jobs.tasks(project, job.id, state="unknown").items[0].reason == schedulers.FORGOTTEN
    ends(job.id, 1)
    assert jobs.get(project, job.id).state == "succeeded"
    assert jobs.get(project, job.id).reason == ""


def test_a_scheduler_that_does_not_answer_makes_answers_stale_not_wrong(
    project: Project, sweep: Any, direct: DirectScheduler, ends: Ends
) -> None:
    job = sweep(3)
    direct.say(job.id, 0, running())
    jobs.get(project, job.id)
    direct.away = True
    ends(job.id, 1)
    page = jobs.list_jobs(project)
    assert "does not answer" in page.stale
    assert page.items[0].counts == {"running": 1, "succeeded": 1, "queued": 1}
    direct.away = False
    assert jobs.list_jobs(project).stale == ""


def test_a_job_of_another_user_is_seen_by_its_files_alone(
    project: Project, sweep: Any, direct: DirectScheduler, ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = sweep(3)
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    direct.forget(job.id)  # my scheduler knows nothing of theirs
    asked = direct.polls
    ends(job.id, 0)
    (project.jobs / job.id / "tasks/1").mkdir()
    found = jobs.get(project, job.id)
    assert (found.state, found.counts) == ("running", {"succeeded": 1, "running": 1, "queued": 1})
    assert direct.polls == asked
    with pytest.raises(Exception, match="belongs to"):
        jobs.cancel(project, job.id)


# -- what can go wrong with directories -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "harm", ["cut off", "empty", "not json", "another job's", "newer", "no file", "a folder", "binary", "wrong types"]
)
def test_a_corrupt_job_directory_is_listed_with_its_reason_among_good_ones(
    project: Project, spec: Spec, direct: DirectScheduler, harm: str
) -> None:
    good, bad, better = (jobs.submit(project, spec()) for _ in range(3))
    path = project.jobs / bad.id / records.SPEC
    text = path.read_text()
    replaced = {
        "cut off": text[: len(text) // 2], "empty": "", "not json": "}{", "another job's": (project.jobs / good.id / records.SPEC).read_text(),
        "newer": text.replace('"format":1', '"format":99'), "binary": "\0\x01", "wrong types": '{"id": 3, "name": []}',
    }  # fmt: skip
    path.unlink()
    if harm in replaced:
        path.write_text(replaced[harm])
    elif harm == "a folder":
        path.mkdir()
    project.index.unlink()
    for _ in range(2):
        items = {job.id: job for job in jobs.list_jobs(project).items}
        assert items[good.id].state == items[better.id].state == "queued"
        assert (items[bad.id].state, items[bad.id].kind) == ("unknown", "unknown")
        assert items[bad.id].reason
        assert items[bad.id].hint
        assert jobs.get(project, bad.id).state == "unknown"
        assert jobs.tasks(project, bad.id).items == []
    with pytest.raises(NotFound):
        jobs.log(project, bad.id, 0)


def test_other_things_among_the_job_directories_are_passed_over(project: Project, spec: Spec) -> None:
    job = jobs.submit(project, spec())
    (project.jobs / "notes.txt").write_text("mine")
    (project.jobs / "old").mkdir()
    (project.jobs / ".DS_Store").write_text("")
    assert [item.id for item in jobs.list_jobs(project).items] == [job.id]


def test_damaged_files_of_a_task_are_as_if_they_were_not_there(project: Project, sweep: Any, direct: DirectScheduler) -> None:
    job = sweep(2)
    folder = project.jobs / job.id / "tasks" / "0"
    folder.mkdir()
    for name in (records.EXIT, records.PROGRESS, records.ENDING):
        (folder / name).write_text('{"task": ')
    direct.say(job.id, 0, running())
    assert jobs.get(project, job.id).counts == {"running": 1, "queued": 1}
    assert jobs.task(project, job.id, 0).progress is None
    (project.jobs / job.id / records.TASKS).write_text('{"depth": 0}\nnonsense\n')
    page = jobs.tasks(project, job.id)
    assert [item.parameters for item in page.items] == [{"depth": 0}, {}]


def test_a_directory_that_was_purged_shows_as_such(
    project: Project, sweep: Any, spec: Spec, ends: Ends, direct: DirectScheduler
) -> None:
    gone, done = sweep(2), jobs.submit(project, spec())
    direct.say(gone.id, 0, running())
    ends(done.id, 0)
    direct.say(done.id, 0, TaskView("succeeded", started=now(), ended=now()))
    jobs.list_jobs(project)
    for job in (gone, done):
        shutil.rmtree(project.jobs / job.id)
    for _ in range(2):
        items = {job.id: job for job in jobs.list_jobs(project).items}
        assert (items[gone.id].state, items[gone.id].reason, items[gone.id].counts) == ("unknown", refresh.GONE, {"unknown": 2})
        assert items[done.id].state == "succeeded"
    with pytest.raises(NotFound):
        jobs.log(project, done.id, 0)


# -- the index ------------------------------------------------------------------------------------------------------------


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
def test_an_index_that_is_lost_or_broken_is_made_again(busy: Project, harm: str) -> None:
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
def test_a_project_that_cannot_be_written_is_read_all_the_same(
    busy: Project, direct: DirectScheduler, ends: Ends, state: str
) -> None:
    if state != "old":
        everything(busy)
    if state == "missing":
        busy.index.unlink()
    if state == "broken":
        busy.index.write_bytes(b"hello" * 1000)
    with unwritable(busy):
        seen = everything(busy)
    if busy.index.exists():
        busy.index.unlink()
    assert seen == everything(busy)


def test_two_who_look_at_once_do_not_undo_each_other(busy: Project, direct: DirectScheduler, ends: Ends) -> None:
    """One looks before a task ends and writes after the other has settled it."""
    job = next(item for item in jobs.list_jobs(busy).items if item.tasks == 4)
    direct.say(job.id, 2, running())
    with store.reading(busy) as connection:
        old = refresh.look(busy, connection)
    ends(job.id, 2)
    direct.say(job.id, 2, TaskView("succeeded", "COMPLETED", started=now(), ended=now()))
    assert jobs.task(busy, job.id, 2).state == "succeeded"
    with store.writing(busy) as connection:
        table.apply(connection, old.changes)
    assert jobs.task(busy, job.id, 2).state == "succeeded"
    assert jobs.get(busy, job.id).counts == {"failed": 1, "queued": 1, "succeeded": 2}


def test_an_index_that_is_locked_for_long_is_read_as_it_is(busy: Project, monkeypatch: pytest.MonkeyPatch) -> None:
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


# -- lists and pages ------------------------------------------------------------------------------------------------------


def test_jobs_are_listed_newest_first_in_pages(project: Project, spec: Spec) -> None:
    made = [jobs.submit(project, spec(name=str(number))).id for number in range(7)]
    seen: list[str] = []
    cursor: str | None = None
    while True:
        page = jobs.list_jobs(project, limit=3, cursor=cursor)
        seen += [job.id for job in page.items]
        assert page.total == len(made)
        cursor = page.next_cursor
        if cursor is None:
            break
        made += [jobs.submit(project, spec()).id] if len(made) == 7 else []  # a new one does not shift the pages
    assert seen == sorted(made[:7], reverse=True)


def test_lists_can_be_narrowed_to_a_state(project: Project, sweep: Any, spec: Spec, direct: DirectScheduler, ends: Ends) -> None:
    job, other = sweep(5), jobs.submit(project, spec())
    ends(job.id, 3)
    direct.say(job.id, 1, running())
    assert [item.id for item in jobs.list_jobs(project, state="running").items] == [job.id]
    assert [item.id for item in jobs.list_jobs(project, state="queued").items] == [other.id]
    page = jobs.tasks(project, job.id, state="queued", limit=2)
    assert ([task.task for task in page.items], page.total, page.next_cursor) == ([0, 2], 3, "4")
    assert [task.task for task in jobs.tasks(project, job.id, state="queued", cursor="4").items] == [4]
    assert [task.task for task in jobs.tasks(project, job.id, state="succeeded").items] == [3]


@pytest.mark.parametrize(
    "wrong", [{"state": "runing"}, {"limit": 0}, {"limit": 1001}, {"cursor": "'; DROP TABLE jobs"}, {"cursor": "-1"}]
)
def test_a_question_that_makes_no_sense_is_refused(project: Project, spec: Spec, wrong: dict[str, Any]) -> None:
    job = jobs.submit(project, spec())
    for ask in (lambda: jobs.list_jobs(project, **wrong), lambda: jobs.tasks(project, job.id, **wrong)):
        with pytest.raises(InvalidInput):
            ask()


def test_ten_thousand_tasks_are_paged(project: Project, spec: Spec, direct: DirectScheduler, ends: Ends) -> None:
    grid = {"depth": list(range(100)), "lr": [number / 100 for number in range(100)]}
    job = jobs.submit(project, spec(sweep={"grid": grid}))
    for task in range(50):
        ends(job.id, task)
    page = jobs.tasks(project, job.id, limit=100, cursor="9900")
    assert [task.task for task in page.items] == list(range(9900, 10_000))
    assert page.items[-1].parameters == {"depth": 99, "lr": 0.99}
    assert page.items[0].state == "queued"
    assert jobs.get(project, job.id).counts == {"queued": 9950, "succeeded": 50}
    assert jobs.tasks(project, job.id, state="queued", limit=1).items[0].task == 50


def test_a_job_is_named_by_a_part_of_its_id(project: Project, spec: Spec) -> None:
    first, second = jobs.submit(project, spec()), jobs.submit(project, spec())
    assert jobs.get(project, first.id[-8:]).id == first.id
    assert jobs.get(project, second.id.upper()).id == second.id
    with pytest.raises(InvalidInput, match="2 jobs begin or end with") as caught:
        jobs.get(project, first.id[:4])
    assert first.id in caught.value.details["candidates"]
    for wrong in ("zzzz", "", "..", "%", "01"):
        with pytest.raises(NotFound, match="no job"):
            jobs.get(project, wrong)


def test_what_a_job_was_asked_to_be_is_in_its_definition(project: Project, spec: Spec) -> None:
    made = jobs.submit(
        project, spec(sweep={"grid": {"depth": [1, 2]}}, parameters={"lr": 0.5}, resources={"memory": "1G"}, tags={"a": "b"})
    )
    found = jobs.get(project, made.id).definition
    assert found is not None
    assert (found.sweep, found.swept, found.parameters, found.tags) == (
        {"grid": {"depth": [1, 2]}},
        ["depth"],
        {"lr": 0.5},
        {"a": "b"},
    )
    assert (found.resources["memory_mb"], found.environment["name"]) == (1024, "python")
    assert jobs.list_jobs(project).items[0].definition is None


# -- logs and progress ----------------------------------------------------------------------------------------------------


def test_a_log_is_read_from_an_offset_and_is_empty_before_there_is_one(project: Project, spec: Spec) -> None:
    job = jobs.submit(project, spec())
    chunk = jobs.log(project, job.id, 0, 0, 100)
    assert (chunk.data, chunk.next_offset, chunk.size) == (b"", 0, 0)
    folder = project.jobs / job.id / "tasks/0"
    folder.mkdir()
    (folder / records.LOG).write_bytes(b"one\ntwo\n")
    chunk = jobs.log(project, job.id[-6:], 0, 4, 100)
    assert (chunk.data, chunk.next_offset, chunk.size) == (b"two\n", 8, 8)
    assert jobs.log(project, job.id, 0, 8, 100).data == b""
    for task in (1, -1):
        with pytest.raises(NotFound, match="has no task"):
            jobs.log(project, job.id, task)


def test_running_tasks_say_where_they_are(project: Project, sweep: Any, direct: DirectScheduler) -> None:
    job = sweep(4)
    for task in (1, 3):
        direct.say(job.id, task, running())
        folder = project.jobs / job.id / "tasks" / str(task)
        folder.mkdir()
        (folder / records.PROGRESS).write_bytes(records.dump(Progress(task, "running", cell=3, cells=4, first_line="fit()")))
    assert [(item.task, item.cell) for item in jobs.progress(project, job.id)] == [(1, 3), (3, 3)]
    assert jobs.get(project, job.id).progress == 0.25
    task = jobs.task(project, job.id, 1)
    assert task.progress is not None and task.progress.first_line == "fit()"
    assert task.elapsed_s is not None


def test_the_output_notebook_is_found_as_soon_as_there_is_one(project: Project, spec: Spec, tmp_path: Path) -> None:
    job = jobs.submit(project, spec())
    with pytest.raises(NotFound, match="no output notebook"):
        jobs.output_notebook(project, job.id, 0)
    folder = project.jobs / job.id / "tasks/0"
    folder.mkdir()
    (tmp_path / "secret").write_text("x")
    (folder / records.OUTPUT_NOTEBOOK).symlink_to(tmp_path / "secret")
    with pytest.raises(NotFound):
        jobs.output_notebook(project, job.id, 0)
    (folder / records.OUTPUT_NOTEBOOK).unlink()
    (folder / records.OUTPUT_NOTEBOOK).write_text("{}")
    assert jobs.output_notebook(project, job.id, 0) == folder / records.OUTPUT_NOTEBOOK

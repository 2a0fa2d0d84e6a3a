"""The index follows schedulers and job directories, and one bad job harms no other."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from typing import Any

import pytest
from direct_scheduler import DirectScheduler, now, running

from lossi import jobs
from lossi.contract import records
from lossi.contract.records import TaskError
from lossi.errors import NotFound
from lossi.jobs import schedulers
from lossi.jobs.schedulers import TaskView
from lossi.jobs.state import reconcile, refresh
from lossi.projects import Project

Spec = Callable[..., Any]
Ends = Callable[..., None]


def writes(project: Project) -> int:
    """Return how often the index file was changed (SQLite counts it in its header)."""
    return int.from_bytes(project.index.read_bytes()[24:28], "big")


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
    assert (job.state, job.counts, job.reason) == ("failed", {"failed": 1, "succeeded": 2}, "1 of 3 tasks failed")
    assert (job.ended, job.progress) == ("2024-01-01T00:01:00.000Z", 1.0)


def test_the_reason_of_the_only_task_is_the_jobs(project: Project, spec: Spec, ends: Ends) -> None:
    job = jobs.submit(project, spec())
    error = TaskError("ValueError", "no labels", 2, "Traceback…")
    ends(job.id, 0, "failed", exit_code=1, reason="cell 2 raised ValueError", error=error, notes=["kernel ir replaced"])
    assert jobs.get(project, job.id).reason == "cell 2 raised ValueError"
    task = jobs.task(project, job.id, 0)
    assert task.error == error
    assert (task.notes, task.host, task.exit_code, task.elapsed_s) == (["kernel ir replaced"], "n1", 1, 60.0)


def test_a_settled_job_is_neither_polled_nor_written(project: Project, spec: Spec, direct: DirectScheduler, ends: Ends) -> None:
    job = jobs.submit(project, spec())
    ends(job.id, 0)
    direct.say(job.id, 0, TaskView("succeeded", "COMPLETED", started=now(), ended=now()))
    jobs.get(project, job.id)
    polls, written = direct.polls, writes(project)
    shutil.rmtree(project.jobs / job.id / "tasks")
    for _ in range(3):
        assert jobs.list_jobs(project).items[0].state == "succeeded"
    assert (direct.polls, writes(project)) == (polls, written)


def test_refreshing_running_jobs_writes_only_what_is_new(project: Project, sweep: Any, direct: DirectScheduler) -> None:
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


def test_a_scheduler_is_polled_once_for_all_its_jobs(project: Project, spec: Spec, direct: DirectScheduler) -> None:
    for _ in range(5):
        jobs.submit(project, spec())
    polls = direct.polls
    jobs.list_jobs(project)
    assert direct.polls == polls + 1


def test_an_exit_record_that_arrives_late_is_waited_for(
    project: Project, spec: Spec, direct: DirectScheduler, ends: Ends
) -> None:
    job = jobs.submit(project, spec())
    (project.jobs / job.id / "tasks/0").mkdir()
    direct.say(job.id, 0, TaskView("failed", "FAILED", exit_code=1, started=now(), ended=now()))
    assert jobs.get(project, job.id).state == "running"
    ends(job.id, 0, "failed", reason="cell 1 raised KeyError")
    assert jobs.get(project, job.id).reason == "cell 1 raised KeyError"


def test_the_schedulers_state_counts_if_no_exit_record_arrives(project: Project, spec: Spec, direct: DirectScheduler) -> None:
    job = jobs.submit(project, spec())
    (project.jobs / job.id / "tasks/0").mkdir()
    direct.say(
        job.id, 0, TaskView("node_failed", "NODE_FAIL", "", None, None, "n7", "2024-01-01T00:00:00Z", "2024-01-01T00:00:09Z")
    )
    task = jobs.task(project, job.id, 0)
    assert (task.state, task.scheduler_state, task.host, task.elapsed_s) == ("node_failed", "NODE_FAIL", "n7", 9.0)
    assert task.reason == reconcile.NO_EXIT_RECORD


def test_exit_records_settle_a_job_that_the_scheduler_has_forgotten(
    project: Project, sweep: Any, direct: DirectScheduler, ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconcile, "LAG_S", 0.0)
    job = sweep(2)
    ends(job.id, 0)
    direct.forget(job.id)
    shown = jobs.get(project, job.id)
    assert (shown.state, shown.counts, shown.reason) == ("unknown", {"succeeded": 1, "unknown": 1}, schedulers.FORGOTTEN)
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


def test_a_job_of_another_user_is_known_by_its_files_alone(
    project: Project, sweep: Any, direct: DirectScheduler, ends: Ends, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = sweep(3)
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    direct.forget(job.id)  # my scheduler knows nothing of theirs
    polls = direct.polls
    ends(job.id, 0)
    (project.jobs / job.id / "tasks/1").mkdir()
    shown = jobs.get(project, job.id)
    assert (shown.state, shown.counts) == ("running", {"succeeded": 1, "running": 1, "queued": 1})
    assert direct.polls == polls
    with pytest.raises(Exception, match="belongs to"):
        jobs.cancel(project, job.id)


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


def test_other_things_among_the_job_directories_are_ignored(project: Project, spec: Spec) -> None:
    job = jobs.submit(project, spec())
    (project.jobs / "notes.txt").write_text("mine")
    (project.jobs / "old").mkdir()
    (project.jobs / ".DS_Store").write_text("")
    assert [item.id for item in jobs.list_jobs(project).items] == [job.id]


def test_damaged_files_of_a_task_are_ignored(project: Project, sweep: Any, direct: DirectScheduler) -> None:
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


def test_a_job_whose_directory_was_purged_is_listed_with_that_reason(
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

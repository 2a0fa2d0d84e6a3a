"""Lists, pages, logs and progress of jobs and tasks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from direct_scheduler import DirectScheduler, running

from lossi import jobs
from lossi.contract import records
from lossi.contract.records import Progress
from lossi.errors import InvalidInput, NotFound
from lossi.projects import Project

Spec = Callable[..., Any]
Ends = Callable[..., None]


def test_jobs_are_listed_newest_first_in_pages(project: Project, spec: Spec) -> None:
    ids = [jobs.submit(project, spec(name=str(number))).id for number in range(7)]
    listed: list[str] = []
    cursor: str | None = None
    while True:
        page = jobs.list_jobs(project, limit=3, cursor=cursor)
        listed += [job.id for job in page.items]
        assert page.total == len(ids)
        cursor = page.next_cursor
        if cursor is None:
            break
        ids += [jobs.submit(project, spec()).id] if len(ids) == 7 else []  # a new one does not shift the pages
    assert listed == sorted(ids[:7], reverse=True)


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
def test_an_invalid_state_limit_or_cursor_is_refused(project: Project, spec: Spec, wrong: dict[str, Any]) -> None:
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


def test_the_definition_holds_what_was_requested(project: Project, spec: Spec) -> None:
    job = jobs.submit(
        project, spec(sweep={"grid": {"depth": [1, 2]}}, parameters={"lr": 0.5}, resources={"memory": "1G"}, tags={"a": "b"})
    )
    definition = jobs.get(project, job.id).definition
    assert definition is not None
    assert (definition.sweep, definition.swept, definition.parameters, definition.tags) == (
        {"grid": {"depth": [1, 2]}},
        ["depth"],
        {"lr": 0.5},
        {"a": "b"},
    )
    assert (definition.resources["memory_mb"], definition.environment["name"]) == (1024, "python")
    assert jobs.list_jobs(project).items[0].definition is None


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


def test_running_tasks_report_their_cell(project: Project, sweep: Any, direct: DirectScheduler) -> None:
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

"""Answers about jobs and tasks, from the refreshed index and, for what that does not hold, from the job directories."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import ParamSpec, TypeVar

from lossi.contract import records
from lossi.contract.records import PreparedJob, Progress, TaskError
from lossi.contract.states import QUEUED, RUNNING, STATES, UNKNOWN, has_ended
from lossi.errors import InvalidInput, LossiError, NotFound, did_you_mean
from lossi.files import tail
from lossi.jobs import times
from lossi.jobs.models import Job, JobDefinition, Page, Task, shortened
from lossi.jobs.state import job_directory, reconcile, refresh, table
from lossi.jsonable import plain
from lossi.projects import Project

P = ParamSpec("P")
R = TypeVar("R")

LARGEST_SWEEP_SHOWN = 100_000
"""Characters of a sweep's definition that an answer holds."""

PROGRESS_READ = 64
"""Running tasks whose progress counts in their job's; reading that of thousands would take seconds."""


def _mended(function: Callable[P, R]) -> Callable[P, R]:
    """Make a damaged index again, and then answer."""

    @functools.wraps(function)
    def answer(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except LossiError as error:
            project = args[0]
            if not table.is_broken(error) or not isinstance(project, Project):
                raise
            table.move_aside(project)
        return function(*args, **kwargs)

    return answer


@_mended
def list_jobs(project: Project, *, state: str | None = None, limit: int = 100, cursor: str | None = None) -> Page[Job]:
    """Return jobs, newest first.

    Parameters
    ----------
    project
        Whose jobs.
    state
        Only jobs in this state.
    limit
        At most so many, 1 to 1,000.
    cursor
        ``next_cursor`` of the page before.

    Raises
    ------
    InvalidInput
        For an unknown state or cursor.
    """
    _check(state, limit)
    with refresh.current(project) as (connection, stale):
        where, values = ("state = ?", [state]) if state else ("1", [])
        total = connection.execute(f"SELECT COUNT(*) FROM jobs WHERE {where}", values).fetchone()[0]  # noqa: S608
        rows = connection.execute(
            f"SELECT * FROM jobs WHERE {where} AND id < ? ORDER BY id DESC LIMIT ?",  # noqa: S608
            [*values, _cursor_text(cursor), limit + 1],
        ).fetchall()
        items = [_job(project, connection, row) for row in rows[:limit]]
    return Page(items=items, next_cursor=items[-1].id if len(rows) > limit else None, total=total, stale=stale)


@_mended
def get(project: Project, id_or_part: str) -> Job:
    """Return a job by its id, or by the first or last characters of it that no other job has.

    Raises
    ------
    NotFound
        When there is none.
    InvalidInput
        When there are several.
    """
    with refresh.current(project) as (connection, _):
        row = _find(connection, id_or_part)
        job = _job(project, connection, row)
    with suppress(OSError, ValueError, TypeError):
        return job.model_copy(update={"definition": _definition(job_directory.read_spec(Path(job.directory)))})
    return job


@_mended
def tasks(
    project: Project, id_or_part: str, *, state: str | None = None, limit: int = 100, cursor: str | None = None
) -> Page[Task]:
    """Return tasks of a job in the order of their numbers; those without a row are queued.

    Raises
    ------
    NotFound, InvalidInput
        As for `get` and `list_jobs`.
    """
    _check(state, limit)
    with refresh.current(project, _whole_id(project, id_or_part)) as (connection, stale):
        job = _find(connection, id_or_part)
        numbers, total = _numbers(connection, job, state, _cursor_number(cursor), limit + 1)
        rows = _task_rows(connection, job["id"], numbers[:limit])
        items = [task_of_row(project, connection, job, number, rows.get(number)) for number in numbers[:limit]]
    parameters = job_directory.read_parameters(project.jobs / job["id"], numbers[:limit])
    for place, item in enumerate(items):
        values, cut = shortened(parameters.get(item.task, {}))
        items[place] = item.model_copy(update={"parameters": values, "shortened": cut})
    return Page(items=items, next_cursor=str(numbers[limit]) if len(numbers) > limit else None, total=total, stale=stale)


@_mended
def task(project: Project, id_or_part: str, number: int) -> Task:
    """Return one task, with its parameters in full.

    Raises
    ------
    NotFound
        When there is no such job or task.
    """
    with refresh.current(project, _whole_id(project, id_or_part)) as (connection, _):
        job = _find(connection, id_or_part)
        check_number(job["id"], job["tasks"], number)
        rows = _task_rows(connection, job["id"], [number])
        result = task_of_row(project, connection, job, number, rows.get(number))
    parameters = job_directory.read_parameters(project.jobs / job["id"], [number]).get(number, {})
    return result.model_copy(update={"parameters": plain(parameters)})


@_mended
def progress(project: Project, id_or_part: str) -> list[Progress]:
    """Return where the running tasks of a job are, in the order of their numbers."""
    with refresh.current(project, _whole_id(project, id_or_part)) as (connection, _):
        job = _find(connection, id_or_part)
        return job_directory.read_progress(project.jobs / job["id"], _running(connection, job["id"], -1))


def log(project: Project, id_or_part: str, number: int, offset: int = 0, limit: int = 65536) -> tail.Chunk:
    """Return a part of a task's log; nothing while there is none.

    Parameters
    ----------
    project, id_or_part, number
        Which task.
    offset
        Bytes from the start; negative: from the end.
    limit
        Greatest number of bytes.

    Raises
    ------
    NotFound
        When there is no such job or task.
    """
    directory, job = directory_of(project, id_or_part)
    check_number(job.id, job.tasks, number)
    try:
        return tail.read(directory / records.TASK_FOLDER / str(number) / records.LOG, offset, limit)
    except NotFound:
        return tail.Chunk(b"", 0, 0, 0)


def output_notebook(project: Project, id_or_part: str, number: int) -> Path:
    """Return the path of a task's executed notebook, as far as it has run.

    Raises
    ------
    NotFound
        When there is no such task, or it has not written one (yet).
    """
    directory, job = directory_of(project, id_or_part)
    check_number(job.id, job.tasks, number)
    path = directory / records.TASK_FOLDER / str(number) / records.OUTPUT_NOTEBOOK
    if not path.is_file() or path.is_symlink():
        why = "it is not a notebook job" if job.kind != "notebook" else "the task has not started its first cell"
        raise NotFound(f"{job.id}.{number} has no output notebook", why=why, hint=f"read its log: lossi logs {job.id}.{number}")
    return path


def directory_of(project: Project, id_or_part: str) -> tuple[Path, PreparedJob]:
    """Return the directory and the definition of a job, without asking a scheduler.

    Raises
    ------
    NotFound
        When there is no such job, or its directory cannot be read.
    """
    job_id = _whole_id(project, id_or_part)
    directory = project.jobs / job_id
    try:
        return directory, job_directory.read_spec(directory)
    except FileNotFoundError:
        raise _no_job(id_or_part) from None
    except (OSError, ValueError, TypeError) as error:
        raise NotFound(f"job {job_id} cannot be read", why=str(error), hint=f"look at {directory}") from None


def check_number(job_id: str, tasks: int, number: int) -> None:
    """Raise NotFound for the number of a task that a job does not have."""
    if not 0 <= number < tasks:
        raise NotFound(
            f"job {job_id} has no task {number}", hint=f"its tasks are 0 to {tasks - 1}" if tasks else "it cannot be read"
        )


def _check(state: str | None, limit: int) -> None:
    if state is not None and state not in STATES:
        raise InvalidInput(f"there is no state {state!r}", hint=did_you_mean(state, STATES) or f"one of {', '.join(STATES)}")
    if not 1 <= limit <= 1000:
        raise InvalidInput(f"a page has 1 to 1,000 entries, not {limit}", hint="get further pages with next_cursor")


def _cursor_text(cursor: str | None) -> str:
    if cursor is None:
        return "~"  # greater than any id
    if not cursor.isalnum():
        raise InvalidInput("not a cursor of this list", hint="pass `next_cursor` of the page before, or none")
    return cursor


def _cursor_number(cursor: str | None) -> int:
    if cursor is None:
        return 0
    if not cursor.isascii() or not cursor.isdecimal() or len(cursor) > 9:
        raise InvalidInput("not a cursor of this list", hint="pass `next_cursor` of the page before, or none")
    return int(cursor)


def _whole_id(project: Project, part: str) -> str:
    """Return the id of the job directory that ``part`` means; ``part`` itself if there is none (the index may know more)."""
    ids = matching(part, job_directory.job_ids(project))
    return ids[0] if len(ids) == 1 else part


def matching(part: str, ids: list[str]) -> list[str]:
    """Return the ids that are, begin with or end in ``part``."""
    part = part.lower()
    if part in ids:
        return [part]
    return [job_id for job_id in ids if len(part) >= 3 and (job_id.startswith(part) or job_id.endswith(part))]


def _find(connection: sqlite3.Connection, part: str) -> sqlite3.Row:
    row: sqlite3.Row | None = connection.execute("SELECT * FROM jobs WHERE id = ?", (part.lower(),)).fetchone()
    if row is not None:
        return row
    ids = matching(part, [job_id for (job_id,) in connection.execute("SELECT id FROM jobs ORDER BY id DESC")])
    if len(ids) > 1:
        raise InvalidInput(
            f"{len(ids)} jobs begin or end with {part!r}",
            hint=f"write more of the id, for example {ids[0]}",
            candidates=ids[:10],
        )
    if not ids:
        raise _no_job(part)
    row = connection.execute("SELECT * FROM jobs WHERE id = ?", (ids[0],)).fetchone()
    assert row is not None
    return row


def _no_job(part: str) -> NotFound:
    return NotFound(
        f"there is no job {part!r} in this project", hint="`lossi jobs list` shows its jobs; is it another project's?"
    )


def _numbers(connection: sqlite3.Connection, job: sqlite3.Row, state: str | None, start: int, most: int) -> tuple[list[int], int]:
    """Return the first ``most`` numbers from ``start`` on of tasks in ``state``, and how many there are in all."""
    if state is None:
        return list(range(start, min(start + most, job["tasks"]))), job["tasks"]
    states = dict(connection.execute("SELECT task, state FROM tasks WHERE job_id = ?", (job["id"],)).fetchall())
    implied = reconcile.implied_state(job["state"])
    chosen = [number for number in range(job["tasks"]) if states.get(number, implied) == state]
    return list(itertools.islice((number for number in chosen if number >= start), most)), len(chosen)


def _task_rows(connection: sqlite3.Connection, job_id: str, numbers: list[int]) -> dict[int, sqlite3.Row]:
    if not numbers:
        return {}
    rows = connection.execute("SELECT * FROM tasks WHERE job_id = ? AND task BETWEEN ? AND ?", (job_id, numbers[0], numbers[-1]))
    return {row["task"]: row for row in rows}


def _job(project: Project, connection: sqlite3.Connection, row: sqlite3.Row) -> Job:
    """Return a job from its row, with its progress."""
    result = job_of_row(project, row)
    return result.model_copy(update={"progress": _share_done(result, connection)})


def job_of_row(project: Project, row: sqlite3.Row) -> Job:
    """Return a job from its row alone."""
    values = {**row, "counts": json.loads(row["counts"]), "hint": _hint(row), "directory": str(project.jobs / row["id"])}
    return Job.model_validate(values)


def _hint(row: sqlite3.Row) -> str:
    if row["reason"] == refresh.NEVER_SUBMITTED:
        return f"submit it again: lossi resubmit {row['id']}"
    if row["state"] == UNKNOWN and row["kind"] == UNKNOWN:
        return "repair or remove its directory; other jobs are not affected"
    return ""


def _share_done(job: Job, connection: sqlite3.Connection) -> float | None:
    if not job.tasks:
        return None
    done = float(job.done)
    if job.counts.get(RUNNING):
        for progress in job_directory.read_progress(Path(job.directory), _running(connection, job.id, PROGRESS_READ)):
            done += max(progress.cell - 1, 0) / progress.cells if progress.cells else 0.0
    return round(done / job.tasks, 4)


def _running(connection: sqlite3.Connection, job_id: str, most: int) -> list[int]:
    """Return the numbers of the running tasks of a job, at most ``most`` (-1: all)."""
    rows = connection.execute(
        "SELECT task FROM tasks WHERE job_id = ? AND state = ? ORDER BY task LIMIT ?", (job_id, RUNNING, most)
    )
    return [row[0] for row in rows]


def _definition(job: PreparedJob) -> JobDefinition:
    """Return what was decided before submission."""
    sweep = plain(job.sweep)
    return JobDefinition(
        parameters=shortened(job.request.get("parameters") or {})[0],
        sweep=sweep if len(json.dumps(sweep)) <= LARGEST_SWEEP_SHOWN else None,
        swept=job.swept,
        command=job.command,
        working_directory=job.working_directory,
        language=job.language,
        kernel=job.kernel,
        max_parallel=job.max_parallel,
        tags=job.tags,
        environment=dataclasses.asdict(job.environment),
        resources=dataclasses.asdict(job.resources),
        code=dataclasses.asdict(job.code),
        experiment_id=job.tracking.experiment_id,
        artifact_location=job.tracking.artifact_location,
        idempotency_key=job.idempotency_key,
        lossi_version=job.lossi_version,
    )


def task_of_row(project: Project, connection: sqlite3.Connection, job: sqlite3.Row, number: int, row: sqlite3.Row | None) -> Task:
    """Return a task from its row, or what follows from its job's if it has none."""
    if row is None:
        implied = reconcile.implied_state(job["state"])
        reason = "" if implied == QUEUED and job["state"] == RUNNING else job["reason"]
        return Task(job_id=job["id"], task=number, state=implied, reason=reason, final=has_ended(implied))
    runs = connection.execute(
        "SELECT run_id FROM task_runs WHERE job_id = ? AND task = ? ORDER BY position", (job["id"], number)
    ).fetchall()
    values = {
        **row,
        "error": None if row["error"] is None else TaskError(**json.loads(row["error"])),
        "notes": json.loads(row["notes"]),
        "run_ids": [run[0] for run in runs],
    }
    if row["state"] == RUNNING:
        if started := times.seconds(row["started"]):
            values["elapsed_s"] = round(max(time.time() - started, 0.0), 1)
        values["progress"] = next(iter(job_directory.read_progress(project.jobs / job["id"], [number])), None)
    return Task.model_validate(values)

"""Answers about jobs and tasks, read from the refreshed index and, where that does not say it, from the job directories."""

from __future__ import annotations

import functools
import itertools
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import ParamSpec, TypeVar

from lossi.contract import records
from lossi.contract.records import PreparedJob, Progress
from lossi.contract.states import STATES
from lossi.errors import InvalidInput, LossiError, NotFound, did_you_mean
from lossi.files import tail
from lossi.jobs.models import Job, Page, Task, shortened, shown
from lossi.jobs.state import answers, reconcile, refresh, table
from lossi.projects import Project

P = ParamSpec("P")
R = TypeVar("R")


def _mended(function: Callable[P, R]) -> Callable[P, R]:
    """Make an index that turns out to be damaged anew, and answer then."""

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
        For an unknown state or a cursor that is none.
    """
    _check(state, limit)
    with refresh.current(project) as (connection, stale):
        where, values = ("state = ?", [state]) if state else ("1", [])
        total = connection.execute(f"SELECT COUNT(*) FROM jobs WHERE {where}", values).fetchone()[0]  # noqa: S608
        rows = connection.execute(
            f"SELECT * FROM jobs WHERE {where} AND id < ? ORDER BY id DESC LIMIT ?",  # noqa: S608
            [*values, _cursor_text(cursor), limit + 1],
        ).fetchall()
        items = [answers.job(project, connection, row) for row in rows[:limit]]
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
        job = answers.job(project, connection, row)
    with suppress(OSError, ValueError, TypeError):
        return job.model_copy(update={"definition": answers.definition(refresh.read_spec(Path(job.directory)))})
    return job


@_mended
def tasks(
    project: Project, id_or_part: str, *, state: str | None = None, limit: int = 100, cursor: str | None = None
) -> Page[Task]:
    """Return tasks of a job in the order of their numbers; those of which nothing is known yet are queued.

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
        items = [answers.task(project, connection, job, number, rows.get(number)) for number in numbers[:limit]]
    found = answers.parameters_of(project.jobs / job["id"], [item.task for item in items])
    whole = [answers.with_parameters(item, *shortened(found.get(item.task, {}))) for item in items]
    return Page(items=whole, next_cursor=str(numbers[limit]) if len(numbers) > limit else None, total=total, stale=stale)


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
        found = answers.task(project, connection, job, number, rows.get(number))
    parameters = answers.parameters_of(project.jobs / job["id"], [number]).get(number, {})
    return answers.with_parameters(found, shown(parameters), [])


@_mended
def progress(project: Project, id_or_part: str) -> list[Progress]:
    """Return where the running tasks of a job are, in the order of their numbers."""
    with refresh.current(project, _whole_id(project, id_or_part)) as (connection, _):
        job = _find(connection, id_or_part)
        return answers.progress_of(project.jobs / job["id"], answers.running(connection, job["id"], -1))


def log(project: Project, id_or_part: str, number: int, offset: int = 0, limit: int = 65536) -> tail.Chunk:
    """Return a part of what a task has written; nothing, while it has written nothing.

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
    """Return the path of a task's executed notebook, as far as it has come.

    Raises
    ------
    NotFound
        When there is no such task, or it has not written one (yet).
    """
    directory, job = directory_of(project, id_or_part)
    check_number(job.id, job.tasks, number)
    path = directory / records.TASK_FOLDER / str(number) / records.OUTPUT_NOTEBOOK
    if not path.is_file() or path.is_symlink():
        why = "it is not a notebook job" if job.kind != "notebook" else "the task has not begun its first cell, or could not"
        raise NotFound(
            f"{job.id}.{number} has no output notebook", why=why, hint=f"lossi logs {job.id}.{number} shows what it wrote"
        )
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
        return directory, refresh.read_spec(directory)
    except FileNotFoundError:
        raise _no_job(id_or_part) from None
    except (OSError, ValueError, TypeError) as error:
        raise NotFound(f"job {job_id} cannot be read", why=str(error), hint=f"look at {directory}") from None


def check_number(job_id: str, tasks: int, number: int) -> None:
    """Refuse the number of a task that a job does not have.

    Raises
    ------
    NotFound
        When it has none of that number.
    """
    if not 0 <= number < tasks:
        raise NotFound(
            f"job {job_id} has no task {number}", hint=f"its tasks are 0 to {tasks - 1}" if tasks else "it cannot be read"
        )


def _check(state: str | None, limit: int) -> None:
    if state is not None and state not in STATES:
        raise InvalidInput(f"there is no state {state!r}", hint=did_you_mean(state, STATES) or f"one of {', '.join(STATES)}")
    if not 1 <= limit <= 1000:
        raise InvalidInput(f"a page has 1 to 1,000 entries, not {limit}", hint="ask for further pages with next_cursor")


def _cursor_text(cursor: str | None) -> str:
    if cursor is None:
        return "~"  # greater than any id
    if not cursor.isalnum():
        raise InvalidInput("this is not a cursor of this list", hint="send `next_cursor` of the page before, or none")
    return cursor


def _cursor_number(cursor: str | None) -> int:
    if cursor is None:
        return 0
    if not cursor.isascii() or not cursor.isdecimal() or len(cursor) > 9:
        raise InvalidInput("this is not a cursor of this list", hint="send `next_cursor` of the page before, or none")
    return int(cursor)


def _whole_id(project: Project, part: str) -> str:
    """Return the id of the job directory that ``part`` means; ``part`` itself where there is none (the index may know more)."""
    found = matching(part, refresh.job_ids(project))
    return found[0] if len(found) == 1 else part


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
    ids = [found[0] for found in connection.execute("SELECT id FROM jobs ORDER BY id DESC")]
    found = matching(part, ids)
    if len(found) > 1:
        raise InvalidInput(
            f"{len(found)} jobs begin or end with {part!r}",
            hint=f"write more of the id, for example {found[0]}",
            candidates=found[:10],
        )
    if not found:
        raise _no_job(part)
    row = connection.execute("SELECT * FROM jobs WHERE id = ?", (found[0],)).fetchone()
    assert row is not None
    return row


def _no_job(part: str) -> NotFound:
    return NotFound(f"there is no job {part!r} in this project", hint="`lossi jobs list` shows them; is it another project's?")


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

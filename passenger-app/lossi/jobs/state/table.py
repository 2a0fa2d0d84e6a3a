"""The rows of jobs and tasks in ``.lossi/lossi.db``: written in short transactions, read back as they are.

The schema belongs to `projects.index`; only the tables ``jobs`` and ``tasks`` are touched here. A settled row (``final``) is never
overwritten by what another process saw earlier.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lossi.contract.records import PreparedJob, SubmissionRecord
from lossi.contract.states import FINAL_STATES, RUNNING, UNKNOWN, has_ended
from lossi.errors import Forbidden, LossiError, Unavailable
from lossi.jobs.state.reconcile import Row, implied_state, job_reason, job_state
from lossi.projects import Project, index

JOB_COLUMNS = (
    "id",
    "name",
    "kind",
    "source",
    "experiment",
    "environment",
    "image_digest",
    "commit_id",
    "dirty",
    "user",
    "scheduler",
    "scheduler_id",
    "cluster",
    "tasks",
    "state",
    "scheduler_state",
    "reason",
    "created",
    "sweep",
    "resubmitted_from",
    "expected_start",
)
"""What is written of a job besides what follows from its tasks (counts, started, ended)."""

_FINAL = ", ".join(repr(state) for state in sorted(FINAL_STATES))
OF_OPEN_JOBS = f"job_id IN (SELECT id FROM jobs WHERE state NOT IN ({_FINAL}) UNION SELECT job_id FROM tasks WHERE final = 0)"  # noqa: S608 fixed words


@dataclass(frozen=True)
class Change:
    """What is new about one job.

    Attributes
    ----------
    job
        Values of `JOB_COLUMNS`; ``state`` is that of its tasks without rows.
    tasks
        Rows of the tasks about which something is new.
    """

    job: Row
    tasks: Sequence[Row] = field(default_factory=list)


def job_row(
    job: PreparedJob,
    submission: SubmissionRecord | None,
    state: str,
    scheduler_state: str,
    reason: str,
    expected_start: str | None = None,
) -> Row:
    """Return the row of a job."""
    return {
        "id": job.id,
        "name": job.name,
        "kind": job.kind,
        "source": job.source,
        "experiment": job.tracking.experiment,
        "environment": job.environment.name,
        "image_digest": job.environment.digest,
        "commit_id": job.code.commit,
        "dirty": int(job.code.dirty),
        "user": job.user,
        "scheduler": submission.scheduler if submission else job.request.get("scheduler"),
        "scheduler_id": submission.scheduler_id if submission else None,
        "cluster": submission.cluster if submission else None,
        "tasks": job.tasks,
        "state": state,
        "scheduler_state": scheduler_state,
        "reason": reason,
        "created": job.created,
        "sweep": int(job.sweep is not None),
        "resubmitted_from": job.resubmitted_from,
        "expected_start": expected_start,
    }


def unreadable_row(job_id: str, created: str, owner: str, reason: str) -> Row:
    """Return the row of a job directory that cannot be read."""
    empty: Row = dict.fromkeys(JOB_COLUMNS)
    named = {
        "id": job_id,
        "name": job_id,
        "kind": UNKNOWN,
        "experiment": "",
        "environment": "",
        "user": owner,
        "created": created,
    }
    return {**empty, **named, "dirty": 0, "tasks": 0, "sweep": 0, "state": UNKNOWN, "scheduler_state": "", "reason": reason}


def apply(connection: sqlite3.Connection, changes: Sequence[Change]) -> None:
    """Write changes, and what follows from all tasks of each job; the caller holds the transaction."""
    marks = ", ".join(f":{column}" for column in JOB_COLUMNS)
    updates = ", ".join(f"{column} = excluded.{column}" for column in JOB_COLUMNS if column != "id")
    upsert_job = f"INSERT INTO jobs ({', '.join(JOB_COLUMNS)}) VALUES ({marks}) ON CONFLICT (id) DO UPDATE SET {updates}"  # noqa: S608
    for change in changes:
        connection.execute(upsert_job, change.job)
        if change.tasks:
            connection.executemany(_upsert_task(change.tasks[0]), change.tasks)
        _conclude(connection, change.job)


def _upsert_task(row: Row) -> str:
    columns = list(row)
    updates = ", ".join(f"{column} = excluded.{column}" for column in columns if column not in ("job_id", "task"))
    return (
        f"INSERT INTO tasks ({', '.join(columns)}) VALUES ({', '.join(':' + column for column in columns)}) "  # noqa: S608
        f"ON CONFLICT (job_id, task) DO UPDATE SET {updates} WHERE tasks.final = 0 OR excluded.final = 1"
    )


def _conclude(connection: sqlite3.Connection, job: Row) -> None:
    counts: dict[str, int] = dict(
        connection.execute("SELECT state, COUNT(*) FROM tasks WHERE job_id = ? GROUP BY state", (job["id"],)).fetchall()
    )
    missing = job["tasks"] - sum(counts.values())
    if missing > 0:
        state = implied_state(job["state"])
        counts[state] = counts.get(state, 0) + missing
    state = job_state(counts)
    first, last, only = connection.execute(
        "SELECT MIN(started), MAX(ended), MAX(reason) FROM tasks WHERE job_id = ?", (job["id"],)
    ).fetchone()
    final = has_ended(state)
    if missing > 0 or not final:  # what happened to the whole job, or what it waits for
        reason = "" if state == RUNNING else job["reason"]
    else:
        reason = job_reason(state, job["tasks"], counts, only or "")
    connection.execute(
        "UPDATE jobs SET state = ?, reason = ?, counts = ?, started = ?, ended = ?, refreshed = ? WHERE id = ?",
        (
            state,
            reason,
            json.dumps(counts),
            first,
            last if final else None,
            time.time(),
            job["id"],
        ),
    )


@contextlib.contextmanager
def private_copy(project: Project, job_id: str | None) -> Iterator[sqlite3.Connection]:
    """Yield a copy in memory of an index that cannot be written: all jobs, and the tasks of open ones and of ``job_id``.

    An index that is missing or unusable counts as empty.
    """
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.row_factory = sqlite3.Row
    try:
        connection.executescript(index.SCHEMA)
        with contextlib.suppress(sqlite3.Error, LossiError), index.reading(project) as source:
            _copy(source, connection, "jobs", "1", ())
            _copy(source, connection, "tasks", f"job_id = ? OR {OF_OPEN_JOBS}", (job_id,))
            _copy(source, connection, "task_runs", "job_id = ?", (job_id,))
        yield connection
    finally:
        connection.close()


def _copy(source: sqlite3.Connection, target: sqlite3.Connection, table: str, where: str, values: Sequence[Any]) -> None:
    rows = source.execute(f"SELECT * FROM {table} WHERE {where}", values)  # noqa: S608
    names = [column[0] for column in rows.description]
    known = {row[1] for row in target.execute(f"PRAGMA table_info({table})")} & set(names)  # a newer Lossi has further columns
    insert = f"INSERT INTO {table} ({', '.join(known)}) VALUES ({', '.join(f':{name}' for name in known)})"  # noqa: S608
    target.executemany(insert, (dict(row) for row in rows))


def is_broken(error: LossiError) -> bool:
    """Return whether an error of `projects.index` means that the file is damaged, not just locked or missing."""
    cause = error.__cause__
    return isinstance(cause, sqlite3.DatabaseError) and getattr(cause, "sqlite_errorcode", None) in (
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
    )


def is_unwritable(error: LossiError) -> bool:
    """Return whether an error means that the index cannot be written now, though it may be read."""
    return isinstance(error, (Forbidden, Unavailable)) and not is_broken(error)


def move_aside(project: Project) -> Path | None:
    """Move a damaged index and its journal aside; return where to, or None if it was gone already."""
    aside = project.index.with_name(f"{project.index.name}.broken-{time.strftime('%Y%m%dT%H%M%S')}-{os.getpid()}")
    try:
        project.index.rename(aside)
    except FileNotFoundError:
        return None
    except OSError:
        raise Unavailable(
            f"the index of project {project.name!r} is damaged and cannot be moved aside",
            why=f"you may not write to {project.home}",
            hint=f"ask the project's owner to delete {project.index}: it is made again from the job directories",
        ) from None
    with contextlib.suppress(OSError):
        Path(f"{project.index}-journal").rename(f"{aside}-journal")
    return aside


def settled(connection: sqlite3.Connection, job_id: str) -> set[int]:
    """Return the tasks of a job that will not change any more."""
    return {row[0] for row in connection.execute("SELECT task FROM tasks WHERE job_id = ? AND final = 1", (job_id,))}


def unsettled(connection: sqlite3.Connection, job_id: str) -> dict[int, Mapping[str, Any]]:
    """Return the rows of the tasks of a job that may still change, by number."""
    cursor = connection.cursor()
    cursor.row_factory = None  # tuples are quicker for thousands of rows
    cursor.execute("SELECT * FROM tasks WHERE job_id = ? AND final = 0", (job_id,))
    names = [column[0] for column in cursor.description]
    place = names.index("task")
    return {row[place]: dict(zip(names, row, strict=True)) for row in cursor}

"""From rows of the index, and files of a job directory where those do not say it, to the models that are answered."""

from __future__ import annotations

import dataclasses
import itertools
import json
import sqlite3
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from lossi.contract import records
from lossi.contract.records import PreparedJob, Progress, TaskError
from lossi.contract.states import QUEUED, RUNNING, UNKNOWN, has_ended
from lossi.jobs import times
from lossi.jobs.models import Job, JobDefinition, Task, shortened, shown
from lossi.jobs.state import reconcile, refresh
from lossi.jobs.submit.prepare import read_rows
from lossi.projects import Project

LARGEST_SWEEP_SHOWN = 100_000
"""Characters of a sweep's definition that an answer holds."""

PROGRESS_READ = 64
"""Running tasks of a job whose progress counts in the job's; reading that of thousands would take seconds."""


def job(project: Project, connection: sqlite3.Connection, row: sqlite3.Row) -> Job:
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
        for progress in progress_of(Path(job.directory), running(connection, job.id, PROGRESS_READ)):
            done += max(progress.cell - 1, 0) / progress.cells if progress.cells else 0.0
    return round(done / job.tasks, 4)


def running(connection: sqlite3.Connection, job_id: str, most: int) -> list[int]:
    """Return the numbers of the running tasks of a job, at most ``most`` (-1: all)."""
    rows = connection.execute(
        "SELECT task FROM tasks WHERE job_id = ? AND state = ? ORDER BY task LIMIT ?", (job_id, RUNNING, most)
    )
    return [row[0] for row in rows]


def progress_of(directory: Path, numbers: list[int]) -> list[Progress]:
    """Return the progress records of tasks, of those that have one."""
    paths = [directory / records.TASK_FOLDER / str(number) / records.PROGRESS for number in numbers]
    return [found for path in paths if (found := records.load_optional(Progress, path)) is not None]


def definition(job: PreparedJob) -> JobDefinition:
    """Return what was decided before submission."""
    sweep = shown(job.sweep)
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


def task(project: Project, connection: sqlite3.Connection, job: sqlite3.Row, number: int, row: sqlite3.Row | None) -> Task:
    """Return a task from its row, or the one that follows from its job where it has none."""
    if row is None:
        implied = reconcile.implied_state(job["state"])
        reason = "" if implied == QUEUED and job["state"] == RUNNING else job["reason"]
        return Task(job_id=job["id"], task=number, state=implied, reason=reason, final=has_ended(implied))
    values: dict[str, Any] = {name: row[name] for name in row.keys()}  # noqa: SIM118 sqlite3.Row
    runs = connection.execute(
        "SELECT run_id FROM task_runs WHERE job_id = ? AND task = ? ORDER BY position", (job["id"], number)
    ).fetchall()
    started = times.seconds(row["started"])
    is_running = row["state"] == RUNNING
    values.update(
        final=bool(row["final"]),
        error=None if row["error"] is None else TaskError(**json.loads(row["error"])),
        notes=json.loads(row["notes"]),
        run_ids=[run[0] for run in runs],
        elapsed_s=round(max(time.time() - started, 0.0), 1) if is_running and started else row["elapsed_s"],
        progress=next(iter(progress_of(project.jobs / job["id"], [number])), None) if is_running else None,
    )
    return Task.model_validate(values)


def with_parameters(found: Task, parameters: dict[str, Any], cut: list[str]) -> Task:
    """Return a task with its parameters."""
    return found.model_copy(update={"parameters": parameters, "shortened": cut})


def parameters_of(directory: Path, numbers: list[int]) -> dict[int, dict[str, Any]]:
    """Return the parameters of some tasks by number; none where the file cannot be read."""
    wanted, last = set(numbers), max(numbers, default=-1)
    found: dict[int, dict[str, Any]] = {}
    with suppress(OSError, ValueError):
        for number, row in enumerate(itertools.islice(read_rows(directory), last + 1)):
            if number in wanted:
                found[number] = row
    return found

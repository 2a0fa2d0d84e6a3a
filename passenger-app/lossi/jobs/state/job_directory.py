"""Reads what job directories hold: the jobs of a project, what was prepared and submitted, and what tasks left."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any, TypeVar

from lossi.contract import records
from lossi.contract.records import CancelRequest, Ending, PreparedJob, Progress, SubmissionRecord, TaskExit
from lossi.errors import Unavailable
from lossi.files import atomic, permissions
from lossi.jobs import ulid
from lossi.jobs.state.reconcile import TaskFolder
from lossi.jobs.submit import preparer
from lossi.jobs.submit.prepare import read_rows
from lossi.projects import Project

R = TypeVar("R")


def job_ids(project: Project) -> list[str]:
    """Return the ids of the job directories, newest first."""
    return scan(project)[0]


def scan(project: Project) -> tuple[list[str], list[str]]:
    """Return the ids of the job directories, newest first, and the names of those that are being prepared.

    Raises
    ------
    Unavailable
        When they cannot be listed.
    """
    try:
        names = [entry.name for entry in os.scandir(project.jobs)]
    except FileNotFoundError:
        return [], []
    except OSError as error:
        raise Unavailable(
            f"the jobs of project {project.name!r} cannot be listed",
            why=error.strerror or str(error),
            hint=f"check that you may read {project.jobs}",
        ) from error
    return sorted(filter(ulid.is_ulid, names), reverse=True), [name for name in names if name.endswith(".part")]


def read_spec(directory: Path) -> PreparedJob:
    """Return the job of a directory; kept in memory, because it never changes.

    Raises
    ------
    OSError, ValueError, TypeError
        When it cannot be read.
    """
    path = directory / records.SPEC
    status = path.stat()
    job = _read_spec(path, status.st_mtime_ns, status.st_ino, status.st_size)
    if job.id != directory.name:
        raise ValueError(f"{records.SPEC} belongs to job {job.id}")
    return job


@functools.lru_cache(maxsize=32)
def _read_spec(path: Path, changed: int, inode: int, size: int) -> PreparedJob:
    return records.load(PreparedJob, path)


def read_submission(directory: Path) -> SubmissionRecord | None:
    """Return what the scheduler answered, or None when it is missing or not readable."""
    return records.load_optional(SubmissionRecord, directory / records.SUBMISSION)


def write_submission(directory: Path, submission: SubmissionRecord) -> None:
    """Keep what the scheduler answered; the job is no longer being prepared."""
    atomic.write(directory / records.SUBMISSION, records.dump(submission), mode=permissions.file_mode(directory))
    with contextlib.suppress(OSError):
        (directory / preparer.FILE).unlink()


def read_cancellation(directory: Path) -> CancelRequest | None:
    """Return what was asked to stop; None: nothing."""
    return records.load_optional(CancelRequest, directory / records.CANCEL)


def started_tasks(directory: Path) -> set[int]:
    """Return the tasks that have a folder: those that have started."""
    try:
        return {int(name) for name in os.listdir(directory / records.TASK_FOLDER) if name.isdecimal()}  # noqa: PTH208 only names
    except OSError:
        return set()


def read_task(folder: str, now: float, *, cancelled: bool, with_progress: bool) -> TaskFolder:
    """Return what a task that has started left in its folder; ``now`` in seconds since the epoch."""
    exit_record = _read(TaskExit, folder, records.EXIT)
    if exit_record is not None:
        ending = _read(Ending, folder, records.ENDING) if exit_record.written_by != "runner" else None
        return TaskFolder(exit_record, ending, changed=now, cancelled=cancelled)
    progress = _read(Progress, folder, records.PROGRESS) if with_progress else None
    try:
        changed = os.stat(folder).st_mtime  # noqa: PTH116 a Path for each of thousands takes too long
    except OSError:
        changed = now
    return TaskFolder(progress=progress, changed=changed, cancelled=cancelled)


def _read(kind: type[R], folder: str, name: str) -> R | None:
    path = f"{folder}/{name}"
    return records.load_optional(kind, Path(path)) if os.path.lexists(path) else None


def read_progress(directory: Path, numbers: Collection[int]) -> list[Progress]:
    """Return the progress of tasks, of those that have written it."""
    paths = [directory / records.TASK_FOLDER / str(number) / records.PROGRESS for number in numbers]
    return [progress for path in paths if (progress := records.load_optional(Progress, path)) is not None]


def read_parameters(directory: Path, numbers: Collection[int]) -> dict[int, dict[str, Any]]:
    """Return the parameters of some tasks by number; none if the file cannot be read."""
    chosen: dict[int, dict[str, Any]] = {}
    with contextlib.suppress(OSError, ValueError):
        for number, row in enumerate(itertools.islice(read_rows(directory), max(numbers, default=-1) + 1)):
            if number in numbers:
                chosen[number] = row
    return chosen

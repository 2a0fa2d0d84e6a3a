"""Scan the job directories for tasks that have something to ingest; cheap, because every page does it.

Reads names and sizes below ``.lossi/jobs``, ``spec.json`` and ``exit.json``; writes nothing. A completed job is never scanned
again, nor is a task whose files were ingested and removed.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from lossi.contract import records
from lossi.contract.states import FAILED, SUCCEEDED, has_ended
from lossi.projects import Project
from lossi.tracking.ingest.ledger import CLEANED, INGESTED, IngestedSnapshot, Ledger

JOB = re.compile(r"[0-9a-z]{26}")
TASK = re.compile(r"0|[1-9][0-9]{0,8}")
SNAPSHOT = re.compile(r"tracking-(\d{8,18})-([0-9a-f]{16})\.db")
SETTLED = timedelta(hours=1)
"""This long after its end nothing of a job is still on its way through a network filesystem."""


@dataclass(frozen=True)
class SnapshotFile:
    """A published snapshot."""

    path: Path
    seq: int
    digest: str
    bytes: int
    modified_ns: int

    def stamp(self, readable: str) -> str:
        """Return what must change before a refused file is tried again: the file, or what this Lossi can read."""
        return f"{self.bytes} {self.modified_ns} {readable}"


@dataclass(frozen=True)
class PendingTask:
    """A task that has something to ingest, to finish or to clean up.

    Attributes
    ----------
    final
        The task has ended: nothing newer than ``snapshots`` will come.
    clean_only
        Everything is ingested, only files are left to remove.
    snapshots
        Snapshots newer than the ingested one, newest first, without the refused ones.
    files
        All snapshot files.
    """

    job_id: str
    task: int
    folder: Path
    final: bool
    clean_only: bool = False
    snapshots: tuple[SnapshotFile, ...] = ()
    files: tuple[SnapshotFile, ...] = ()
    newest_refused: bool = False

    def runner_ended_it(self) -> bool:
        """Return whether the runner wrote the exit record; if not, it was killed and left its runs open."""
        return (self.folder / records.EXIT).exists() and self._exit_record().get("written_by", "runner") == "runner"

    def run_ids(self) -> list[str]:
        """Return the runs in the exit record, the task's own first."""
        run_ids = self._exit_record().get("run_ids")
        return [run_id for run_id in run_ids if isinstance(run_id, str)] if isinstance(run_ids, list) else []

    def _exit_record(self) -> dict[str, Any]:
        """Return the exit record as far as it can be read: a damaged one ends the task all the same."""
        try:
            record = json.loads((self.folder / records.EXIT).read_bytes())
        except (OSError, ValueError):
            return {}
        return record if isinstance(record, dict) else {}


@dataclass
class Scan:
    """One pass over the job directories; `remaining` counts the tasks it has not reached.

    Parameters
    ----------
    readable
        What this Lossi can read (see `SnapshotFile.stamp`).
    """

    project: Project
    ledger: Ledger
    readable: str
    remaining: int = 0
    open_jobs: list[str] = field(default_factory=list)
    """Jobs that are not completed."""
    refused: dict[tuple[str, str], int] = field(default_factory=dict)
    """(job, reason) → number of snapshots that were refused before and still are."""
    unreadable_jobs: list[str] = field(default_factory=list)

    def __iter__(self) -> Iterator[PendingTask]:
        """Yield the pending tasks, jobs in the order of their submission."""
        self.open_jobs = self._find_open_jobs()
        candidates = [(job, self._candidates(job)) for job in self.open_jobs]
        self.remaining = sum(len(tasks) for _, tasks in candidates)
        for job, tasks in candidates:
            if not tasks:
                continue
            refused = self.ledger.refused(job)
            for task, ingested in tasks:
                pending = self._examine(job, task, ingested, refused)
                self.remaining -= 1
                if pending is not None:
                    yield pending

    def _find_open_jobs(self) -> list[str]:
        completed = self.ledger.completed_jobs()
        try:
            with os.scandir(self.project.jobs) as entries:
                return sorted(
                    e.name
                    for e in entries
                    if JOB.fullmatch(e.name) and e.name not in completed and e.is_dir(follow_symlinks=False)
                )
        except OSError:
            return []

    def _candidates(self, job: str) -> list[tuple[int, IngestedSnapshot | None]]:
        """Return the tasks of a job that have a folder and are not done."""
        folder = self.project.jobs / job / records.TASK_FOLDER
        try:
            with os.scandir(folder) as entries:
                tasks = sorted(int(entry.name) for entry in entries if TASK.fullmatch(entry.name))
        except FileNotFoundError:
            return []
        except OSError:
            self.unreadable_jobs.append(job)
            return []
        ingested = self.ledger.ingested(job) if tasks else {}
        done = CLEANED if os.access(folder, os.W_OK) else INGESTED
        return [(task, last) for task in tasks if (last := ingested.get(task)) is None or last.final < done]

    def _examine(
        self, job: str, task: int, ingested: IngestedSnapshot | None, refused: dict[tuple[int, str], tuple[str, str]]
    ) -> PendingTask | None:
        """Look into one task's folder. The exit record is read before the files are listed, or the last one could be missed."""
        folder = self.project.jobs / job / records.TASK_FOLDER / str(task)
        try:
            final = self._is_over(job, task, folder)
            files = _snapshots(folder)
        except FileNotFoundError:
            return None
        except OSError:
            self.unreadable_jobs.append(job)
            return None
        if ingested is not None and ingested.final == INGESTED:
            return PendingTask(job, task, folder, True, clean_only=True, files=files)
        newer = files if ingested is None else tuple(f for f in files if _is_newer(f, ingested, final))
        usable = []
        newest_refused = False
        for file in newer:
            stamp, reason = refused.get((task, file.path.name), ("", ""))
            if stamp == file.stamp(self.readable):
                self.refused[job, reason] = self.refused.get((job, reason), 0) + 1
                newest_refused = newest_refused or file is newer[0]
            else:
                usable.append(file)
        if not usable and (not final or newest_refused):
            return None
        return PendingTask(job, task, folder, final, snapshots=tuple(usable), files=files, newest_refused=newest_refused)

    def _is_over(self, job: str, task: int, folder: Path) -> bool:
        """Return whether a task has ended for good: the scheduler may start an interrupted one again."""
        path = folder / records.EXIT
        exit_record = records.load_optional(records.TaskExit, path)
        if exit_record is None:
            return path.exists() or self.ledger.is_settled(job, task)
        if exit_record.state == SUCCEEDED or (exit_record.state == FAILED and exit_record.signal is None):
            return True
        spec = records.load_optional(records.PreparedJob, self.project.jobs / job / records.SPEC)
        if spec is None or not spec.requeue or self.ledger.is_settled(job, task):
            return True
        state, ended = self.ledger.job_state(job)
        return has_ended(state) and _is_settled(ended)

    def finished_jobs(self) -> list[str]:
        """Return the open jobs that need no further scan.

        All their tasks are done; or they ended a while ago and the missing tasks never started, so they have no folder.
        """
        return [job for job in self.open_jobs if self._is_finished(job)]

    def _is_finished(self, job: str) -> bool:
        cleaned = self.ledger.cleaned_count(job)
        state, ended = self.ledger.job_state(job)
        if not cleaned and not has_ended(state):
            return False
        spec = records.load_optional(records.PreparedJob, self.project.jobs / job / records.SPEC)
        if spec is None:
            return False
        if cleaned >= spec.tasks:
            return True
        return has_ended(state) and _is_settled(ended) and not self._candidates(job)


def _is_settled(ended: str | None) -> bool:
    try:
        return datetime.now(UTC) - datetime.fromisoformat(ended or "") > SETTLED
    except (ValueError, TypeError):
        return False


def _is_newer(file: SnapshotFile, ingested: IngestedSnapshot, final: bool) -> bool:
    """Return whether a file has something new; the last one of an ended task is read in full once more."""
    return file.seq > ingested.seq or (file.seq == ingested.seq and (final or file.digest != ingested.digest))


def _snapshots(folder: Path) -> tuple[SnapshotFile, ...]:
    """Return the snapshots in a task's folder, newest first."""
    files = []
    with os.scandir(folder) as entries:
        for entry in entries:
            match = SNAPSHOT.fullmatch(entry.name)
            if not match or not entry.is_file(follow_symlinks=False):
                continue
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:  # a newer one replaced it
                continue
            files.append(SnapshotFile(folder / entry.name, int(match[1]), match[2], status.st_size, status.st_mtime_ns))
    return tuple(sorted(files, key=lambda file: (file.seq, file.modified_ns), reverse=True))

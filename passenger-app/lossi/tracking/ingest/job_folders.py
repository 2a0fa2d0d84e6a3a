"""Looking through the job directories for what is to be taken in; cheap, because every page asks.

Room: tracking. Reads names and sizes below ``.lossi/jobs``, ``spec.json`` and ``exit.json``; writes nothing. A job that is
done with is never looked at again, nor a task whose files were taken in and removed.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from lossi.contract import records
from lossi.projects import Project
from lossi.tracking.ingest.ledger import CLEANED, TAKEN, Known, Ledger

JOB = re.compile(r"[0-9a-z]{26}")
TASK = re.compile(r"0|[1-9][0-9]{0,8}")
SNAPSHOT = re.compile(r"tracking-(\d{8,18})-([0-9a-f]{16})\.db")
SETTLED = timedelta(hours=1)


@dataclass(frozen=True)
class SnapshotFile:
    """A published snapshot."""

    path: Path
    seq: int
    digest: str
    bytes: int
    modified_ns: int

    def stamp(self, readable: str) -> str:
        """What must change before a refused one is worth another try: the file, or what this Lossi can read."""
        return f"{self.bytes} {self.modified_ns} {readable}"


@dataclass(frozen=True)
class Found:
    """A task that has something to take in, to finish or to tidy up.

    Attributes
    ----------
    final
        The task has ended: nothing newer than ``snapshots`` will come.
    clean_only
        Everything is taken in, only files are left to remove.
    snapshots
        Those that are newer than what was taken in, newest first, without the refused ones.
    files
        Every snapshot file that is there.
    """

    job_id: str
    task: int
    folder: Path
    final: bool
    clean_only: bool = False
    snapshots: tuple[SnapshotFile, ...] = ()
    files: tuple[SnapshotFile, ...] = ()
    newest_refused: bool = False

    def has_runners_account(self) -> bool:
        """Return whether the runner itself said how the task ended; otherwise it was killed, and left its runs as they were."""
        try:
            return bool(json.loads((self.folder / records.EXIT).read_bytes()).get("written_by", "runner") == "runner")
        except (OSError, ValueError, AttributeError):
            return (self.folder / records.EXIT).exists()

    def run_ids(self) -> list[str]:
        """Return the runs that the task named in its exit record, its own first; nothing else of it matters here."""
        try:
            named = json.loads((self.folder / records.EXIT).read_bytes()).get("run_ids", [])
            return [run for run in named if isinstance(run, str)]
        except (OSError, ValueError, AttributeError, TypeError):
            return []


@dataclass
class Look:
    """One look through the job directories; counts what it has not come to.

    Parameters
    ----------
    readable
        Stands for what this Lossi can read (see `SnapshotFile.stamp`).
    """

    project: Project
    ledger: Ledger
    readable: str
    remaining: int = 0
    jobs: list[str] = field(default_factory=list)
    """Every job that is not done with."""
    refused: dict[tuple[str, str], int] = field(default_factory=dict)
    """(job, reason) → number of snapshots that were refused before and still are."""
    hidden: list[str] = field(default_factory=list)
    """Jobs that may not be read."""

    def __iter__(self) -> Iterator[Found]:
        """Yield tasks with something to do, jobs in the order of their submission."""
        candidates = [(job, self._candidates(job)) for job in self._open_jobs()]
        self.remaining = sum(len(tasks) for _, tasks in candidates)
        for job, tasks in candidates:
            if not tasks:
                continue
            refused = self.ledger.refused(job)
            for task, known in tasks:
                found = self._examine(job, task, known, refused)
                self.remaining -= 1
                if found is not None:
                    yield found

    def _open_jobs(self) -> list[str]:
        complete = self.ledger.complete_jobs()
        try:
            with os.scandir(self.project.jobs) as entries:
                names = [
                    e.name
                    for e in entries
                    if JOB.fullmatch(e.name) and e.name not in complete and e.is_dir(follow_symlinks=False)
                ]
        except OSError:
            names = []
        self.jobs = sorted(names)
        return self.jobs

    def _candidates(self, job: str) -> list[tuple[int, Known | None]]:
        """Return the tasks of a job that have a folder and are not done with."""
        folder = self.project.jobs / job / records.TASK_FOLDER
        try:
            with os.scandir(folder) as entries:
                tasks = sorted(int(entry.name) for entry in entries if TASK.fullmatch(entry.name))
        except FileNotFoundError:
            return []
        except OSError:
            self.hidden.append(job)
            return []
        known = self.ledger.known(job) if tasks else {}
        tidy = os.access(folder, os.W_OK)
        return [(task, seen) for task in tasks if (seen := known.get(task)) is None or seen.final < (CLEANED if tidy else TAKEN)]

    def _examine(self, job: str, task: int, known: Known | None, refused: dict[tuple[int, str], tuple[str, str]]) -> Found | None:
        """Look into one task's folder. The exit record is asked for before the files are listed, else one could be missed."""
        folder = self.project.jobs / job / records.TASK_FOLDER / str(task)
        try:
            final = self._is_over(job, task, folder)
            files = _snapshots(folder)
        except FileNotFoundError:
            return None
        except OSError:
            self.hidden.append(job)
            return None
        if known is not None and known.final == TAKEN:
            return Found(job, task, folder, True, clean_only=True, files=files)
        newer = files if known is None else tuple(f for f in files if _newer(f, known, final))
        wanted = []
        newest_refused = False
        for place, file in enumerate(newer):
            stamp, reason = refused.get((task, file.path.name), ("", ""))
            if stamp == file.stamp(self.readable):
                self.refused[job, reason] = self.refused.get((job, reason), 0) + 1
                newest_refused = newest_refused or place == 0
            else:
                wanted.append(file)
        if not wanted and (not final or newest_refused):
            return None
        return Found(job, task, folder, final, snapshots=tuple(wanted), files=files, newest_refused=newest_refused)

    def _is_over(self, job: str, task: int, folder: Path) -> bool:
        """Return whether a task has ended for good: one that was interrupted may be started again by its scheduler."""
        path = folder / records.EXIT
        left = records.load_optional(records.TaskExit, path)
        if left is None:
            return path.exists() or self.ledger.is_settled(job, task)
        if left.state == records.SUCCEEDED or (left.state == records.FAILED and left.signal is None):
            return True
        spec = records.load_optional(records.PreparedJob, self.project.jobs / job / records.SPEC)
        if spec is None or not spec.requeue or self.ledger.is_settled(job, task):
            return True
        state, ended = self.ledger.job_state(job)
        return state in records.FINAL_STATES and _old(ended)

    def finished(self) -> list[str]:
        """Return the jobs that need not be looked at any more.

        Those with as many tasks done with as they have; and those that ended a while ago, of which some tasks never
        started and so have no folder.
        """
        return [job for job in self.jobs if self._is_finished(job)]

    def _is_finished(self, job: str) -> bool:
        count = self.ledger.cleaned_count(job)
        state, ended = self.ledger.job_state(job)
        if not count and state not in records.FINAL_STATES:
            return False
        spec = records.load_optional(records.PreparedJob, self.project.jobs / job / records.SPEC)
        if spec is None:
            return False
        if count >= spec.tasks:
            return True
        return state in records.FINAL_STATES and _old(ended) and not self._candidates(job)


def _old(moment: str | None) -> bool:
    """Whether this was long enough ago that nothing of it is still on its way through a network filesystem."""
    try:
        return datetime.now(UTC) - datetime.fromisoformat(moment or "") > SETTLED
    except (ValueError, TypeError):
        return False


def _newer(file: SnapshotFile, known: Known, final: bool) -> bool:
    """Whether a file has something new; the last one of an ended task is read in full once more."""
    return file.seq > known.seq or (file.seq == known.seq and (final or file.digest != known.digest))


def _snapshots(folder: Path) -> tuple[SnapshotFile, ...]:
    """Return the snapshots in a task's folder, newest first."""
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            match = SNAPSHOT.fullmatch(entry.name)
            if not match or not entry.is_file(follow_symlinks=False):
                continue
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:  # a newer one took its place
                continue
            found.append(SnapshotFile(folder / entry.name, int(match[1]), match[2], status.st_size, status.st_mtime_ns))
    return tuple(sorted(found, key=lambda file: (file.seq, file.modified_ns), reverse=True))

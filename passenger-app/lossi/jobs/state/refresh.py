"""Bringing the index up to date: which jobs are open, what the schedulers and the job directories say of them.

One question per scheduler whatever the number of jobs; ``exit.json`` is read only of tasks that are not settled yet; everything is
read before the one short transaction that writes. Touches ``.lossi/jobs`` and ``.lossi/lossi.db``.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pwd
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lossi.contract import records
from lossi.contract.records import PreparedJob, SubmissionRecord
from lossi.contract.states import FAILED, QUEUED, UNKNOWN, has_ended
from lossi.errors import LossiError, Unavailable
from lossi.files import atomic, permissions
from lossi.jobs import schedulers, times, ulid
from lossi.jobs.state import looking, reconcile as reconciliation, table
from lossi.jobs.state.looking import OpenJob
from lossi.jobs.state.reconcile import Row
from lossi.jobs.state.table import Change
from lossi.jobs.submit import preparer
from lossi.jobs.submit.prepare import remove_left_behind
from lossi.projects import Project, index as store

NEVER_SUBMITTED = "was prepared but never submitted"
GONE = "its directory is gone: removed, or purged by the filesystem's policy"


@dataclass(frozen=True)
class Looked:
    """What a look at the project found.

    Attributes
    ----------
    changes
        What to write.
    stale
        Not empty: why some of it may be old.
    left_behind
        Names of directories in which a job was once being prepared.
    """

    changes: list[Change]
    stale: str = ""
    left_behind: list[str] = field(default_factory=list)


def refresh(project: Project, *, again: Sequence[str] = ()) -> str:
    """Bring the index up to date and return why something in it may be old, or an empty text.

    Parameters
    ----------
    project
        Where.
    again
        Jobs to look at even if they had ended by the index.

    Raises
    ------
    Forbidden, Unavailable
        When the index cannot be written now.
    """
    try:
        return _refresh(project, again)
    except LossiError as error:
        if not table.is_broken(error):
            raise
    table.move_aside(project)
    return _refresh(project, again)


def rebuild(project: Project) -> int:
    """Make jobs and tasks in the index again from the job directories; return the number of jobs.

    The ledger of what was taken into the tracking store, in the same file, is kept.
    """
    try:
        with store.writing(project) as connection:
            connection.execute("DELETE FROM tasks")
            connection.execute("DELETE FROM jobs")
    except LossiError as error:
        if not table.is_broken(error):
            raise
        table.move_aside(project)
    refresh(project)
    with store.reading(project) as connection:
        return int(connection.execute("SELECT COUNT(*) FROM jobs").fetchone()[0])


def reconcile(project: Project) -> list[str]:
    """Find out what became of jobs whose submitter died between preparing and submitting, and remove what was left behind.

    Returns
    -------
    list of str
        Ids of the jobs that the scheduler had accepted (they go on as usual). The others have failed with the reason
        `NEVER_SUBMITTED`.

    Raises
    ------
    Forbidden, Unavailable
        When the index cannot be written now.
    """
    lost = [job_id for job_id in job_ids(project) if read_submission(project.jobs / job_id) is None]
    refresh(project, again=lost)
    return [job_id for job_id in lost if read_submission(project.jobs / job_id) is not None]


@contextlib.contextmanager
def current(project: Project, job_id: str | None = None) -> Iterator[tuple[sqlite3.Connection, str]]:
    """Yield an index that is up to date and why something in it may be old: the file itself, or a copy where it cannot be written."""
    with contextlib.ExitStack() as stack:
        try:
            stale = refresh(project)
            connection = stack.enter_context(store.reading(project))
        except LossiError as error:
            if not table.is_unwritable(error) and not table.is_broken(error):
                raise
            connection = stack.enter_context(table.borrowed(project, job_id))
            found = look(project, connection)
            table.apply(connection, found.changes)
            stale = found.stale
        yield connection, stale


def _refresh(project: Project, again: Sequence[str]) -> str:
    with store.reading(project) as connection:
        found = look(project, connection, again=again)
    remove_left_behind(project, found.left_behind)
    if found.changes:
        with store.writing(project) as connection:
            table.apply(connection, found.changes)
        project.share(project.index)
    return found.stale


def look(project: Project, connection: sqlite3.Connection, *, again: Sequence[str] = ()) -> Looked:
    """Return what has changed since the index was written; writes nothing but ``submission.json`` of jobs found at a scheduler."""
    present, left_behind = _directories(project)
    known: dict[str, str] = dict(connection.execute("SELECT id, state FROM jobs").fetchall())
    unsettled = {row[0] for row in connection.execute("SELECT DISTINCT job_id FROM tasks WHERE final = 0")}
    wanted = [job for job in present if not has_ended(known.get(job, UNKNOWN)) or job in unsettled or job in again]
    changes: list[Change] = []
    opened: list[OpenJob] = []
    stale: list[str] = []
    for job_id in wanted:
        found = _open(project, job_id, known, stale)
        if isinstance(found, OpenJob):
            opened.append(found)
        elif found is not None:
            changes.append(Change(found))
    views = _poll(connection, [one for one in opened if one.own], stale)
    changes += [looking.found(connection, one, views.get(one.job.id), _patience(one)) for one in opened]
    for job_id in sorted(set(known) - set(present)):
        if not has_ended(known[job_id]):
            changes.append(_gone(connection, job_id))
    changed = [change for change in changes if change.tasks or not _is_known(connection, change.job)]
    return Looked(changed, "; ".join(dict.fromkeys(stale)), left_behind)


def job_ids(project: Project) -> list[str]:
    """Return the ids of the job directories, newest first."""
    return _directories(project)[0]


def _directories(project: Project) -> tuple[list[str], list[str]]:
    """Return the ids of the job directories, newest first, and the names of those that are being prepared."""
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


def _open(project: Project, job_id: str, known: dict[str, str], stale: list[str]) -> OpenJob | Row | None:
    """Return a job to ask about, the row of one that there is nothing to ask about, or None to leave it as it is."""
    directory = project.jobs / job_id
    try:
        job = read_spec(directory)
        status = directory.stat()
    except PermissionError:
        why = "you may not read its directory"
        return None if job_id in known else _unreadable(directory, why)
    except (OSError, ValueError, TypeError) as error:
        return _unreadable(directory, f"its directory cannot be read: {error}")
    own = status.st_uid == os.geteuid()
    submission = read_submission(directory)
    if submission is None:
        found = _settle(job, directory, own, stale)
        if not isinstance(found, SubmissionRecord):
            return found
        submission = found
    return OpenJob(job, directory, submission, own)


def _settle(job: PreparedJob, directory: Path, own: bool, stale: list[str]) -> SubmissionRecord | Row:
    """Find out what became of a job between preparing and submitting."""
    if preparer.at_work(directory) or not own:
        return table.job_row(job, None, QUEUED, "", "it is being submitted")
    try:
        found = scheduler_of(job, None).find(job.id)
    except LossiError as error:
        stale.append(str(error))
        return table.job_row(job, None, QUEUED, "", "whether it was submitted is not known yet")
    # Between the two looks the submitter may have finished.
    found = found or read_submission(directory)
    if found is None:
        return table.job_row(job, None, FAILED, "", NEVER_SUBMITTED)
    with contextlib.suppress(LossiError):
        write_submission(directory, found)
    return found


def _poll(connection: sqlite3.Connection, opened: Sequence[OpenJob], stale: list[str]) -> dict[str, schedulers.JobView]:
    """Ask each scheduler once about all its jobs."""
    by_scheduler: dict[tuple[str, str | None], list[schedulers.Handle]] = {}
    for one in opened:
        found = handle(one.job, one.directory, one.submission, settled=table.settled(connection, one.job.id))
        by_scheduler.setdefault((one.submission.scheduler, one.submission.cluster), []).append(found)
    views: dict[str, schedulers.JobView] = {}
    for (name, cluster), handles in by_scheduler.items():
        try:
            views |= schedulers.of_record(name, cluster).poll(handles)
        except LossiError as error:
            stale.append(str(error))
    stale += sorted({view.stale for view in views.values() if view.stale})
    return views


def _patience(one: OpenJob) -> reconciliation.Patience:
    if not one.own:
        return reconciliation.Patience()
    try:
        return reconciliation.Patience.with_(scheduler_of(one.job, one.submission).capabilities)
    except LossiError:
        return reconciliation.Patience()


def scheduler_of(job: PreparedJob, submission: SubmissionRecord | None) -> schedulers.Scheduler:
    """Return the scheduler that a job was or is to be submitted to.

    Raises
    ------
    LossiError
        When it is not known here.
    """
    if submission is not None:
        return schedulers.of_record(submission.scheduler, submission.cluster)
    return schedulers.of_record(job.request.get("scheduler"), job.request.get("cluster"))


def _gone(connection: sqlite3.Connection, job_id: str) -> Change:
    """Return the change for an open job whose directory is no longer there: what had not ended is unknown."""
    row = connection.execute(f"SELECT {', '.join(table.JOB_COLUMNS)} FROM jobs WHERE id = ?", (job_id,)).fetchone()  # noqa: S608
    job = {**dict(row), "state": UNKNOWN, "reason": GONE}
    open_tasks = [task for task in table.unsettled(connection, job_id).values() if task["reason"] != GONE]
    return Change(job, [{**task, "state": UNKNOWN, "reason": GONE} for task in open_tasks])


def _is_known(connection: sqlite3.Connection, job: Row) -> bool:
    """Return whether the index says the same of a job already (what follows from its tasks aside)."""
    row = connection.execute(f"SELECT {', '.join(table.JOB_COLUMNS)} FROM jobs WHERE id = ?", (job["id"],)).fetchone()  # noqa: S608
    if row is None:
        return False
    follows = ("state", "reason") if job["state"] == QUEUED else ()
    same = all(row[column] == value for column, value in job.items() if column not in follows)
    # A job none of whose tasks is known of has the reason that the scheduler gives.
    return same and (not follows or row["state"] != QUEUED or row["reason"] == job["reason"])


def _unreadable(directory: Path, reason: str) -> Row:
    owner = ""
    with contextlib.suppress(OSError, KeyError):
        owner = pwd.getpwuid(directory.stat().st_uid).pw_name
    return table.unreadable_row(directory.name, times.utc(ulid.moment(directory.name)), owner, reason)


def handle(
    job: PreparedJob, directory: Path, submission: SubmissionRecord, *, settled: Collection[int] = frozenset()
) -> schedulers.Handle:
    """Return how a scheduler is asked about a job."""
    submitted = times.seconds(submission.submitted)
    return schedulers.Handle(job.id, submission.scheduler_id, directory, job.tasks, submitted, settled)


def read_spec(directory: Path) -> PreparedJob:
    """Return the job of a directory; kept in memory, because it never changes.

    Raises
    ------
    OSError, ValueError, TypeError
        When it cannot be read.
    """
    path = directory / records.SPEC
    found = path.stat()
    job = _read_spec(path, found.st_mtime_ns, found.st_ino, found.st_size)
    if job.id != directory.name:
        raise ValueError(f"{records.SPEC} belongs to job {job.id}")
    return job


@functools.lru_cache(maxsize=32)
def _read_spec(path: Path, changed: int, inode: int, size: int) -> PreparedJob:
    return records.load(PreparedJob, path)


def read_submission(directory: Path) -> SubmissionRecord | None:
    """Return what the scheduler answered, or None when it is not there or not readable."""
    return records.load_optional(SubmissionRecord, directory / records.SUBMISSION)


def write_submission(directory: Path, submission: SubmissionRecord) -> None:
    """Keep what the scheduler answered; the preparing of the job has ended."""
    atomic.write(directory / records.SUBMISSION, records.dump(submission), mode=permissions.file_mode(directory))
    with contextlib.suppress(OSError):
        (directory / preparer.FILE).unlink()

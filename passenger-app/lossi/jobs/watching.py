"""Bringing the index up to date: which jobs are open, what the schedulers and the job directories say of them.

One question per scheduler whatever the number of jobs; ``exit.json`` is read only of tasks that are not settled yet; everything is
read before the one short transaction that writes. Touches ``.lossi/jobs`` and ``.lossi/lossi.db``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import pwd
import sqlite3
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from lossi.errors import LossiError, Unavailable
from lossi.files import atomic, permissions
from lossi.jobs import index, observe, preparer, schedulers, ulid
from lossi.jobs.index import Change
from lossi.jobs.observe import Row, Seen
from lossi.jobs.prepare import remove_left_behind
from lossi.projects import Project
from lossi.projects import index as store
from lossi.runner import records
from lossi.runner.records import FAILED, QUEUED, UNKNOWN, CancelRequest, PreparedJob, SubmissionRecord

R = TypeVar("R")

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


@dataclass(frozen=True)
class _Open:
    """A job to look at: what was prepared, what the scheduler accepted, and whether this user's scheduler can be asked."""

    job: PreparedJob
    directory: Path
    submission: SubmissionRecord
    own: bool


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
        if not index.is_broken(error):
            raise
    index.move_aside(project)
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
        if not index.is_broken(error):
            raise
        index.move_aside(project)
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
            if not index.is_unwritable(error) and not index.is_broken(error):
                raise
            connection = stack.enter_context(index.borrowed(project, job_id))
            found = look(project, connection)
            index.apply(connection, found.changes)
            stale = found.stale
        yield connection, stale


def _refresh(project: Project, again: Sequence[str]) -> str:
    with store.reading(project) as connection:
        found = look(project, connection, again=again)
    remove_left_behind(project, found.left_behind)
    if found.changes:
        with store.writing(project) as connection:
            index.apply(connection, found.changes)
        project.share(project.index)
    return found.stale


def look(project: Project, connection: sqlite3.Connection, *, again: Sequence[str] = ()) -> Looked:
    """Return what has changed since the index was written; writes nothing but ``submission.json`` of jobs found at a scheduler."""
    present, left_behind = _directories(project)
    known: dict[str, str] = dict(connection.execute("SELECT id, state FROM jobs").fetchall())
    unsettled = {row[0] for row in connection.execute("SELECT DISTINCT job_id FROM tasks WHERE final = 0")}
    wanted = [job for job in present if known.get(job) not in records.FINAL_STATES or job in unsettled or job in again]
    changes: list[Change] = []
    opened: list[_Open] = []
    stale: list[str] = []
    for job_id in wanted:
        found = _open(project, job_id, known, stale)
        if isinstance(found, _Open):
            opened.append(found)
        elif found is not None:
            changes.append(Change(found))
    views = _poll(connection, [one for one in opened if one.own], stale)
    changes += [_changed(connection, one, views.get(one.job.id)) for one in opened]
    for job_id in sorted(set(known) - set(present)):
        if known[job_id] not in records.FINAL_STATES:
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


def _open(project: Project, job_id: str, known: dict[str, str], stale: list[str]) -> _Open | Row | None:
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
    return _Open(job, directory, submission, own)


def _settle(job: PreparedJob, directory: Path, own: bool, stale: list[str]) -> SubmissionRecord | Row:
    """Find out what became of a job between preparing and submitting."""
    if preparer.at_work(directory) or not own:
        return index.job_row(job, None, QUEUED, "", "it is being submitted")
    try:
        found = scheduler_of(job, None).find(job.id)
    except LossiError as error:
        stale.append(str(error))
        return index.job_row(job, None, QUEUED, "", "whether it was submitted is not known yet")
    # Between the two looks the submitter may have finished.
    found = found or read_submission(directory)
    if found is None:
        return index.job_row(job, None, FAILED, "", NEVER_SUBMITTED)
    with contextlib.suppress(LossiError):
        write_submission(directory, found)
    return found


def _poll(connection: sqlite3.Connection, opened: Sequence[_Open], stale: list[str]) -> dict[str, schedulers.JobView]:
    """Ask each scheduler once about all its jobs."""
    by_scheduler: dict[tuple[str, str | None], list[schedulers.Handle]] = {}
    for one in opened:
        found = handle(one.job, one.directory, one.submission, settled=index.settled(connection, one.job.id))
        by_scheduler.setdefault((one.submission.scheduler, one.submission.cluster), []).append(found)
    views: dict[str, schedulers.JobView] = {}
    for (name, cluster), handles in by_scheduler.items():
        try:
            views |= _scheduler(name, cluster).poll(handles)
        except LossiError as error:
            stale.append(str(error))
    stale += sorted({view.stale for view in views.values() if view.stale})
    return views


def scheduler_of(job: PreparedJob, submission: SubmissionRecord | None) -> schedulers.Scheduler:
    """Return the scheduler that a job was or is to be submitted to.

    Raises
    ------
    LossiError
        When it is not known here.
    """
    if submission is not None:
        return _scheduler(submission.scheduler, submission.cluster)
    return _scheduler(job.request.get("scheduler"), job.request.get("cluster"))


def _scheduler(name: str | None, cluster: str | None) -> schedulers.Scheduler:
    # A job on a cluster is asked for through whatever door the cluster has now.
    return schedulers.get(None if name in schedulers.SLURM else name, cluster if name in schedulers.SLURM else None)


def _changed(connection: sqlite3.Connection, one: _Open, view: schedulers.JobView | None) -> Change:
    """Return the job's row and the rows of its tasks that differ from those in the index."""
    job, now = one.job, time.time()
    settled = index.settled(connection, job.id)
    before = index.unsettled(connection, job.id)
    folders = _folders(one.directory)
    place = os.path.join(one.directory, records.TASK_FOLDER)  # noqa: PTH118 a Path for each of thousands takes too long
    views = dict(view.tasks) if view else {}
    waiting = _Waiting(view)
    patience = _patience(one)
    whole_job_ended = view is not None and view.known and view.state in records.FINAL_STATES
    numbers = range(job.tasks) if whole_job_ended else sorted({*folders, *views, *before})
    cancelled = _cancelled(one.directory)
    rows: list[Row] = []
    for number in numbers:
        if number in settled or not 0 <= number < job.tasks:
            continue
        word = views.get(number) or waiting.word(number)
        earlier = before.get(number)
        if word is None and earlier is not None and earlier["state"] in records.FINAL_STATES and not _is_overdue(earlier, now):
            continue  # it has ended, and its scheduler has not yet accounted for it
        word = _since_first_missed(word, earlier)
        stopped = cancelled is not None and (cancelled.tasks is None or number in cancelled.tasks)
        seen = _seen(
            f"{place}/{number}" if number in folders else None, Seen(number, now, view=word, patience=patience, cancelled=stopped)
        )
        state = observe.task_state(seen, view, observe.seconds(one.submission.submitted))
        if state is None or (view is None and not state.final and earlier is not None):
            continue  # nothing new, or nobody to ask who knows better than the index
        row = observe.task_row(job, one.submission.submitted, seen, state)
        if earlier is not None and (word is None or word.facts is None):
            row |= {name: earlier[name] for name in observe.SCHEDULER_COLUMNS if earlier.get(name) is not None}
        if row != earlier:
            rows.append(row)
    return Change(_row(one, view, now), rows)


def _since_first_missed(word: schedulers.TaskView | None, earlier: Mapping[str, Any] | None) -> schedulers.TaskView | None:
    """Let a task that ended without ever starting have ended when that was first seen."""
    if word is None or earlier is None or word.started is not None or word.state not in records.FINAL_STATES:
        return word
    return dataclasses.replace(word, ended=earlier["ended"]) if earlier["state"] == word.state and earlier["ended"] else word


@dataclass(frozen=True)
class _Waiting:
    """What a scheduler says of the tasks that wait, without one record for each."""

    view: schedulers.JobView | None

    def word(self, number: int) -> schedulers.TaskView | None:
        if self.view is None or not any(number in span for span in self.view.waiting):
            return None
        return schedulers.TaskView(QUEUED, self.view.scheduler_state, self.view.reason, as_of=self.view.as_of)


def _patience(one: _Open) -> observe.Patience:
    if not one.own:
        return observe.Patience()
    try:
        return observe.Patience.with_(scheduler_of(one.job, one.submission).capabilities)
    except LossiError:
        return observe.Patience()


def _is_overdue(task: Mapping[str, Any], now: float) -> bool:
    ended = observe.seconds(task["ended"])
    return ended is None or now - ended >= observe.FACTS_PATIENCE_S


def _cancelled(directory: Path) -> CancelRequest | None:
    return records.load_optional(CancelRequest, directory / records.CANCEL)


def _row(one: _Open, view: schedulers.JobView | None, now: float) -> Row:
    state, word, reason = QUEUED, "", ""
    if view is not None:
        word = view.scheduler_state
        submitted = observe.seconds(one.submission.submitted) or 0.0
        if not view.known and now - submitted >= observe.LAG_S:
            state, reason = UNKNOWN, observe.FORGOTTEN
        elif view.state in (QUEUED, UNKNOWN):
            reason = view.reason
    return index.job_row(one.job, one.submission, state, word, reason, view.expected_start if view is not None else None)


def _folders(directory: Path) -> set[int]:
    """Return the tasks that have a folder: those that have started."""
    try:
        return {int(name) for name in os.listdir(directory / records.TASK_FOLDER) if name.isdecimal()}  # noqa: PTH208 only names
    except OSError:
        return set()


def _seen(folder: str | None, said: Seen) -> Seen:
    """Return what is known of a task: what its scheduler said, and what lies in its folder; None: it has none."""
    if folder is None:
        return said
    left = _left(records.TaskExit, folder, records.EXIT)
    if left is not None:
        ending = _left(records.Ending, folder, records.ENDING) if left.written_by != "runner" else None
        return dataclasses.replace(said, exit=left, ending=ending, started_folder=said.now)
    progress = _left(records.Progress, folder, records.PROGRESS) if said.view is None else None
    try:
        changed = os.stat(folder).st_mtime  # noqa: PTH116 a Path for each of thousands takes too long
    except OSError:
        changed = said.now
    return Seen(said.task, said.now, None, None, progress, changed, said.view, said.patience, said.cancelled)


def _left(kind: type[R], folder: str, name: str) -> R | None:
    """Return a record that a task left; None where it has not (yet)."""
    path = f"{folder}/{name}"
    return records.load_optional(kind, Path(path)) if os.path.lexists(path) else None


def _gone(connection: sqlite3.Connection, job_id: str) -> Change:
    """Return the change for an open job whose directory is no longer there: what had not ended is unknown."""
    row = connection.execute(f"SELECT {', '.join(index.JOB_COLUMNS)} FROM jobs WHERE id = ?", (job_id,)).fetchone()  # noqa: S608
    job = {**dict(row), "state": UNKNOWN, "reason": GONE}
    open_tasks = [task for task in index.unsettled(connection, job_id).values() if task["reason"] != GONE]
    return Change(job, [{**task, "state": UNKNOWN, "reason": GONE} for task in open_tasks])


def _is_known(connection: sqlite3.Connection, job: Row) -> bool:
    """Return whether the index says the same of a job already (what follows from its tasks aside)."""
    row = connection.execute(f"SELECT {', '.join(index.JOB_COLUMNS)} FROM jobs WHERE id = ?", (job["id"],)).fetchone()  # noqa: S608
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
    return index.unreadable_row(directory.name, observe.utc(ulid.moment(directory.name)), owner, reason)


def handle(
    job: PreparedJob, directory: Path, submission: SubmissionRecord, *, settled: Collection[int] = frozenset()
) -> schedulers.Handle:
    """Return how a scheduler is asked about a job."""
    submitted = observe.seconds(submission.submitted)
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

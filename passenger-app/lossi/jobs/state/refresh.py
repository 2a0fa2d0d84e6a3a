"""Brings the index up to date: which jobs are open, and what schedulers and job directories say of them.

One question per scheduler whatever the number of jobs; exit records are read only of tasks that are not settled yet; everything is
read before the one short transaction that writes. Touches ``.lossi/jobs`` and ``.lossi/lossi.db``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pwd
import sqlite3
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lossi.contract import records
from lossi.contract.records import PreparedJob, SubmissionRecord
from lossi.contract.states import FAILED, QUEUED, UNKNOWN, has_ended
from lossi.errors import LossiError
from lossi.jobs import schedulers, times, ulid
from lossi.jobs.schedulers import JobView, TaskView
from lossi.jobs.state import job_directory, reconcile as reconciliation, table
from lossi.jobs.state.job_directory import job_ids, read_spec, read_submission, write_submission
from lossi.jobs.state.reconcile import Patience, Row, TaskFolder
from lossi.jobs.state.table import Change
from lossi.jobs.submit import preparer
from lossi.jobs.submit.prepare import remove_left_behind
from lossi.projects import Project, index as store

NEVER_SUBMITTED = "was prepared but never submitted"
GONE = "its directory is gone: removed, or purged by the filesystem's policy"


@dataclass(frozen=True)
class OpenJob:
    """A job that may have changed: what was prepared, what the scheduler accepted, and whether this user's scheduler knows it."""

    job: PreparedJob
    directory: Path
    submission: SubmissionRecord
    own: bool


@dataclass(frozen=True)
class Changes:
    """What has changed in a project since its index was written.

    Attributes
    ----------
    jobs
        What to write.
    stale
        Not empty: why some of it may be old.
    left_behind
        Names of directories in which a job was once being prepared.
    """

    jobs: list[Change]
    stale: str = ""
    left_behind: list[str] = field(default_factory=list)


def refresh(project: Project, *, again: Sequence[str] = ()) -> str:
    """Bring the index up to date and return why something in it may be old, or an empty text.

    Parameters
    ----------
    project
        Where.
    again
        Jobs to check even if they have ended in the index.

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
    """Find out what became of jobs whose submitter died before it finished, and remove what was left behind.

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
            connection = stack.enter_context(table.private_copy(project, job_id))
            changes = find_changes(project, connection)
            table.apply(connection, changes.jobs)
            stale = changes.stale
        yield connection, stale


def _refresh(project: Project, again: Sequence[str]) -> str:
    with store.reading(project) as connection:
        changes = find_changes(project, connection, again=again)
    remove_left_behind(project, changes.left_behind)
    if changes.jobs:
        with store.writing(project) as connection:
            table.apply(connection, changes.jobs)
        project.share(project.index)
    return changes.stale


def find_changes(project: Project, connection: sqlite3.Connection, *, again: Sequence[str] = ()) -> Changes:
    """Return what has changed since the index was written; writes only ``submission.json`` of jobs that a scheduler has."""
    present, left_behind = job_directory.scan(project)
    known: dict[str, str] = dict(connection.execute("SELECT id, state FROM jobs").fetchall())
    unsettled = {row[0] for row in connection.execute("SELECT DISTINCT job_id FROM tasks WHERE final = 0")}
    changes: list[Change] = []
    open_jobs: list[OpenJob] = []
    stale: list[str] = []
    for job_id in present:
        if has_ended(known.get(job_id, UNKNOWN)) and job_id not in unsettled and job_id not in again:
            continue
        opened = _open(project, job_id, known, stale)
        if isinstance(opened, OpenJob):
            open_jobs.append(opened)
        elif opened is not None:
            changes.append(Change(opened))
    views = _poll(connection, [job for job in open_jobs if job.own], stale)
    changes += [_change(connection, job, views.get(job.job.id)) for job in open_jobs]
    changes += [_gone(connection, job_id) for job_id in sorted(known.keys() - set(present)) if not has_ended(known[job_id])]
    new = [change for change in changes if change.tasks or not _is_known(connection, change.job)]
    return Changes(new, "; ".join(dict.fromkeys(stale)), left_behind)


def _open(project: Project, job_id: str, known: dict[str, str], stale: list[str]) -> OpenJob | Row | None:
    """Return a job to ask about, the row of one about which there is nothing to ask, or None to leave it as it is."""
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
        settled = _settle(job, directory, own, stale)
        if not isinstance(settled, SubmissionRecord):
            return settled
        submission = settled
    return OpenJob(job, directory, submission, own)


def _settle(job: PreparedJob, directory: Path, own: bool, stale: list[str]) -> SubmissionRecord | Row:
    """Find out what became of a job between preparing and submitting."""
    if preparer.at_work(directory) or not own:
        return table.job_row(job, None, QUEUED, "", "it is being submitted")
    try:
        submission = scheduler_of(job, None).find(job.id)
    except LossiError as error:
        stale.append(str(error))
        return table.job_row(job, None, QUEUED, "", "whether it was submitted is not known yet")
    submission = submission or read_submission(directory)  # the submitter may have finished meanwhile
    if submission is None:
        return table.job_row(job, None, FAILED, "", NEVER_SUBMITTED)
    with contextlib.suppress(LossiError):
        write_submission(directory, submission)
    return submission


def _poll(connection: sqlite3.Connection, jobs: Sequence[OpenJob], stale: list[str]) -> dict[str, JobView]:
    """Ask each scheduler once about all its jobs."""
    by_scheduler: dict[tuple[str, str | None], list[schedulers.Handle]] = {}
    for opened in jobs:
        job_handle = handle(opened.job, opened.directory, opened.submission, settled=table.settled(connection, opened.job.id))
        by_scheduler.setdefault((opened.submission.scheduler, opened.submission.cluster), []).append(job_handle)
    views: dict[str, JobView] = {}
    for (name, cluster), handles in by_scheduler.items():
        try:
            views |= schedulers.of_record(name, cluster).poll(handles)
        except LossiError as error:
            stale.append(str(error))
    stale += sorted({view.stale for view in views.values() if view.stale})
    return views


def _patience(opened: OpenJob) -> Patience:
    if opened.own:
        with contextlib.suppress(LossiError):
            return Patience.with_(scheduler_of(opened.job, opened.submission).capabilities)
    return Patience()


def _change(connection: sqlite3.Connection, opened: OpenJob, view: JobView | None) -> Change:
    """Return a job's row and the rows of its tasks that differ from those in the index; ``view`` None: nobody could be asked."""
    job, now = opened.job, time.time()
    settled = table.settled(connection, job.id)
    before = table.unsettled(connection, job.id)
    started = job_directory.started_tasks(opened.directory)
    place = os.path.join(opened.directory, records.TASK_FOLDER)  # noqa: PTH118 a Path for each of thousands takes too long
    views = dict(view.tasks) if view else {}
    whole_job_ended = view is not None and view.known and has_ended(view.state)
    numbers = range(job.tasks) if whole_job_ended else sorted({*started, *views, *before})
    cancellation = job_directory.read_cancellation(opened.directory)
    submitted, patience = opened.submission.submitted, _patience(opened)
    rows: list[Row] = []
    for number in numbers:
        if number in settled or not 0 <= number < job.tasks:
            continue
        task_view = views.get(number) or _waiting(view, number)
        earlier = before.get(number)
        if task_view is None and earlier is not None and has_ended(earlier["state"]) and not _is_overdue(earlier, now):
            continue  # it has ended, and its scheduler has not yet accounted for it
        task_view = _since_first_missed(task_view, earlier)
        folder = TaskFolder(cancelled=cancellation is not None and (cancellation.tasks is None or number in cancellation.tasks))
        if number in started:
            path = f"{place}/{number}"
            folder = job_directory.read_task(path, now, cancelled=folder.cancelled, with_progress=task_view is None)
        state = reconciliation.task_state(folder, task_view, view, now=now, submitted=times.seconds(submitted), patience=patience)
        if state is None or (view is None and not state["final"] and earlier is not None):
            continue  # nothing new, or nobody to ask who knows better than the index
        row = reconciliation.task_row(job, number, submitted, folder, task_view, state)
        if earlier is not None and (task_view is None or not task_view.facts):
            row |= {name: earlier[name] for name in reconciliation.KEPT if earlier.get(name) is not None}
        if row != earlier:
            rows.append(row)
    return Change(_job_row(opened, view, now), rows)


def _waiting(view: JobView | None, number: int) -> TaskView | None:
    """Return the view of a task that waits; the scheduler has no record of its own for each of those."""
    if view is None or not any(number in span for span in view.waiting):
        return None
    return TaskView(QUEUED, view.scheduler_state, view.reason, as_of=view.as_of)


def _since_first_missed(view: TaskView | None, earlier: Mapping[str, Any] | None) -> TaskView | None:
    """Let a task that ended without ever starting have ended when that was first seen."""
    if view is None or earlier is None or view.started is not None or not has_ended(view.state):
        return view
    return dataclasses.replace(view, ended=earlier["ended"]) if earlier["state"] == view.state and earlier["ended"] else view


def _is_overdue(task: Mapping[str, Any], now: float) -> bool:
    ended = times.seconds(task["ended"])
    return ended is None or now - ended >= reconciliation.FACTS_PATIENCE_S


def _job_row(opened: OpenJob, view: JobView | None, now: float) -> Row:
    if view is None:
        return table.job_row(opened.job, opened.submission, QUEUED, "", "")
    state, reason = QUEUED, ""
    if not view.known and now - (times.seconds(opened.submission.submitted) or 0.0) >= reconciliation.LAG_S:
        state, reason = UNKNOWN, schedulers.FORGOTTEN
    elif view.state in (QUEUED, UNKNOWN):
        reason = view.reason
    return table.job_row(opened.job, opened.submission, state, view.scheduler_state, reason, view.expected_start)


def scheduler_of(job: PreparedJob, submission: SubmissionRecord | None) -> schedulers.Scheduler:
    """Return the scheduler that a job was or will be submitted to.

    Raises
    ------
    LossiError
        When it is not known here.
    """
    if submission is not None:
        return schedulers.of_record(submission.scheduler, submission.cluster)
    return schedulers.of_record(job.request.get("scheduler"), job.request.get("cluster"))


def _gone(connection: sqlite3.Connection, job_id: str) -> Change:
    """Return the change for an open job whose directory is no longer there: what has not ended is unknown."""
    row = connection.execute(f"SELECT {', '.join(table.JOB_COLUMNS)} FROM jobs WHERE id = ?", (job_id,)).fetchone()  # noqa: S608
    job = {**dict(row), "state": UNKNOWN, "reason": GONE}
    open_tasks = [task for task in table.unsettled(connection, job_id).values() if task["reason"] != GONE]
    return Change(job, [{**task, "state": UNKNOWN, "reason": GONE} for task in open_tasks])


def _is_known(connection: sqlite3.Connection, job: Row) -> bool:
    """Return whether the index says the same of a job already, apart from what follows from its tasks."""
    row = connection.execute(f"SELECT {', '.join(table.JOB_COLUMNS)} FROM jobs WHERE id = ?", (job["id"],)).fetchone()  # noqa: S608
    if row is None:
        return False
    follows = ("state", "reason") if job["state"] == QUEUED else ()
    same = all(row[column] == value for column, value in job.items() if column not in follows)
    # A job without task rows has the reason that the scheduler gives.
    return same and (not follows or row["state"] != QUEUED or row["reason"] == job["reason"])


def _unreadable(directory: Path, reason: str) -> Row:
    owner = ""
    with contextlib.suppress(OSError, KeyError):
        owner = pwd.getpwuid(directory.stat().st_uid).pw_name
    return table.unreadable_row(directory.name, times.utc(ulid.moment(directory.name)), owner, reason)


def handle(
    job: PreparedJob, directory: Path, submission: SubmissionRecord, *, settled: Collection[int] = frozenset()
) -> schedulers.Handle:
    """Return what a scheduler needs to be asked about a job."""
    submitted = times.seconds(submission.submitted)
    return schedulers.Handle(job.id, submission.scheduler_id, directory, job.tasks, submitted, settled)

"""What a look at one open job changes in the index: the scheduler's word on its tasks held against what lies in its directory.

Reads the job directory and the index, writes nothing. `observe` decides; here is only what it needs to see.
"""

from __future__ import annotations

import dataclasses
import os
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from lossi.contract import records
from lossi.contract.records import CancelRequest, PreparedJob, SubmissionRecord
from lossi.contract.states import QUEUED, UNKNOWN, has_ended
from lossi.jobs import schedulers, times
from lossi.jobs.state import reconcile, table
from lossi.jobs.state.reconcile import Row, Seen
from lossi.jobs.state.table import Change

R = TypeVar("R")


@dataclass(frozen=True)
class OpenJob:
    """A job to look at: what was prepared, what the scheduler accepted, and whether this user's scheduler can be asked."""

    job: PreparedJob
    directory: Path
    submission: SubmissionRecord
    own: bool


def found(connection: sqlite3.Connection, one: OpenJob, view: schedulers.JobView | None, patience: reconcile.Patience) -> Change:
    """Return the job's row and the rows of its tasks that differ from those in the index.

    Parameters
    ----------
    connection
        The index.
    one
        The job.
    view
        The scheduler's word; None when it could not be asked.
    patience
        What may be late, and how late.
    """
    job, now = one.job, time.time()
    settled = table.settled(connection, job.id)
    before = table.unsettled(connection, job.id)
    folders = _folders(one.directory)
    place = os.path.join(one.directory, records.TASK_FOLDER)  # noqa: PTH118 a Path for each of thousands takes too long
    views = dict(view.tasks) if view else {}
    waiting = _Waiting(view)
    whole_job_ended = view is not None and view.known and has_ended(view.state)
    numbers = range(job.tasks) if whole_job_ended else sorted({*folders, *views, *before})
    cancelled = _cancelled(one.directory)
    rows: list[Row] = []
    for number in numbers:
        if number in settled or not 0 <= number < job.tasks:
            continue
        word = views.get(number) or waiting.word(number)
        earlier = before.get(number)
        if word is None and earlier is not None and has_ended(earlier["state"]) and not _is_overdue(earlier, now):
            continue  # it has ended, and its scheduler has not yet accounted for it
        word = _since_first_missed(word, earlier)
        stopped = cancelled is not None and (cancelled.tasks is None or number in cancelled.tasks)
        seen = _seen(
            f"{place}/{number}" if number in folders else None, Seen(number, now, view=word, patience=patience, cancelled=stopped)
        )
        state = reconcile.task_state(seen, view, times.seconds(one.submission.submitted))
        if state is None or (view is None and not state.final and earlier is not None):
            continue  # nothing new, or nobody to ask who knows better than the index
        row = reconcile.task_row(job, one.submission.submitted, seen, state)
        if earlier is not None and (word is None or not word.facts):
            row |= {name: earlier[name] for name in reconcile.KEPT if earlier.get(name) is not None}
        if row != earlier:
            rows.append(row)
    return Change(_row(one, view, now), rows)


def _since_first_missed(word: schedulers.TaskView | None, earlier: Mapping[str, Any] | None) -> schedulers.TaskView | None:
    """Let a task that ended without ever starting have ended when that was first seen."""
    if word is None or earlier is None or word.started is not None or not has_ended(word.state):
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


def _is_overdue(task: Mapping[str, Any], now: float) -> bool:
    ended = times.seconds(task["ended"])
    return ended is None or now - ended >= reconcile.FACTS_PATIENCE_S


def _cancelled(directory: Path) -> CancelRequest | None:
    return records.load_optional(CancelRequest, directory / records.CANCEL)


def _row(one: OpenJob, view: schedulers.JobView | None, now: float) -> Row:
    state, word, reason = QUEUED, "", ""
    if view is not None:
        word = view.scheduler_state
        submitted = times.seconds(one.submission.submitted) or 0.0
        if not view.known and now - submitted >= reconcile.LAG_S:
            state, reason = UNKNOWN, schedulers.FORGOTTEN
        elif view.state in (QUEUED, UNKNOWN):
            reason = view.reason
    return table.job_row(one.job, one.submission, state, word, reason, view.expected_start if view is not None else None)


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

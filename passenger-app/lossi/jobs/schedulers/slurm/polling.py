"""One job of a poll: from the queue and the accounting to its `JobView`. Reads the job directory, asks nobody."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from lossi.contract import records
from lossi.contract.records import CancelRequest
from lossi.contract.states import CANCELLED, FINAL_STATES, QUEUED, RUNNING, UNKNOWN, has_ended
from lossi.jobs.schedulers.base import FORGOTTEN, Handle, JobView, TaskView
from lossi.jobs.schedulers.slurm import accounts, array_chunks, queue_view
from lossi.jobs.schedulers.slurm.array_chunks import ArrayChunk
from lossi.jobs.schedulers.slurm.records import AccountingRow, QueueRow
from lossi.jobs.times import seconds, utc

LAG_S = 30.0
"""How long the database may not know a job that left the queue, and the queue one that was just accepted."""


@dataclass(frozen=True)
class Poll:
    """What is the same for all jobs of a poll.

    Attributes
    ----------
    as_of
        When the queue was read, in seconds since the epoch.
    database
        Whether a database keeps what has left the queue.
    exit_grace_s
        How late files of the nodes may become visible.
    units_per_gpu
        Units of the scheduler that are one card, by GPU type.
    """

    as_of: float
    database: bool
    exit_grace_s: float
    units_per_gpu: Callable[[str | None], int]


class PolledJob:
    """A job, what the queue knows of it, and the tasks that it does not know."""

    def __init__(self, handle: Handle, rows: Mapping[int, Sequence[QueueRow]], poll: Poll) -> None:
        self.handle = handle
        self.poll = poll
        self.chunks = array_chunks.parse(handle.scheduler_id, handle.tasks)
        self.queue = queue_view.of_queue(rows, self.chunks, poll.as_of)

    @property
    def submitted(self) -> float:
        """When it was submitted, in seconds since the epoch; 0: not known."""
        return self.handle.submitted or 0.0

    @cached_property
    def absent(self) -> dict[ArrayChunk, list[int]]:
        """The job's numbers of tasks that have left the queue and are not settled, by chunk."""
        if self.poll.as_of < self.submitted:
            return {}  # the queue is older than the job
        absent = {chunk: self.queue.absent(chunk, self.handle.settled) for chunk in self.chunks}
        return {chunk: numbers for chunk, numbers in absent.items() if numbers}

    def view(self, rows: Iterable[AccountingRow], *, asked: bool, stale: str) -> JobView:
        """Return what the queue and the accounting say.

        Parameters
        ----------
        rows
            Accounting of any jobs.
        asked
            Whether the accounting was asked about this job.
        stale
            See `JobView.stale`.
        """
        handle, queue, as_of = self.handle, self.queue, self.poll.as_of
        slurm_ids = {chunk.slurm_id for chunk in self.absent}
        accounted = [row for row in rows if row.job_id in slurm_ids]
        tasks = {**queue.tasks, **self._ended(accounted)}
        if asked or not self.poll.database:
            tasks.update(self._never_started(tasks))
        if not self.poll.database:
            tasks.update(self._forgotten(tasks))
        just_submitted = as_of < self.submitted
        live = {view.state for view in tasks.values()} - FINAL_STATES
        young = as_of < self.submitted + LAG_S
        known = bool(tasks or queue.waiting or accounted or handle.settled or young or not asked)
        if live - {QUEUED}:
            state = RUNNING
        elif live or queue.waiting or just_submitted:
            state = QUEUED
        else:
            state = UNKNOWN  # nothing is known of tasks that are neither in the queue nor accounted for
        return JobView(
            known,
            state,
            queue.scheduler_state,
            reason="it was just submitted" if just_submitted else queue.reason,
            tasks=tasks,
            waiting=[range(handle.tasks)] if just_submitted else queue.waiting,
            as_of=as_of,
            stale=stale,
            expected_start=queue.expected_start,
        )

    def _ended(self, rows: Sequence[AccountingRow]) -> dict[int, TaskView]:
        """Return the tasks that have ended by the accounting.

        The database lags behind: a task that has left the queue is not running, whatever the database still says.
        """
        tasks = {}
        for number, attempts in queue_view.of_accounting(rows, self.chunks).items():
            if number not in self.queue.tasks and number not in self.handle.settled:
                view = accounts.view(attempts, units_per_gpu=self.poll.units_per_gpu)
                if view.state == CANCELLED and view.started is None and view.reason:
                    view = dataclasses.replace(view, reason=f"{view.reason} before it started")
                if has_ended(view.state):
                    tasks[number] = view
        return tasks

    def _never_started(self, known: Mapping[int, TaskView]) -> dict[int, TaskView]:
        """Return the array tasks that were cancelled one by one while they waited: Slurm keeps no record of them.

        If Lossi did it, ``cancel.json`` says who. Otherwise it follows from Slurm knowing the rest of the array; then it is not
        final yet.
        """
        as_of = self.poll.as_of
        missing = {number for number in self._unknown(known) if not self._exists(number)}
        request = records.load_optional(CancelRequest, self.handle.directory / records.CANCEL)
        if request is None:
            others = known or self.queue.waiting or self.handle.settled
            if not others or not self.poll.database or as_of < self.submitted + LAG_S:
                return {}
            reason = "it was taken out of the queue before it started"
            return dict.fromkeys(missing, TaskView(CANCELLED, reason=reason, ended=utc(as_of), as_of=as_of))
        if as_of < (seconds(request.requested) or as_of) + self.poll.exit_grace_s:
            return {}
        view = TaskView(
            CANCELLED,
            "CANCELLED",
            f"cancelled by {request.user} before it started",
            ended=request.requested,
            facts={"elapsed_s": 0.0},
            accounted=True,
        )
        return dict.fromkeys(missing if request.tasks is None else missing.intersection(request.tasks), view)

    def _forgotten(self, known: Mapping[int, TaskView]) -> dict[int, TaskView]:
        """Return the tasks that the queue has dropped and that left no exit record."""
        view = TaskView(UNKNOWN, reason=FORGOTTEN)
        return {number: view for number in self._unknown(known) if not self._exists(number, records.EXIT)}

    def _unknown(self, known: Mapping[int, TaskView]) -> list[int]:
        return [number for numbers in self.absent.values() for number in numbers if number not in known]

    def _exists(self, number: int, *names: str) -> bool:
        return self.handle.directory.joinpath(records.TASK_FOLDER, str(number), *names).exists()


def is_readable(handle: Handle) -> bool:
    """Return whether the scheduler's id in the submission record can be read."""
    try:
        return bool(array_chunks.parse(handle.scheduler_id, handle.tasks))
    except ValueError:
        return False

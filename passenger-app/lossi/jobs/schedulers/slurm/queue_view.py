"""From Slurm's answers about all jobs of a user to one job of Lossi. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from lossi.contract.states import QUEUED, RUNNING, has_ended
from lossi.jobs.schedulers.base import TaskView
from lossi.jobs.schedulers.slurm import accounts, states
from lossi.jobs.schedulers.slurm.array_chunks import ArrayChunk
from lossi.jobs.schedulers.slurm.records import AccountingRow, QueueRow


@dataclass
class QueueView:
    """What the queue knows of a job.

    Attributes
    ----------
    tasks
        Tasks that have started, ended or were started again, by number.
    waiting
        Numbers of those that have not started.
    reason, expected_start
        Of the waiting ones.
    """

    tasks: dict[int, TaskView] = field(default_factory=dict)
    waiting: list[range] = field(default_factory=list)
    scheduler_state: str = ""
    reason: str = ""
    expected_start: str | None = None

    def absent(self, chunk: ArrayChunk, settled: Collection[int]) -> list[int]:
        """Return the tasks of a chunk that are neither in the queue nor settled."""
        numbers = chunk.numbers
        if any(span.step == 1 and span.start <= numbers.start and numbers.stop <= span.stop for span in self.waiting):
            return []  # the whole array waits
        waiting = {number for span in self.waiting for number in span}
        return [number for number in numbers if number not in waiting and number not in self.tasks and number not in settled]

    def add(self, chunk: ArrayChunk, row: QueueRow, as_of: float) -> None:
        """Add a row of the queue that is about a chunk."""
        spans = [chunk.numbers] if row.tasks is None else [_shifted(span, chunk.offset) for span in row.tasks]
        state = states.state_of(row.state)
        if state == QUEUED:
            self.scheduler_state, self.reason = row.state, row.reason or self.reason
            self.expected_start = min(filter(None, (self.expected_start, row.started)), default=None)
            if not row.restarts:
                self.waiting += spans
                return
        elif state == RUNNING and not self.scheduler_state:
            self.scheduler_state = row.state
        ended = has_ended(state)
        view = TaskView(
            state,
            row.state,
            reason=row.reason if state == QUEUED else "",
            exit_code=row.exit_code if ended else None,
            signal=row.signal if ended else None,
            host=row.node_list or None,
            started=None if state == QUEUED else row.started,
            ended=row.ended if ended else None,
            as_of=as_of,
            restarts=row.restarts,
            facts=accounts.live_facts(row),
        )
        self.tasks.update((number, view) for span in spans for number in span)


def of_queue(rows: Mapping[int, Sequence[QueueRow]], chunks: Sequence[ArrayChunk], as_of: float) -> QueueView:
    """Return what the rows of the queue, by Slurm's id of the job, say about a job's chunks."""
    view = QueueView()
    for chunk in chunks:
        # A row without task numbers is what is left of a cancelled array: rows with numbers know better.
        for row in sorted(rows.get(chunk.slurm_id, ()), key=lambda row: row.tasks is not None):
            view.add(chunk, row, as_of)
    return view


def of_accounting(rows: Sequence[AccountingRow], chunks: Sequence[ArrayChunk]) -> dict[int, list[AccountingRow]]:
    """Return the attempts of each task, by its number."""
    by_id = {chunk.slurm_id: chunk for chunk in chunks}
    attempts: dict[int, list[AccountingRow]] = {}
    others: list[tuple[AccountingRow, ArrayChunk]] = []
    for row in rows:
        chunk = by_id.get(row.job_id)
        if chunk is None:
            continue
        if row.task is not None:
            attempts.setdefault(row.task + chunk.offset, []).append(row)
        else:
            others.append((row, chunk))
    # A row of several tasks is about those that never started, but still lists tasks that have a row of their own by now.
    # A row without numbers is a job without an array, or what is left of a cancelled array; if it has nodes, it is
    # the last task of an array whose numbers the database does not have yet.
    own = frozenset(attempts)
    for row, chunk in others:
        if not row.tasks and chunk.tasks > 1 and row.node_list:
            continue
        for span in (_shifted(span, chunk.offset) for span in row.tasks or (range(chunk.tasks),)):
            for number in span:
                if number not in own:
                    attempts.setdefault(number, []).append(row)
    return {number: accounts.in_order(rows) for number, rows in attempts.items()}


def _shifted(span: range, offset: int) -> range:
    return range(span.start + offset, span.stop + offset, span.step)

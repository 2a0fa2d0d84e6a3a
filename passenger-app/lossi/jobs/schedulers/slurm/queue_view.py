"""From what Slurm said of all jobs of a user to what it says of one job of ours. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from lossi.contract.states import QUEUED, RUNNING, has_ended
from lossi.jobs.schedulers.base import TaskView
from lossi.jobs.schedulers.slurm import accounts, states
from lossi.jobs.schedulers.slurm.array_chunks import Part
from lossi.jobs.schedulers.slurm.records import AccountingRow, QueueRow


@dataclass
class Sight:
    """What the queue says of a job.

    Attributes
    ----------
    tasks
        Tasks that the queue knows as started, ended or started again, by number.
    waiting
        Numbers of those that have not started.
    reason, expected_start
        Of the part that waits.
    """

    tasks: dict[int, TaskView] = field(default_factory=dict)
    waiting: list[range] = field(default_factory=list)
    word: str = ""
    reason: str = ""
    expected_start: str | None = None

    def absent(self, part: Part, settled: Collection[int]) -> list[int]:
        """Return the tasks of a part that the queue does not know and that are not settled."""
        numbers = range(part.offset, part.offset + part.tasks)
        if any(span.step == 1 and span.start <= numbers.start and numbers.stop <= span.stop for span in self.waiting):
            return []  # the whole array waits
        known = {number for span in self.waiting for number in span}
        return [number for number in numbers if number not in known and number not in self.tasks and number not in settled]


def of_queue(rows: Mapping[int, Sequence[QueueRow]], parts: Sequence[Part], as_of: float) -> Sight:
    """Return what the rows of the queue (by Slurm's id of the job) say of a job's parts."""
    sight = Sight()
    for part in parts:
        # A record without numbers is what is left of an array, once it was cancelled: those with numbers know better.
        for row in sorted(rows.get(part.slurm_id, ()), key=lambda row: row.tasks is not None):
            _take(sight, part, row, as_of)
    return sight


def _take(sight: Sight, part: Part, row: QueueRow, as_of: float) -> None:
    spans = [_whole(part)] if row.tasks is None else [_shifted(span, part.offset) for span in row.tasks]
    state = states.state_of(row.state)
    if state == QUEUED:
        sight.word, sight.reason = row.state, row.reason or sight.reason
        sight.expected_start = min(filter(None, (sight.expected_start, row.started)), default=None)
        if not row.restarts:
            sight.waiting += spans
            return
    elif state == RUNNING and not sight.word:
        sight.word = row.state
    view = TaskView(
        state,
        row.state,
        row.reason if state == QUEUED else "",
        row.exit_code if has_ended(state) else None,
        row.signal if has_ended(state) else None,
        row.node_list or None,
        None if state == QUEUED else row.started,
        row.ended if has_ended(state) else None,
        as_of,
        row.restarts,
        accounts.live_facts(row),
    )
    for span in spans:
        for number in span:
            sight.tasks[number] = view


def _shifted(span: range, offset: int) -> range:
    return range(span.start + offset, span.stop + offset, span.step)


def of_accounting(rows: Sequence[AccountingRow], parts: Sequence[Part]) -> dict[int, list[AccountingRow]]:
    """Return the attempts of each task, by its number."""
    by_id = {part.slurm_id: part for part in parts}
    attempts: dict[int, list[AccountingRow]] = {}
    rest: list[tuple[AccountingRow, Part]] = []
    for row in rows:
        part = by_id.get(row.job_id)
        if part is None:
            continue
        if row.task is not None:
            attempts.setdefault(row.task + part.offset, []).append(row)
        else:
            rest.append((row, part))
    # A record of several tasks is of those that never started, but goes on naming those that have by now a record of their own.
    # One without numbers is a job without an array, or what is left of an array that was cancelled; if it has nodes, it is
    # the last task of an array whose numbers the database does not have yet.
    own = frozenset(attempts)
    for row, part in rest:
        if not row.tasks and part.tasks > 1 and row.node_list:
            continue
        for span in (_shifted(span, part.offset) for span in row.tasks or (range(part.tasks),)):
            for number in span:
                if number not in own:
                    attempts.setdefault(number, []).append(row)
    return {number: accounts.in_order(found) for number, found in attempts.items()}


def _whole(part: Part) -> range:
    return range(part.offset, part.offset + part.tasks)

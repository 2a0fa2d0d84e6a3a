"""One job of the supervisor: which tasks wait, which run, what to stop.

Imported by the supervisor alone. Writes the job's journal.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from pathlib import Path

from lossi.contract import records
from lossi.contract.records import CancelRequest
from lossi.contract.states import CANCELLED
from lossi.jobs.schedulers.local.journal import NAME, History, Journal
from lossi.jobs.schedulers.local.queue import Entry
from lossi.jobs.schedulers.local.task import Task


class Job:
    """A job whose tasks have not all ended."""

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.folder = Path(entry.directory)
        self.journal = Journal(self.folder / NAME, entry.host)
        self.waiting: deque[int] = deque()
        self.running: dict[int, Task] = {}
        self.held_until = 0.0
        """Monotonic time before which no task is started, after a start failed."""
        self._request: CancelRequest | None = None
        self._seen: tuple[int, ...] | None = None

    @property
    def order(self) -> tuple[int, str]:
        """Place in the queue."""
        return self.entry.order, self.entry.job_id

    @property
    def over(self) -> bool:
        """Whether all tasks have ended."""
        return not self.waiting and not self.running

    @property
    def throttled(self) -> bool:
        """Whether its maximum number of tasks run."""
        return self.entry.max_parallel is not None and len(self.running) >= self.entry.max_parallel

    def load(self, boot_id: str, queue: Path) -> None:
        """Read the journal of an earlier supervisor, and adopt the tasks it left running.

        Raises
        ------
        OSError
            If the job directory does not exist or its journal cannot be read.
        """
        os.stat(self.folder)  # noqa: PTH116 - raises where exists() would be False
        history = History(self.journal.path)
        history.update()
        if (history.host, history.queue) != (self.entry.host, queue):
            self.journal.queued(self.entry.tasks, queue, self.entry.allocation)
        self.waiting = deque(task for task in range(self.entry.tasks) if task not in history.views)
        for number, begun in sorted(history.started.items()):
            task = Task(self.entry, number, begun, child=False)
            task.adopt(boot_id)
            self.running[number] = task

    def requeue(self, number: int, say: Callable[[str], None]) -> None:
        """Put a task that never ran back into the queue."""
        self.running.pop(number).close()
        self.journal.requeued(number)
        self.waiting = deque(sorted([*self.waiting, number]))
        self._apply_cancel(say)

    def look_for_cancel(self, say: Callable[[str], None]) -> None:
        """Read cancel.json if it is new, and act on it."""
        path = self.folder / records.CANCEL
        try:
            status = path.stat()
        except OSError:
            return
        version = (status.st_ino, status.st_mtime_ns, status.st_size)
        if version != self._seen:
            self._request = records.load_optional(CancelRequest, path)
            self._seen = version
            self._apply_cancel(say)

    def _apply_cancel(self, say: Callable[[str], None]) -> None:
        """Stop the requested tasks: waiting ones end at once, running ones are told to."""
        request = self._request
        if request is None:
            return
        numbers = None if request.tasks is None else set(request.tasks)
        reason = f"cancelled by {request.user}"
        doomed = [task for task in self.waiting if numbers is None or task in numbers]
        if doomed:
            self.journal.never_started(doomed, CANCELLED, f"{reason} before it started")
            self.waiting = deque(task for task in self.waiting if numbers is not None and task not in numbers)
        for number, task in self.running.items():
            if numbers is None or number in numbers:
                self.stop(task, CANCELLED, reason, say)

    def close_down(self, reason: str, say: Callable[[str], None]) -> None:
        """Stop all running tasks and cancel all waiting ones."""
        if self.waiting:
            self.journal.never_started(sorted(self.waiting), CANCELLED, f"{reason} before it started")
            self.waiting.clear()
        for task in self.running.values():
            self.stop(task, CANCELLED, reason, say)

    def stop(self, task: Task, state: str, reason: str, say: Callable[[str], None]) -> None:
        """Tell a running task to end."""
        if task.stop(state, reason, say) and task.ending is not None:
            self.journal.ending(task.number, state, reason)

    def settle(self, task: Task, say: Callable[[str], None]) -> None:
        """Record how a task ended."""
        end = task.settle(say)
        task.close()
        del self.running[task.number]
        self.journal.ended(task.number, end.state, end.exit_code, end.signal, end.reason)

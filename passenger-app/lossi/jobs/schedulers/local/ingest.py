"""Ingests finished results into the project's store: one child process at a time, rarely, at low priority.

The command comes from the queue's entry: this room knows nothing about tracking. A failure is only reported, because every
reader of the store ingests what is left.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable

from lossi.jobs.schedulers.local import task_processes
from lossi.jobs.schedulers.local.queue import Entry

INTERVAL_S = 3.0
"""Minimum time between two starts for one project while tasks run."""
NICE = 10
LIMIT_S = 900.0
"""Time after which a hanging child is killed."""


class Ingest:
    """The projects with new results, and the child that ingests them."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._wanted: dict[str, Entry] = {}
        self._last: dict[str, float] = {}
        self._started = 0.0
        self.pid: int | None = None

    @property
    def busy(self) -> bool:
        """Whether something is left to ingest."""
        return self.pid is not None or bool(self._wanted)

    def note(self, entry: Entry) -> None:
        """Note that a task of this job has ended."""
        if entry.ingest:
            self._wanted[entry.project] = entry

    def step(self, clock: float, *, quiet: bool) -> None:
        """Start a child if one is due; with ``quiet`` (no task runs) at once."""
        if self.pid is not None:
            if clock - self._started > LIMIT_S:
                with contextlib.suppress(OSError):
                    os.kill(self.pid, signal.SIGKILL)
            return
        for project, entry in self._wanted.items():
            if quiet or clock >= self._due(project):
                del self._wanted[project]
                self._start(entry, clock)
                return

    def due(self) -> float | None:
        """Return the monotonic time of the next start, None when none is planned or a child runs."""
        return min((self._due(project) for project in self._wanted), default=None) if self.pid is None else None

    def reaped(self, pid: int, status: int) -> bool:
        """Take note of a child's end; return whether it was this one."""
        if pid != self.pid:
            return False
        self.pid = None
        if status != 0:
            self._say(f"ingest ended with status {os.waitstatus_to_exitcode(status)}; the next reader ingests what is left")
        return True

    def _due(self, project: str) -> float:
        last = self._last.get(project)
        return 0.0 if last is None else last + INTERVAL_S

    def _start(self, entry: Entry, clock: float) -> None:
        self._last[entry.project] = self._started = clock
        try:
            self.pid = os.posix_spawn(
                entry.ingest[0],
                entry.ingest,
                entry.ingest_environment,
                file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)],  # its report; errors go to the log
                setsid=True,
                setsigmask=(),
                setsigdef=task_processes.DEFAULT_SIGNALS,
            )
            os.setpriority(os.PRIO_PROCESS, self.pid, NICE)
        except OSError as error:
            self._say(f"cannot start {entry.ingest[0]}: {error}")

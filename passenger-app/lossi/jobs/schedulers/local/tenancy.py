"""A supervisor inside a Slurm allocation: it shows signs of life, and ends with the allocation.

A supervisor is not a descendant of the submitter, so only sites that track processes with control groups end it themselves.
It therefore also watches the process that Slurm started.

Imported by the supervisor alone. Touches the times of journals, and SIGTERM of this process.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterable

from lossi import processes
from lossi.jobs.schedulers.local.job import Job
from lossi.jobs.schedulers.local.journal import BEAT_S
from lossi.jobs.schedulers.local.machine import Allocation


class Tenancy:
    """What a supervisor does in an allocation; nothing outside of one. Handles SIGTERM."""

    def __init__(self, here: Allocation | None) -> None:
        self._here = here
        self._over = False
        self._next_beat = 0.0
        self._owner = None if here is None or here.task_pid is None else processes.inspect(here.task_pid)
        if here is not None:
            # Slurm sends it to every process of an allocation that ends. Elsewhere tasks outlive their supervisor.
            signal.signal(signal.SIGTERM, self._end)

    def step(self, jobs: Iterable[Job], say: Callable[[str], None]) -> None:
        """Show a sign of life if due; after the end, stop running and cancel waiting tasks."""
        if self._here is None:
            return
        if time.monotonic() >= self._next_beat:
            self._next_beat = time.monotonic() + BEAT_S
            for job in jobs:
                job.journal.beat()
        if self._owner is not None and not processes.alive(self._owner.pid, self._owner.start):
            self._over = True
        if self._over:
            for job in jobs:
                job.close_down(f"the Slurm job {self._here.job_id}, in which it ran, has ended", say)

    def _end(self, number: int, frame: object) -> None:
        self._over = True

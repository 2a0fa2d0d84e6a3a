"""What of the machine running tasks use: whether there is room for another one, and which exceed their memory.

Imported by the supervisor alone. Reads /proc through `task_processes`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable

from lossi.contract.states import OUT_OF_MEMORY
from lossi.jobs.schedulers.local import task_processes
from lossi.jobs.schedulers.local.job import Job
from lossi.jobs.schedulers.local.machine import total_memory_mb
from lossi.jobs.schedulers.local.queue import Entry
from lossi.jobs.schedulers.local.task import Task

SAMPLE_S = 0.5
"""Interval of memory measurements; only tasks with a limit are measured."""
RUNAWAY = 1.5
"""A task told to stop that grows beyond this multiple of its memory limit gets no grace."""

clock = time.monotonic


class Capacity:
    """Slots, memory and GPUs of this machine."""

    def __init__(self, table: task_processes.Table) -> None:
        self.slots = 1
        self.next_sample = 0.0
        """Monotonic time of the next measurement."""
        self._memory_mb = total_memory_mb()
        self._table = table

    def gpus_for(self, entry: Entry, running: Collection[Task]) -> list[str] | None:
        """Return the GPUs for a job's next task, or None if there is no room for it."""
        if sum(min(task.entry.cpus, self.slots) for task in running) + min(entry.cpus, self.slots) > self.slots:
            return None
        held_mb = sum(task.entry.memory_mb or 0 for task in running)
        if entry.memory_mb and held_mb and held_mb + entry.memory_mb > self._memory_mb:
            return None
        taken = {gpu for task in running for gpu in task.begun.gpus}
        free = [gpu for gpu in entry.gpu_ids if gpu not in taken]
        return free[: entry.gpus] if len(free) >= entry.gpus else None

    def enforce_memory(self, jobs: Iterable[Job], say: Callable[[str], None]) -> None:
        """Measure running tasks if it is time, and stop those over their limit."""
        limited = [(job, task) for job in jobs if job.entry.memory_mb for task in job.running.values()]
        if not limited or clock() < self.next_sample:
            return
        self.next_sample = clock() + SAMPLE_S
        self._table.refresh(scans=1)
        for job, task in limited:
            limit = task.entry.memory_mb or 0
            members = self._table.members(task.member)
            if task_processes.resident_mb(members) <= limit:
                continue
            used = task_processes.held_mb(members)
            if used > limit:
                job.stop(task, OUT_OF_MEMORY, f"used {used:.0f} MiB of {limit} MiB", say)
            if used > limit * RUNAWAY and task.kill_at is not None:
                task.kill_at = clock()

"""What a task requested and used, and what to request next time. Memory in MiB and per node, times in seconds. Pure."""

from __future__ import annotations

import math

from lossi.contract.records import PreparedJob
from lossi.jobs.models import Task
from lossi.jobs.resources import MOST_MEMORY_MB, MOST_TIME_S

LEAST_MEMORY_MB = 256
LEAST_TIME_S = 60
MEMORY_FACTORS = (2.0, 1.5)
"""Of the request, of the peak use: the greater is suggested."""
TIME_FACTOR = 2.0
ESTIMATE_FACTOR = 1.25
CELLS_TO_ESTIMATE = 3
"""Cells that must have finished before their times say something about the others."""

_FINE_FROM_MB = 16 * 1024
"""Below it two steps per doubling (4, 6, 8, 12, 16 GiB), from there four (16, 20, 24, 28, 32 GiB)."""
_TIME_STEPS = ((600, 60), (3600, 300), (4 * 3600, 900), (86400, 3600), (math.inf, 6 * 3600))
"""Greatest time, and the step up to there."""


def finite(value: float | None) -> float | None:
    """Return a number that can be calculated with: None for None, NaN, infinity and negative numbers."""
    return None if value is None or not math.isfinite(value) or value < 0 else float(value)


def requested_memory(task: Task, job: PreparedJob) -> float | None:
    """Return the memory that a task had on each node; None if unknown."""
    requested = finite(job.resources.memory_mb)
    if requested:
        return requested
    allocated = finite(task.memory_mb)
    return allocated / max(task.nodes or job.resources.nodes, 1) if allocated else None


def used_memory(task: Task, job: PreparedJob) -> float | None:
    """Return the peak memory of a task, averaged over its nodes; None if unknown."""
    used = finite(task.max_rss_mb)
    return None if used is None else used / max(task.nodes or job.resources.nodes, 1)


def time_limit(task: Task, job: PreparedJob) -> float | None:
    """Return the time limit that the scheduler set, else the requested one; None if unknown."""
    return finite(task.time_limit_s) or finite(job.resources.time_limit_s) or None


def expected_time(task: Task) -> float | None:
    """Return how long the whole task would take, estimated from its finished cells; None if unknown."""
    progress = task.progress
    if progress is None or progress.cell <= CELLS_TO_ESTIMATE:
        return None
    left, gone = finite(progress.estimate_s), finite(progress.elapsed_s)
    return None if left is None or gone is None else gone + left


def more_memory(task: Task, job: PreparedJob) -> int | None:
    """Return the memory to request next time: twice the request, or half more than the peak use; None if neither is known."""
    amounts = zip(MEMORY_FACTORS, (requested_memory(task, job), used_memory(task, job)), strict=True)
    known = [factor * amount for factor, amount in amounts if amount]
    return round_memory(max(known)) if known else None


def more_time(task: Task, job: PreparedJob) -> int | None:
    """Return the time limit to request next time: estimated from finished cells, else twice as long; None if nothing is known."""
    limit = time_limit(task, job) or finite(task.elapsed_s)
    if not limit:
        return None
    expected = expected_time(task)
    if expected is not None and expected > limit:
        return round_time(ESTIMATE_FACTOR * expected)
    return round_time(TIME_FACTOR * limit)


def round_memory(mebibytes: float) -> int:
    """Return an amount rounded up to one that people would request, within what a job can request."""
    bounded = min(max(mebibytes, LEAST_MEMORY_MB), MOST_MEMORY_MB)
    power = 1 << math.floor(math.log2(bounded))
    step = power // (4 if power >= _FINE_FROM_MB else 2)
    return min(math.ceil(bounded / step) * step, MOST_MEMORY_MB)


def round_time(seconds: float) -> int:
    """Return a time limit rounded up to one that people would request, within what a job can request."""
    bounded = min(max(seconds, LEAST_TIME_S), MOST_TIME_S)
    step = next(step for most, step in _TIME_STEPS if bounded <= most)
    return min(math.ceil(bounded / step) * step, MOST_TIME_S)

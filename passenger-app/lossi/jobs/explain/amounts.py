"""Rounding of memory and time up to amounts that one would request. Pure."""

from __future__ import annotations

import math

from lossi.jobs.resources import MOST_MEMORY_MB, MOST_TIME_S

LEAST_MEMORY_MB = 256
LEAST_TIME_S = 60

_FINE_FROM_MB = 16 * 1024
"""Below it two steps per doubling (4, 6, 8, 12, 16 GiB), from there four (16, 20, 24, 28, 32 GiB)."""
_TIME_STEPS = ((600, 60), (3600, 300), (4 * 3600, 900), (86400, 3600), (math.inf, 6 * 3600))
"""Up to so many seconds, in steps of so many."""


def finite(value: float | None) -> float | None:
    """Return a number that can be calculated with: None for none, NaN, infinity and what is below zero."""
    return None if value is None or not math.isfinite(value) or value < 0 else float(value)


def round_memory(megabytes: float) -> int:
    """Return MiB, rounded up to an amount that one would ask for, within what a job can ask for."""
    wanted = min(max(megabytes, LEAST_MEMORY_MB), MOST_MEMORY_MB)
    power = 1 << math.floor(math.log2(wanted))
    step = power // (4 if power >= _FINE_FROM_MB else 2)
    return min(math.ceil(wanted / step) * step, MOST_MEMORY_MB)


def round_time(seconds: float) -> int:
    """Return seconds, rounded up to a time limit that one would ask for, within what a job can ask for."""
    wanted = min(max(seconds, LEAST_TIME_S), MOST_TIME_S)
    step = next(step for most, step in _TIME_STEPS if wanted <= most)
    return min(math.ceil(wanted / step) * step, MOST_TIME_S)

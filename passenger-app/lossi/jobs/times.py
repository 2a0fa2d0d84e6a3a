"""Times as index and answers hold them: ISO 8601 in UTC, so that text sorts by time. Pure."""

from __future__ import annotations

import datetime
import functools


def utc(moment: float) -> str:
    """Return ISO 8601 in UTC, to the millisecond, for seconds since the epoch."""
    return datetime.datetime.fromtimestamp(moment, datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@functools.lru_cache(maxsize=8192)  # thousands of tasks are read again and again, with the same times
def stamp(text: str | None) -> str | None:
    """Return a time as the index holds it; None for nothing or nonsense."""
    moment = seconds(text)
    return None if moment is None else utc(moment)


@functools.lru_cache(maxsize=8192)
def seconds(text: str | None) -> float | None:
    """Return seconds since the epoch for ISO 8601 in UTC, None for nothing or nonsense."""
    if not text:
        return None
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).timestamp()

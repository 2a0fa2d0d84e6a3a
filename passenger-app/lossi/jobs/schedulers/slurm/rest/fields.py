"""Parsers for single values of slurmrestd: plain in 22.05, as ``{"set": true, "infinite": false, "number": 5}`` later. Pure.

Unset and unlimited values are None: NO_VAL and INFINITE of its C types, 0 for a time, null, an empty text.
"""

from __future__ import annotations

import datetime
import pwd
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lossi.jobs.schedulers.slurm import states, values

_LEAST_SENTINEL = 2**32 - 4
"""NO_VAL, INFINITE and the like of 32 bits and more; no count, time or amount of MiB is as large (slurm/slurm.h)."""


def at(document: Any, *path: str) -> Any:
    """Return the value at a path in nested objects; None if there is none."""
    for name in path:
        document = document.get(name) if isinstance(document, Mapping) else None
    return document


def number(value: Any) -> int | None:
    """Return a whole number not below 0; None: unset or unlimited."""
    if isinstance(value, Mapping):
        value = value.get("number") if value.get("set") and not value.get("infinite") else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    count = int(value)
    return count if 0 <= count < _LEAST_SENTINEL else None


def positive(value: Any) -> int | None:
    """Return `number`, None also for 0, which means "no limit" here."""
    return number(value) or None


def minutes(value: Any) -> int | None:
    """Return seconds of a number of minutes."""
    whole = number(value)
    return None if whole is None else whole * 60


def moment(value: Any) -> str | None:
    """Return ISO 8601 in UTC with Z of seconds since the epoch."""
    since_epoch = positive(value)
    return (
        None if since_epoch is None else datetime.datetime.fromtimestamp(since_epoch, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    )


def epoch(text: str) -> int:
    """Return seconds since the epoch of ISO 8601.

    Raises
    ------
    ValueError
        For anything else.
    """
    moment = datetime.datetime.fromisoformat(text)
    return int((moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).timestamp())


def text(value: Any) -> str:
    """Return a text, empty if Slurm has none."""
    return values.text_of(value) if isinstance(value, str) else ""


def words(value: Any) -> tuple[str, ...]:
    """Return the words of a list, or of a text with commas."""
    items = value.split(",") if isinstance(value, str) else value if isinstance(value, Sequence) else ()
    return tuple(word.strip() for word in items if isinstance(word, str) and word.strip())


def names(value: Any) -> tuple[str, ...]:
    """Return `words`, empty if they mean everybody."""
    return () if text(value).upper() == "ALL" else words(value)


def state(value: Any) -> str:
    """Return Slurm's state of a job, from one word or a list of a base state and flags."""
    return states.word_of(",".join(words(value)))


def tres(value: Any) -> dict[str, int]:
    """Return trackable resources by name (``cpu``, ``mem`` in MiB, ``gres/gpu:a100``) of a list of them; a text is read too."""
    if isinstance(value, str):
        return values.limits(value)
    amounts: dict[str, int] = {}
    for item in value if isinstance(value, Sequence) else ():
        # Amounts have 64 bits; unset is null or one of the largest or (as signed) negative numbers.
        count = at(item, "count")
        if isinstance(count, int) and 0 <= count < 2**62:
            name = text(item.get("name"))
            amounts[f"{item.get('type')}/{name}" if name else str(item.get("type"))] = count
    return amounts


def seconds(value: Any) -> float:
    """Return seconds of ``{"seconds": 1, "microseconds": 500000}``."""
    return (number(at(value, "seconds")) or 0) + (number(at(value, "microseconds")) or 0) / 1e6


def tasks(value: Any) -> tuple[range, ...] | None:
    """Return the array tasks of ``0-9,20%5``, or of a hexadecimal bit mask; None: there are none.

    Of a list that Slurm cut short (``1,3,5-9...%4``), only the tasks that are certainly in it: the last number may be cut too.
    """
    if not isinstance(value, str) or not value.strip():
        return None
    listed = value.strip()
    if listed.lower().startswith("0x"):
        mask = int(listed, 16)
        return _spans(index for index, bit in enumerate(reversed(bin(mask)[2:])) if bit == "1")
    whole, cut, _ = listed.partition("...")
    if cut:
        whole = whole.lstrip("[").rpartition(",")[0]
    return values.ranges(whole) if whole else ()


def user_id(value: Any) -> int | None:
    """Return the uid of a user's name or of a uid in digits; None: there is none."""
    name = text(value)
    if name.isdigit():
        return int(name)
    try:
        return pwd.getpwnam(name).pw_uid if name else None
    except KeyError:
        return None


def _spans(indices: Iterable[int]) -> tuple[range, ...]:
    listed = values.ranges_text(indices)
    return values.ranges(listed) if listed else ()

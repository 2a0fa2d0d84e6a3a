"""Parsers for Slurm's numbers, times, resources and sets of array tasks. Pure.

Not `lossi.units`, which parses what users write: here a lone number can be seconds, and ``8Gn`` or ``UNLIMITED`` are values.

``N/A``, ``Unknown``, ``UNLIMITED``, ``(null)``… are None; what cannot be read is a ValueError.
"""

from __future__ import annotations

import datetime
import functools
import re
from collections.abc import Iterable, Mapping

_NOTHING = frozenset(
    {"", "n/a", "unknown", "none", "(null)", "null", "unlimited", "infinite", "not_set", "partition_limit", "invalid"}
)
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\Z")
_DURATION = re.compile(r"(?:(?P<days>\d+)-)?(?P<clock>\d+(?::\d+){0,2})(?P<part>\.\d+)?\Z")
_QUANTITY = re.compile(r"(?P<number>\d+(?:\.\d+)?)(?P<unit>[KMGTPE]?)(?:i?B)?[cn]?\Z", re.IGNORECASE)
_SPAN = re.compile(r"(?P<first>\d+)(?:-(?P<last>\d+)(?::(?P<step>\d+))?)?\Z")
_GRES = re.compile(r"(?:gres[:/])?gpu(?::(?P<kind>[^:=()]+?))?(?:[:=](?P<number>\d+))?(?:\(.*)?\Z")
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40, "P": 2**50, "E": 2**60}
_MIB = 2**20


def is_nothing(text: str) -> bool:
    """Return whether this means "not set" or "no limit"."""
    return text.strip().lower() in _NOTHING


def text_of(text: str) -> str:
    """Return a text, empty if Slurm has none."""
    return "" if text.strip().lower() in {"n/a", "(null)", "null", "none", "none assigned"} else text.strip()


@functools.lru_cache(maxsize=4096)  # the rows of an array have the same few
def utc_time(text: str) -> str | None:
    """Return ISO 8601 with Z for a time printed with TZ=UTC; None: not known.

    Raises
    ------
    ValueError
        For anything but a time.
    """
    if is_nothing(text):
        return None
    if not _TIME.match(text):
        raise ValueError(f"not a time: {text!r}")
    datetime.datetime.fromisoformat(text)  # refuses days that do not exist
    return f"{text}Z"


def seconds(text: str, *, lone: int = 1) -> float | None:
    """Return the seconds of ``[days-]hours:minutes:seconds`` and its shorter forms; None: not set or unlimited.

    ``lone`` is the unit of a number without colons, in seconds: 60 where Slurm means minutes.

    Raises
    ------
    ValueError
        For anything else.
    """
    if is_nothing(text):
        return None
    match = _DURATION.match(text.strip())
    if not match:
        raise ValueError(f"not a duration: {text!r}")
    numbers = [int(number) for number in match["clock"].split(":")]
    if match["days"] is not None:  # days-hours[:minutes[:seconds]]
        numbers += [0] * (3 - len(numbers))
        total = int(match["days"]) * 86400 + numbers[0] * 3600 + numbers[1] * 60 + numbers[2]
    elif len(numbers) == 1:
        total = numbers[0] * lone
    else:
        total = sum(number * 60**power for power, number in enumerate(reversed(numbers)))
    return total + float(match["part"] or 0)


@functools.lru_cache(maxsize=1024)
def whole_seconds(text: str, *, lone: int = 1) -> int | None:
    """Return `seconds` as a whole number."""
    total = seconds(text, lone=lone)
    return None if total is None else int(total)


@functools.lru_cache(maxsize=1024)
def number(text: str) -> int | None:
    """Return a whole number (the first of a span such as ``2-4``); None: not set.

    Raises
    ------
    ValueError
        For anything else.
    """
    return None if is_nothing(text) else int(text.strip().partition("-")[0])


def memory_mb(text: str, *, unit: str = "M") -> float | None:
    """Return MiB of ``2000M``, ``1.5G`` or a number in the given unit; None: not set.

    Raises
    ------
    ValueError
        For anything else.
    """
    if is_nothing(text):
        return None
    return _quantity(text, unit) / _MIB


def exit_code(text: str) -> tuple[int | None, int | None]:
    """Return (exit code, signal) of ``42:0``, ``0:9`` or a wait status such as 10752; with a signal there is no exit code.

    Raises
    ------
    ValueError
        For anything else.
    """
    if is_nothing(text):
        return None, None
    code, colon, signal = text.partition(":")
    if colon:
        return (None, int(signal)) if int(signal) else (int(code), None)
    status = int(code)
    return (None, status & 0x7F) if status & 0x7F else (status >> 8 & 0xFF, None)


def tres(text: str) -> dict[str, float]:
    """Return trackable resources by name, of ``cpu=4,mem=2000M,gres/gpu:a100=2``; ``mem`` in MiB.

    Raises
    ------
    ValueError
        For anything else.
    """
    amounts: dict[str, float] = {}
    for word in text.split(",") if not is_nothing(text) else ():
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise ValueError(f"not a resource: {word!r}")
        if value in {"", "-1"}:  # removed: no limit
            continue
        amounts[name] = _quantity(value, "M") / _MIB if name == "mem" else _quantity(value, "")
    return amounts


def limits(text: str) -> dict[str, int]:
    """Return `tres` as whole numbers."""
    return {name: int(value) for name, value in tres(text).items()}


def gpus(resources: Mapping[str, float], wish: str = "") -> tuple[int | None, str | None]:
    """Return (GPUs, their type) of `tres`; the type may only be in the request per node (``gres:gpu:a100:2``)."""
    kinds = {name.partition(":")[2]: int(value) for name, value in resources.items() if name.startswith("gres/gpu:")}
    total = int(resources["gres/gpu"]) if "gres/gpu" in resources else sum(kinds.values()) if kinds else None
    if len(kinds) == 1:
        return total, next(iter(kinds))
    requested = {kind for kind, _ in gres(wish)} - {""}
    return total, requested.pop() if len(requested) == 1 and not kinds else None


def gres(text: str) -> list[tuple[str, int]]:
    """Return (type, number) of each kind of GPU in a list of generic resources; the type may be empty, other resources are left out."""
    if is_nothing(text):
        return []
    matches = (_GRES.match(word) for word in re.split(r",(?![^()]*\))", text))
    pairs = ((match["kind"] or "", match["number"]) for match in matches if match)
    # `gpu:2` is a number, not a type.
    return [("", int(kind)) if count is None and kind.isdigit() else (kind, int(count or 1)) for kind, count in pairs]


def ranges(text: str) -> tuple[range, ...]:
    """Return the array tasks of ``0-9``, ``1,3,5-9:2%4`` or the same in square brackets, without the throttle.

    Raises
    ------
    ValueError
        For anything else, and for a list that Slurm cut short (``…``): which tasks are missing is not known.
    """
    spans = []
    for word in text.strip("[]").partition("%")[0].split(","):
        span = _SPAN.match(word)
        if not span:
            raise ValueError(f"not a set of array tasks: {text!r}")
        first, last = int(span["first"]), int(span["last"] or span["first"])
        step = int(span["step"] or 1)
        if last < first or step < 1:
            raise ValueError(f"not a set of array tasks: {text!r}")
        spans.append(range(first, last + 1, step))
    return tuple(spans)


def ranges_text(tasks: Iterable[int]) -> str:
    """Return array tasks in Slurm's format, consecutive ones as spans: ``1,5-9``."""
    spans: list[list[int]] = []
    for task in sorted(set(tasks)):
        if spans and task == spans[-1][1] + 1:
            spans[-1][1] = task
        else:
            spans.append([task, task])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)


def _quantity(text: str, unit: str) -> float:
    match = _QUANTITY.match(text.strip())
    if not match:
        raise ValueError(f"not a quantity: {text!r}")
    return float(match["number"]) * _UNITS[(match["unit"] or unit).upper()]

"""Memory, time limits, durations and sizes: parsed and written as Slurm does it, and shown to people. Pure.

This is what users and sites write. What Slurm's commands print has rules of its own (``UNLIMITED``, ``2000Mc``, a lone number that
may be seconds): `lossi.jobs.schedulers.slurm.values` reads that.
"""

from __future__ import annotations

import math
import re

_MEMORY = re.compile(r"(?i)\s*([0-9]{1,15}(?:\.[0-9]{1,15})?)\s*([kmgt]?)(?:i?b)?\s*")
_MEBIBYTES = {"": 1.0, "k": 1 / 1024, "m": 1.0, "g": 1024.0, "t": 1024.0**2}
_TIME = re.compile(
    r"\s*(?:(?P<days>[0-9]{1,9})-(?P<dh>[0-9]{1,9})(?::(?P<dm>[0-9]{1,9})(?::(?P<ds>[0-9]{1,9}))?)?"
    r"|(?P<clock>[0-9]{1,9}(?::[0-9]{1,9}){0,2}))\s*"
)
_SUFFIXED = re.compile(r"(?i)\s*([0-9]{1,15}(?:\.[0-9]{1,15})?)\s*([smhd])\s*")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_memory(text: str) -> int:
    """Return MiB for ``8G``, ``500M`` or ``1.5GiB``, rounded up. A plain number is MiB, as for Slurm's ``--mem``.

    Units are powers of 1,024 with or without ``B`` or ``iB``, as in Slurm.

    Raises
    ------
    ValueError
        When it is not an amount of memory.
    """
    match = _MEMORY.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not an amount of memory: write 8G, 500M or a number of MiB")
    return math.ceil(float(match[1]) * _MEBIBYTES[match[2].lower()])


def parse_time(text: str) -> int:
    """Return seconds for a time limit as Slurm's ``--time`` reads it, or with a unit (``90s``, ``30m``, ``2h``, ``1d``).

    Slurm's forms: ``minutes``, ``minutes:seconds``, ``hours:minutes:seconds``, ``days-hours``, ``days-hours:minutes`` and
    ``days-hours:minutes:seconds`` (sbatch(1)).

    Raises
    ------
    ValueError
        When it is not a time limit.
    """
    if suffixed := _SUFFIXED.fullmatch(text):
        return math.ceil(float(suffixed[1]) * _SECONDS[suffixed[2].lower()])
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a time limit: write 30 (minutes), 1:30:00, 2-00:00:00 or 2h")
    if match["days"] is not None:
        return ((int(match["days"]) * 24 + int(match["dh"])) * 60 + int(match["dm"] or 0)) * 60 + int(match["ds"] or 0)
    clock = [int(number) for number in match["clock"].split(":")]
    if len(clock) == 3:
        return (clock[0] * 60 + clock[1]) * 60 + clock[2]
    return clock[0] * 60 + (clock[1] if len(clock) == 2 else 0)


def format_memory(mebibytes: int) -> str:
    """Return MiB as a job requests them (``8G``, ``512M``); `parse_memory` and Slurm read the same amount."""
    return f"{mebibytes // 1024}G" if mebibytes % 1024 == 0 else f"{mebibytes}M"


def format_time(seconds: int) -> str:
    """Return seconds as ``[days-]hours:minutes:seconds``; `parse_time` and Slurm read the same limit."""
    days, rest = divmod(seconds, 86400)
    clock = f"{rest // 3600:02}:{rest % 3600 // 60:02}:{rest % 60:02}"
    return f"{days}-{clock}" if days else clock


def humanize_size(size: float) -> str:
    """Return bytes for people: ``512 bytes``, ``1.5 MiB``, ``210 GiB``."""
    if size < 1024:
        return f"{size:.0f} bytes"
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        size /= 1024
        if size < 1024 or unit == "TiB":
            break
    return f"{size:,.1f}".removesuffix(".0") + f" {unit}"


def humanize_memory(mebibytes: float) -> str:
    """Return MiB for people: ``512 MiB``, ``5.1 GiB``."""
    return humanize_size(mebibytes * 2**20)


def humanize_duration(seconds: float) -> str:
    """Return seconds for people, in at most two units: ``45 s``, ``2 h 5 min``, ``3 d 4 h``."""
    left = max(round(seconds), 0)
    if left < 60:
        return f"{left} s"
    units = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    first = next(index for index, (_, size) in enumerate(units) if left >= size)
    parts = []
    for name, size in units[first : first + 2]:
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count} {name}")
    return " ".join(parts)

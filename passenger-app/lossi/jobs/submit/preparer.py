"""Who is preparing a job: enough to tell later whether that process is still at work. Reads /proc.

A pid alone is reused, so its start time and the boot it belongs to are kept beside it (proc(5), ``/proc/<pid>/stat``).
"""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILE = "preparer.json"
"""In a job directory until the scheduler has accepted the job."""

LONGEST_S = 600.0
"""Preparing takes seconds: after this time nobody is at it any more, even a process on another host, which cannot be looked at."""


@dataclass(frozen=True)
class Preparer:
    """A process of some host."""

    host: str
    boot: str
    pid: int
    started: str
    """Clock ticks after boot."""
    since: float
    """When it began to prepare, in seconds since the epoch."""

    def is_gone(self) -> bool:
        """Return whether that process cannot be at work any more."""
        if time.time() - self.since > LONGEST_S:
            return True
        return self.host == socket.gethostname() and (self.boot != _boot() or self.started != _start_of(self.pid))


def myself() -> Preparer:
    """Return the record of this process."""
    return Preparer(socket.gethostname(), _boot(), os.getpid(), _start_of(os.getpid()), time.time())


def dump(preparer: Preparer) -> bytes:
    """Return the record as one line of JSON."""
    return json.dumps(dataclasses.asdict(preparer)).encode() + b"\n"


def parse(data: Any) -> Preparer | None:
    """Return the record that JSON types hold, or None."""
    try:
        return Preparer(str(data["host"]), str(data["boot"]), int(data["pid"]), str(data["started"]), float(data["since"]))
    except (TypeError, KeyError, ValueError):
        return None


def at_work(directory: Path) -> bool:
    """Return whether somebody is still preparing or submitting the job in this directory."""
    try:
        found = parse(json.loads((directory / FILE).read_bytes()))
    except (OSError, ValueError):
        return False
    return found is not None and not found.is_gone()


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""


def _start_of(pid: int) -> str:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return "gone"
    return stat.rpartition(")")[2].split()[19]

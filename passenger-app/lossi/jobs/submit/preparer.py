"""Who is preparing a job: enough to tell later whether that process is still at work."""

from __future__ import annotations

import dataclasses
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lossi.processes import ProcessIdentity

FILE = "preparer.json"
"""In a job directory until the scheduler has accepted the job."""

LONGEST_S = 600.0
"""Preparing takes seconds: after this time it has ended, even on another host, whose processes cannot be seen."""


@dataclass(frozen=True)
class Preparer(ProcessIdentity):
    """A process that prepares a job."""

    since: float = 0.0
    """When it began, in seconds since the epoch."""

    def is_gone(self) -> bool:
        """Return whether that process cannot be at work any more."""
        return time.time() - self.since > LONGEST_S or super().is_gone()


def myself() -> Preparer:
    """Return the record of this process."""
    return Preparer(**dataclasses.asdict(ProcessIdentity.current()), since=time.time())


def dump(preparer: Preparer) -> bytes:
    """Return the record as one line of JSON."""
    return json.dumps(dataclasses.asdict(preparer)).encode() + b"\n"


def parse(data: Any) -> Preparer | None:
    """Return the record in JSON data, or None."""
    try:
        return Preparer(
            str(data["host"]),
            str(data["boot"]),
            int(data["pid"]),
            str(data["started"]),
            str(data.get("namespace", "")),
            float(data["since"]),
        )
    except (AttributeError, TypeError, KeyError, ValueError):
        return None


def at_work(directory: Path) -> bool:
    """Return whether somebody is still preparing or submitting the job in this directory."""
    try:
        preparer = parse(json.loads((directory / FILE).read_bytes()))
    except (OSError, ValueError):
        return False
    return preparer is not None and not preparer.is_gone()

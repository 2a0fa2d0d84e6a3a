"""What is known of one attempt at a task while it runs; passed from step to step."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Optional

from ..contract import records
from ..contract.records import PreparedJob, TaskError
from . import outputs, places
from .progress import ProgressFile
from .ranks import Lost, Ranks
from .signals import Signals


@dataclass
class Attempt:
    """What is known while a task runs."""

    job: PreparedJob
    number: int
    attempt: int
    places: places.Places
    signals: Signals
    progress: ProgressFile
    started: str
    started_s: float
    grace_s: float
    parameters: Dict[str, Any] = field(default_factory=dict)
    notes: List[str] = field(default_factory=list)
    files: outputs.Manifest = field(default_factory=dict)
    error: Optional[TaskError] = None
    kernel_signal: Optional[int] = None
    ran: bool = False
    """Whether the payload was started."""
    told: bool = False
    """Whether the payload was told to stop."""
    failed_s: Optional[float] = None
    """When things went wrong, seconds since the epoch."""
    ranks: Optional[Ranks] = None
    """The processes on the task's further nodes, for the one that looks after them."""
    lost: Optional[Lost] = None
    """The one of them because of which the task ends."""

    @property
    def working_directory(self) -> Path:
        """Where the payload runs: its folder in the copy of the project."""
        return Path(os.path.normpath(self.places.code / self.job.working_directory))

    def note(self, text: str) -> None:
        """Keep something that the user should know."""
        self.notes.append(text)
        self.progress.note(text)
        say(text)

    def ending(self) -> records.Ending:
        """Return why it was told to stop."""
        found = records.load_optional(records.Ending, self.places.task / records.ENDING)
        if found is None or found.state not in records.FINAL_STATES:
            if self.lost is not None:
                state = self.lost.exit.state
                return records.Ending(state if state in records.FINAL_STATES else records.FAILED, self.lost.reason)
            return records.Ending(records.CANCELLED, "stopped by a signal")
        return found


def say(text: str) -> None:
    """Tell the reader of the log."""
    try:
        print(f"lossi: {text}", file=sys.stderr, flush=True)
    except OSError:
        pass

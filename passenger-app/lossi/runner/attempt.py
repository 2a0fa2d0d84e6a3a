"""The state of one attempt at a task while it runs; passed from step to step."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Optional

from lossi.contract.states import CANCELLED, FAILED, has_ended

from ..contract import records
from ..contract.records import PreparedJob, TaskError
from . import outputs
from .paths import TaskPaths
from .progress import ProgressFile
from .ranks import FailedRank, Ranks
from .signals import Signals


@dataclass
class Attempt:
    """One attempt at a task."""

    job: PreparedJob
    number: int
    attempt: int
    paths: TaskPaths
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
    payload_started: bool = False
    stop_sent: bool = False
    """Whether the payload was told to stop."""
    failed_s: Optional[float] = None
    """When it failed, seconds since the epoch."""
    ranks: Optional[Ranks] = None
    """The processes on the task's other nodes; rank 0 only."""
    failed_rank: Optional[FailedRank] = None
    """The process on another node that makes the task end."""

    @property
    def working_directory(self) -> Path:
        """Where the payload runs: its folder in the copy of the project."""
        return Path(os.path.normpath(self.paths.code / self.job.working_directory))

    def note(self, text: str) -> None:
        """Add a note for the user."""
        self.notes.append(text)
        self.progress.note(text)
        log(text)

    def ending(self) -> records.Ending:
        """Return why the task was told to stop."""
        ending = records.load_optional(records.Ending, self.paths.task / records.ENDING)
        if ending is not None and has_ended(ending.state):
            return ending
        if self.failed_rank is not None:
            state = self.failed_rank.exit.state
            return records.Ending(state if has_ended(state) else FAILED, self.failed_rank.reason)
        return records.Ending(CANCELLED, "stopped by a signal")


def log(text: str) -> None:
    """Write a line to the task's log."""
    try:
        print(f"lossi: {text}", file=sys.stderr, flush=True)
    except OSError:
        pass

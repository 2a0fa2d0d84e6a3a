"""``progress.json``: written after a change, at most once a second, and every 15 s as a sign of life."""

from __future__ import annotations

import dataclasses
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, List, Optional

from ..contract.records import Progress, dump
from .writing import write

EVERY_S = 1.0
ALIVE_S = 15.0


def now() -> str:
    """Return the time as ISO 8601 in UTC, with milliseconds."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class ProgressFile:
    """Keeps ``progress.json`` up to date without a write for each of a thousand quick cells.

    A failed write is ignored: a full disk is reported where it matters.
    """

    def __init__(self, path: Path, task: int, attempt: int, started: str) -> None:
        self.path = path
        self.state = Progress(task=task, attempt=attempt, started=started)
        self._began = time.monotonic()
        self._cell_began: Optional[float] = None
        self._durations: List[float] = []
        self._dirty = False
        self._written = float("-inf")

    def phase(self, phase: str) -> None:
        """Enter a phase and write at once."""
        self._change(phase=phase)
        self.flush(force=True)

    def note(self, text: str) -> None:
        """Add a note for the user."""
        self._change(notes=[*self.state.notes, text])

    def event(self, event: str, facts: Any) -> None:
        """Apply an event of the notebook child."""
        if event == "start":
            self._change(cells=int(facts.get("cells", 0)))
        elif event == "cell":
            self._cell_began = time.monotonic()
            self._change(cell=int(facts["cell"]), first_line=str(facts.get("first_line", "")))
        elif event == "cell_done" and self._cell_began is not None:
            self._durations.append(time.monotonic() - self._cell_began)
            self._cell_began = None
            self._dirty = True

    def flush(self, *, force: bool = False) -> None:
        """Write if a change or a sign of life is due."""
        since = time.monotonic() - self._written
        if not (force or since >= ALIVE_S or (self._dirty and since >= EVERY_S)):
            return
        self.state = dataclasses.replace(
            self.state,
            elapsed_s=round(time.monotonic() - self._began, 2),
            estimate_s=estimate(self._durations, self.state.cells, self._running_s()),
            updated=now(),
        )
        try:
            write(self.path, dump(self.state), durable=False)
        except OSError:
            pass
        self._dirty, self._written = False, time.monotonic()

    def _running_s(self) -> float:
        return 0.0 if self._cell_began is None else time.monotonic() - self._cell_began

    def _change(self, **changes: Any) -> None:
        self.state = dataclasses.replace(self.state, **changes)
        self._dirty = True


def estimate(durations: List[float], cells: int, running_s: float) -> Optional[float]:
    """Return the estimated seconds left, from the mean of the finished cells; None before the first ended.

    Parameters
    ----------
    durations
        Seconds of each finished cell.
    cells
        All cells; the injected one counts with its predecessor, so there may be one duration more.
    running_s
        Seconds since the running cell began.
    """
    if not durations or cells <= 0:
        return None
    left = max(0, cells - len(durations)) * sum(durations) / len(durations)
    return round(max(0.0, left - running_s), 1)

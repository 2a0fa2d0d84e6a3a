"""Signals as readable bytes: one `select` waits for the payload's end, its events and a request to stop."""

from __future__ import annotations

import os
import select
import signal
import time
from typing import Any, List, Optional

STOPPING = (signal.SIGTERM, signal.SIGINT)


class Signals:
    """Turns SIGTERM, SIGINT and SIGCHLD into wake-ups. The first request to stop counts, later ones change nothing."""

    def __init__(self) -> None:
        self.stopped_at: Optional[float] = None
        """Seconds since the epoch."""
        self._reader, writer = os.pipe()
        for descriptor in (self._reader, writer):
            os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in STOPPING:
            signal.signal(number, self._stop)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    @property
    def stopped(self) -> bool:
        """Whether the task was told to stop."""
        return self.stopped_at is not None

    def wait(self, timeout_s: float, descriptors: List[int]) -> List[int]:
        """Wait for a signal or a readable descriptor; return the readable ones."""
        ready = select.select([self._reader, *descriptors], [], [], max(0.0, timeout_s))[0]
        if self._reader in ready:
            try:
                while os.read(self._reader, 512):
                    pass
            except BlockingIOError:
                pass
        return [descriptor for descriptor in ready if descriptor != self._reader]

    def _stop(self, *_: Any) -> None:
        if self.stopped_at is None:
            self.stopped_at = time.time()

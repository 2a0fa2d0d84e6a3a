"""What the child that executes a notebook sends: events to the runner, and the output of cells to the log."""

from __future__ import annotations

import json
import os
from typing import Any


class Reporter:
    """Sends events to the runner; goes on if the runner is gone."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        os.set_inheritable(descriptor, False)  # the kernel must not keep it open

    def send(self, event: str, **facts: Any) -> None:
        """Send one event."""
        data = (json.dumps({"event": event, **facts}) + "\n").encode()
        try:
            while data:
                data = data[os.write(self.descriptor, data) :]
        except OSError:
            pass


class Log:
    """A text stream for the output of cells: a full disk or an invalid character must not end the notebook."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")

    def write(self, text: str) -> int:
        """Write and flush."""
        try:
            self.stream.write(text)
            self.stream.flush()
        except (OSError, ValueError):
            pass
        return len(text)

    def flush(self) -> None:
        """Do nothing: every write is flushed."""

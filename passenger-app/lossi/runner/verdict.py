"""How a payload ended, as state, reason and error. Pure functions over what was seen."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from typing import Optional

from ..contract import records
from ..contract.records import Ending, TaskError
from .plain import TRACEBACK_LIMIT, plain
from .ranks import Lost

PYTHON_TRACEBACK = "Traceback (most recent call last):"
PYTHON_ERROR = re.compile(r"([A-Za-z_][\w.]*)(?:: (.*))?")
"""The last line of Python's traceback: the exception's qualified name and its message."""
R_ERROR = re.compile(r"Error(?: in [^\n]*?)? ?: ?(.*)", re.DOTALL)


@dataclass(frozen=True)
class Verdict:
    """How the payload ended."""

    state: str
    exit_code: Optional[int] = None
    signal: Optional[int] = None
    reason: str = ""
    error: Optional[TaskError] = None

    @property
    def status(self) -> int:
        """The exit code of the runner itself: the payload's, 128 + n after signal n."""
        if self.state == records.SUCCEEDED:
            return 0
        if self.signal is not None:
            return 128 + self.signal
        return self.exit_code or 1


def of_payload(
    returncode: int,
    *,
    stopped: Optional[Ending],
    error: Optional[TaskError],
    kernel_signal: Optional[int],
    out_of_memory: bool,
    no_room: str = "",
) -> Verdict:
    """Return how a payload ended.

    Parameters
    ----------
    returncode
        As `subprocess` gives it: negative after a signal.
    stopped
        Why it was told to stop, None when it ended by itself.
    error
        What the program itself said.
    kernel_signal
        The signal that killed a notebook's kernel.
    out_of_memory
        Whether the kernel of the system killed a process of this cgroup for memory meanwhile.
    no_room
        Why nothing more can be written into the task's folder.
    """
    code, number = (returncode, None) if returncode >= 0 else (None, -returncode)
    if stopped is not None:
        own_words = None if error is None or error.name in ("KeyboardInterrupt", "Stopped", "DeadKernelError") else error
        return Verdict(stopped.state, code, number, stopped.reason or "stopped on request", own_words)
    if returncode == 0:
        return Verdict(records.SUCCEEDED, 0)
    killed = number or kernel_signal
    if out_of_memory and (killed == signal.SIGKILL or code == 128 + signal.SIGKILL):
        return Verdict(records.OUT_OF_MEMORY, code, killed, "killed by the system: the memory limit was reached", error)
    reason = _reason(code, number, error)
    return Verdict(records.FAILED, code, killed, f"{reason}; {no_room}" if no_room else reason, error)


def of_rank(lost: Lost) -> Verdict:
    """Return the verdict on a task of which the process on another node did not do its part."""
    end = lost.exit
    state = end.state if end.state in records.FINAL_STATES else records.FAILED
    return Verdict(state, end.exit_code, end.signal, lost.reason, end.error)


def of_failure(reason: str) -> Verdict:
    """Return the verdict on a task that could not be prepared or started."""
    return Verdict(records.FAILED, 1, None, reason)


def error_in_log(text: str, returncode: int) -> Optional[TaskError]:
    """Return what a script said at its end: Python's last traceback, R's error, else the last line.

    Parameters
    ----------
    text
        What the payload has printed, or its end.
    returncode
        As `subprocess` gives it.
    """
    text = plain(text).rstrip()
    if not text:
        return None
    lines = text.splitlines()
    start = text.rfind(PYTHON_TRACEBACK)
    if start >= 0 and returncode == 1:  # Python's own exit code after an exception: no older one that was caught and logged
        body = text[start:].splitlines()
        # Frames are indented. The message may have several lines; what was printed after it cannot be told apart from it.
        index = next((i for i, line in enumerate(body) if i and not line[:1].isspace()), 0)
        match = PYTHON_ERROR.fullmatch(body[index])
        if match:
            message = "\n".join([match.group(2) or "", *body[index + 1 :]]).strip()
            return TaskError(match.group(1), message[:4000], None, text[start:][-TRACEBACK_LIMIT:])
    r_start = max((i for i, line in enumerate(lines) if R_ERROR.match(line)), default=-1)
    if r_start >= 0 and lines[-1].startswith("Execution halted"):
        said = "\n".join(lines[r_start:-1])
        match = R_ERROR.match(said)
        return TaskError(
            "Error", (match.group(1) if match else said).strip()[:4000], None, "\n".join(lines[r_start:])[-TRACEBACK_LIMIT:]
        )
    name = f"exit code {returncode}" if returncode >= 0 else f"signal {-returncode}"
    return TaskError(name, lines[-1][:4000], None, "\n".join(lines[-20:])[-TRACEBACK_LIMIT:])


def _reason(code: Optional[int], number: Optional[int], error: Optional[TaskError]) -> str:
    if number is not None:
        hint = ", probably because it ran out of memory" if number == signal.SIGKILL else ""
        return f"killed by signal {number}{_name(number)}{hint}"
    if error is not None and error.cell is not None:
        return f"cell {error.cell}: {_short(error)}"
    if error is not None:
        return _short(error)
    return f"ended with exit code {code}"


def _short(error: TaskError) -> str:
    first = error.message.splitlines()[0] if error.message else ""
    return f"{error.name}: {first}"[:300] if first else error.name


def _name(number: int) -> str:
    try:
        return f" ({signal.Signals(number).name})"
    except ValueError:
        return ""

"""How a payload ended: state, reason and error. Pure functions."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from typing import Optional

from lossi.contract.states import FAILED, OUT_OF_MEMORY, SUCCEEDED, has_ended

from ..contract.records import Ending, TaskError
from .errors import TRACEBACK_LIMIT, plain
from .ranks import FailedRank

PYTHON_TRACEBACK = "Traceback (most recent call last):"
PYTHON_ERROR = re.compile(r"([A-Za-z_][\w.]*)(?:: (.*))?")
"""The last line of Python's traceback: the exception's qualified name and its message."""
R_ERROR = re.compile(r"Error(?: in [^\n]*?)? ?: ?(.*)", re.DOTALL)


@dataclass(frozen=True)
class Outcome:
    """How the payload ended."""

    state: str
    exit_code: Optional[int] = None
    signal: Optional[int] = None
    reason: str = ""
    error: Optional[TaskError] = None

    @property
    def status(self) -> int:
        """The runner's own exit code: the payload's, or 128 + n after signal n."""
        if self.state == SUCCEEDED:
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
) -> Outcome:
    """Return how a payload ended.

    Parameters
    ----------
    returncode
        As `subprocess` gives it: negative after a signal.
    stopped
        Why it was told to stop; None if it ended by itself.
    error
        The program's own error.
    kernel_signal
        The signal that killed a notebook's kernel.
    out_of_memory
        Whether the system killed a process of this cgroup for memory meanwhile.
    no_room
        Why nothing more can be written into the task's folder.
    """
    code, number = (returncode, None) if returncode >= 0 else (None, -returncode)
    if stopped is not None:
        own_error = None if error is None or error.name in ("KeyboardInterrupt", "Stopped", "DeadKernelError") else error
        return Outcome(stopped.state, code, number, stopped.reason or "stopped on request", own_error)
    if returncode == 0:
        return Outcome(SUCCEEDED, 0)
    killed = number or kernel_signal
    if out_of_memory and (killed == signal.SIGKILL or code == 128 + signal.SIGKILL):
        return Outcome(OUT_OF_MEMORY, code, killed, "killed by the system: the memory limit was reached", error)
    reason = _reason(code, number, error)
    return Outcome(FAILED, code, killed, f"{reason}; {no_room}" if no_room else reason, error)


def of_rank(failed: FailedRank) -> Outcome:
    """Return the outcome of a task whose process on another node failed."""
    end = failed.exit
    state = end.state if has_ended(end.state) else FAILED
    return Outcome(state, end.exit_code, end.signal, failed.reason, end.error)


def of_failure(reason: str) -> Outcome:
    """Return the outcome of a task that could not be prepared or started."""
    return Outcome(FAILED, 1, None, reason)


def error_in_log(text: str, returncode: int) -> Optional[TaskError]:
    """Return a script's error from its log: Python's last traceback, R's error, or else the last line.

    Parameters
    ----------
    text
        The log of the payload, or its end.
    returncode
        As `subprocess` gives it.
    """
    text = plain(text).rstrip()
    if not text:
        return None
    lines = text.splitlines()
    start = text.rfind(PYTHON_TRACEBACK)
    if start >= 0 and returncode == 1:  # Python's exit code after an exception: not an earlier one that was caught and logged
        body = text[start:].splitlines()
        # Frames are indented. The message may have several lines; later output cannot be told apart from it.
        index = next((i for i, line in enumerate(body) if i and not line[:1].isspace()), 0)
        match = PYTHON_ERROR.fullmatch(body[index])
        if match:
            message = "\n".join([match.group(2) or "", *body[index + 1 :]]).strip()
            return TaskError(match.group(1), message[:4000], None, text[start:][-TRACEBACK_LIMIT:])
    r_start = max((i for i, line in enumerate(lines) if R_ERROR.match(line)), default=-1)
    if r_start >= 0 and lines[-1].startswith("Execution halted"):
        message = "\n".join(lines[r_start:-1])
        match = R_ERROR.match(message)
        return TaskError(
            "Error", (match.group(1) if match else message).strip()[:4000], None, "\n".join(lines[r_start:])[-TRACEBACK_LIMIT:]
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

"""How a task ended, from its exit.json, its process's status and what it was told. Pure."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, replace

from lossi.contract.records import Ending, TaskExit
from lossi.contract.states import FAILED, NODE_FAILED, SUCCEEDED, has_ended

WITHOUT_A_TRACE = "no exit record: its process is gone"
RESTARTED = "the machine restarted while the task ran"
SHELL_SIGNAL_BASE = 128
"""A shell whose command was killed by signal n exits with 128 + n (POSIX XCU 2.8.2)."""


@dataclass(frozen=True)
class Verdict:
    """The end of a task, as the journal records it."""

    state: str
    reason: str = ""
    exit_code: int | None = None
    signal: int | None = None


def of_process(status: int) -> Verdict:
    """Return the verdict for a wait status of waitpid(2)."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return Verdict(FAILED, f"killed by {_signal_name(number)}", signal=number)
    code = os.WEXITSTATUS(status)
    if code == 0:
        return Verdict(SUCCEEDED, exit_code=0)
    reason = f"ended with exit code {code}"
    if code > SHELL_SIGNAL_BASE and code - SHELL_SIGNAL_BASE in signal.valid_signals():
        reason += f", as after {_signal_name(code - SHELL_SIGNAL_BASE)}"
    return Verdict(FAILED, reason, exit_code=code)


def of_end(exit_file: TaskExit | None, ending: Ending | None, status: int | None, *, restarted: bool = False) -> Verdict:
    """Return how a task ended.

    Parameters
    ----------
    exit_file
        What the runner or the script wrote at its end: it knows best, except why it was told to stop.
    ending
        Why the supervisor told it to stop, if it did.
    status
        Status of waitpid(2); None if another supervisor started the process.
    restarted
        Whether the machine restarted since.
    """
    by_status = of_process(status) if status is not None else Verdict(FAILED, WITHOUT_A_TRACE)
    if exit_file is not None and has_ended(exit_file.state):
        by_record = Verdict(exit_file.state, exit_file.reason, exit_file.exit_code, exit_file.signal)
        if by_record.exit_code is None and by_record.signal is None:
            by_record = replace(by_record, exit_code=by_status.exit_code, signal=by_status.signal)
        if ending is None or exit_file.state in (SUCCEEDED, ending.state):
            return by_record
        return replace(by_record, state=ending.state, reason=ending.reason)
    if ending is not None:
        return replace(by_status, state=ending.state, reason=ending.reason)
    if restarted:
        return Verdict(NODE_FAILED, RESTARTED)
    return by_status


def corrected(
    exit_file: TaskExit | None, verdict: Verdict, *, task: int, host: str, started: str, ended: str, elapsed_s: float
) -> TaskExit | None:
    """Return an exit.json that matches the verdict, None if the present one does."""
    if exit_file is None or not has_ended(exit_file.state):
        return TaskExit(
            task=task,
            state=verdict.state,
            exit_code=verdict.exit_code,
            signal=verdict.signal,
            reason=verdict.reason,
            started=started,
            ended=ended,
            elapsed_s=elapsed_s,
            host=host,
            written_by="scheduler",
        )
    if exit_file.state == verdict.state:
        return None
    note = f"the {exit_file.written_by} wrote: {exit_file.state} {exit_file.reason}".rstrip()
    return replace(exit_file, state=verdict.state, reason=verdict.reason, notes=[*exit_file.notes, note], written_by="scheduler")


def _signal_name(number: int) -> str:
    try:
        return f"{signal.Signals(number).name} ({number})"
    except ValueError:
        return f"signal {number}"

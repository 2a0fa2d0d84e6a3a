"""What killed a task: its state, the scheduler's state and messages, the program's error, marks in the log. Pure.

The best witness counts: a state that names the cause; then the program's own last error; then marks in the log; then the signal.
Only the end of a log counts, because the program survived what is further up.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable
from typing import Literal

from lossi.contract.records import PreparedJob
from lossi.contract.states import CANCELLED, NODE_FAILED, OUT_OF_MEMORY, PREEMPTED, QUEUED, RUNNING, SUCCEEDED, TIMED_OUT
from lossi.jobs import schedulers
from lossi.jobs.explain.amounts import requested_memory, used_memory
from lossi.jobs.models import Task
from lossi.jobs.schedulers import BatchSystem

Kind = Literal[
    "none",
    "time_limit",
    "memory",
    "gpu_memory",
    "gpu_unavailable",
    "disk_full",
    "node_failure",
    "preemption",
    "cancelled",
    "dependency",
    "environment",
    "import_error",
    "python_error",
    "r_error",
    "signal",
    "exit_code",
    "not_submitted",
    "unknown",
]

NEAR_LIMIT = 0.85
"""A kill at this share of the requested memory counts as one by the memory limit: samples miss the peak."""
LAST_LINES = 60

_STATES: dict[str, Kind] = {
    TIMED_OUT: "time_limit",
    OUT_OF_MEMORY: "memory",
    NODE_FAILED: "node_failure",
    PREEMPTED: "preemption",
}
_GPU_MEMORY = re.compile(
    r"(?:CUDA|HIP) (?:error: )?out of memory|torch\.(?:cuda\.)?OutOfMemoryError|CUDA_ERROR_OUT_OF_MEMORY|hipErrorOutOfMemory"
    r"|cudaErrorMemoryAllocation|CUBLAS_STATUS_ALLOC_FAILED|RESOURCE_EXHAUSTED: [^\n]*(?:OOM|GPU|allocat)|OOM when allocating tensor"
)
_GPU_MISSING = re.compile(
    r"No CUDA GPUs are available|no CUDA-capable device|CUDA driver version is insufficient|Found no NVIDIA driver"
    r"|No HIP GPUs are available|Torch not compiled with CUDA enabled|CUDA_ERROR_NO_DEVICE|hipErrorNoDevice"
)
_MEMORY = re.compile(
    r"^(?:\S*\.)?_?(?:Array)?MemoryError\b|Unable to allocate [\d.]+ [KMGT]iB|Cannot allocate memory|std::bad_alloc"
    r"|cannot allocate vector of size|cannot allocate memory block|java\.lang\.OutOfMemoryError|oom-kill|Exceeded (?:job|step) memory limit"
    r"|^(?:\S*: line \d+: +\d+ )?Killed\b(?! old worker)|killed by signal: Killed|out of shared memory",
    re.MULTILINE | re.IGNORECASE,
)
_DISK = re.compile(
    r"No space left on device|Disk quota exceeded|\[Errno (?:28|122)\]|quota (?:is )?exceeded|disk is full|ENOSPC"
    r"|the filesystem (?:of .* )?is full|your quota .* is used up",
    re.IGNORECASE,
)
_MARKS: tuple[tuple[Kind, re.Pattern[str]], ...] = (
    ("gpu_memory", _GPU_MEMORY),
    ("gpu_unavailable", _GPU_MISSING),
    ("disk_full", _DISK),
    ("memory", _MEMORY),
)
_IMPORT = re.compile(r"^(?:ModuleNotFoundError|ImportError): ", re.MULTILINE)
_R_IMPORT = re.compile(r"there is no package called")
_ENVIRONMENT = re.compile(
    r"^FATAL: |could not be started|Exec format error|cannot execute binary file|NoSuchKernel|has no kernel for"
    r"|the kernel \S+ did not start|bad interpreter",
    re.MULTILINE,
)
_TRACEBACK = re.compile(r"^Traceback \(most recent call last\):", re.MULTILINE)
_R_HALTED = re.compile(r"^Execution halted", re.MULTILINE)
_NO_ERRORS = ("KeyboardInterrupt", "Stopped", "DeadKernelError")
"""Raised in a notebook because it was ended: they say nothing about why."""
_KERNEL_ERRORS = ("KernelError", "NoSuchKernel", "Refused")
"""Written by the runner if no kernel fits or starts; earlier versions wrote Refused."""
_NEVER_SUBMITTED = "was prepared but never submitted"
"""As `lossi.jobs.state.refresh` says it; that module is too heavy to import here."""


def kind_of(task: Task, job: PreparedJob, log: str, scheduler_log: str = "") -> Kind:
    """Return what killed a task.

    Parameters
    ----------
    task, job
        What is known about them.
    log
        End of the task's log, without terminal escapes.
    scheduler_log
        End of the scheduler's log, if it is about this task alone.
    """
    if task.state in (QUEUED, RUNNING, SUCCEEDED):
        return "none"
    systems = schedulers.systems(job.request.get("scheduler"))
    scheduler_kind = _any(system.cause_of_state(task.scheduler_state) for system in systems)
    known = _STATES.get(task.state) or (None if task.error else scheduler_kind)
    if known:
        return known
    end = "\n".join(log.splitlines()[-LAST_LINES:])
    marks = _of_scheduler(task, systems, f"{scheduler_log}\n{end}")
    if task.state == CANCELLED:
        if "dependency" in task.reason.lower():
            return "dependency"
        return marks or scheduler_kind or "cancelled"
    if task.reason.endswith(_NEVER_SUBMITTED):
        return "not_submitted"
    if has_own_error(task):
        return _of_error(task) or ("memory" if marks == "memory" else _of_exception(task, job))
    return marks or _first(_MARKS, f"{end}\n{task.reason}") or _of_signal(task, job) or _of_end(task, end)


def has_own_error(task: Task) -> bool:
    """Return whether the program named its error: not just the last line of its log, nor an interruption."""
    error = task.error
    return error is not None and error.name not in _NO_ERRORS and not error.name.startswith(("exit code ", "signal "))


def signal_of(task: Task) -> int | None:
    """Return the signal that ended a task, also if a shell turned it into exit code 128 + n."""
    if task.signal:
        return task.signal
    code = task.exit_code
    return code - 128 if code is not None and 128 < code <= 128 + 64 else None


def signal_name(number: int) -> str:
    """Return ``signal 9 (SIGKILL)``."""
    try:
        return f"signal {number} ({signal.Signals(number).name})"
    except ValueError:
        return f"signal {number}"


def _of_scheduler(task: Task, systems: Iterable[BatchSystem], text: str) -> Kind | None:
    kind = _any(system.cause_in_log(text) for system in systems)
    # All attempts write into one log: what made the scheduler restart the task did not end it.
    return None if kind in ("preemption", "node_failure") and task.attempt > 1 else kind


def _of_error(task: Task) -> Kind | None:
    """Return the cause that the program's own error names; None: a fault of the program."""
    assert task.error is not None
    text = f"{task.error.name}: {task.error.message}"
    if kind := _first(_MARKS, text):
        return kind
    if task.error.name in ("ModuleNotFoundError", "ImportError") or _R_IMPORT.search(text):
        return "import_error"
    return "environment" if task.error.name in _KERNEL_ERRORS else None


def _of_exception(task: Task, job: PreparedJob) -> Kind:
    assert task.error is not None
    is_r = job.language.lower() == "r" or task.error.traceback.rstrip().endswith("Execution halted")
    return "r_error" if is_r else "python_error"


def _of_signal(task: Task, job: PreparedJob) -> Kind | None:
    number = signal_of(task)
    if number is None:
        return None
    used, requested = used_memory(task, job), requested_memory(task, job)
    return "memory" if number == signal.SIGKILL and used and requested and used >= NEAR_LIMIT * requested else "signal"


def _of_end(task: Task, end: str) -> Kind:
    """Return the cause if nothing outside the program ended it, from the end of its log."""
    if task.exit_code in (126, 127) or _ENVIRONMENT.search(task.reason):
        return "environment"
    marks: tuple[tuple[Kind, re.Pattern[str]], ...] = (
        ("import_error", _IMPORT),
        ("import_error", _R_IMPORT),
        ("python_error", _TRACEBACK),
        ("r_error", _R_HALTED),
        ("environment", _ENVIRONMENT),
    )
    return _first(marks, end) or ("unknown" if task.exit_code is None else "exit_code")


def _first(marks: Iterable[tuple[Kind, re.Pattern[str]]], text: str) -> Kind | None:
    return next((kind for kind, pattern in marks if pattern.search(text)), None)


def _any(kinds: Iterable[Kind | None]) -> Kind | None:
    return next((kind for kind in kinds if kind), None)

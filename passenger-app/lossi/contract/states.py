"""The states of tasks and jobs. Python 3.9, standard library."""

from __future__ import annotations

from typing import Literal, Tuple, get_args

State = Literal[
    "queued", "running", "succeeded", "failed", "cancelled", "timed_out", "out_of_memory", "node_failed", "preempted", "unknown"
]

QUEUED = "queued"
RUNNING = "running"
SUCCEEDED = "succeeded"
FAILED = "failed"
CANCELLED = "cancelled"
TIMED_OUT = "timed_out"
OUT_OF_MEMORY = "out_of_memory"
NODE_FAILED = "node_failed"
PREEMPTED = "preempted"
UNKNOWN = "unknown"
STATES: Tuple[str, ...] = get_args(State)
FINAL_STATES = frozenset(STATES) - {QUEUED, RUNNING, UNKNOWN}


def has_ended(state: str) -> bool:
    """Return whether a task or job in this state has ended. One whose state is unknown has not: an exit record may still arrive."""
    return state in FINAL_STATES


def is_active(state: str) -> bool:
    """Return whether a task or job in this state waits or runs, so that it is worth watching."""
    return state in (QUEUED, RUNNING)


def label(state: str) -> str:
    """Return a state as people read it: ``timed out``."""
    return state.replace("_", " ")

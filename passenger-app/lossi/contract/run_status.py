"""MLflow's run statuses, and the one that a task's state gives its runs: used by the runner and by ingest. Python 3.9."""

from __future__ import annotations

from .states import CANCELLED, PREEMPTED, SUCCEEDED, TIMED_OUT

RUNNING = "RUNNING"
FINISHED = "FINISHED"
FAILED = "FAILED"
KILLED = "KILLED"

_OF_STATE = {
    SUCCEEDED: FINISHED,
    CANCELLED: KILLED,
    TIMED_OUT: KILLED,
    PREEMPTED: KILLED,
}


def of_state(state: str) -> str:
    """Return the status of a run whose task ended in this state."""
    return _OF_STATE.get(state, FAILED)

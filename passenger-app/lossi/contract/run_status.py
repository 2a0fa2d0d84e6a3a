"""MLflow's run statuses, and the one that a task's state gives its runs: used by the runner and by ingest. Python 3.9."""

from __future__ import annotations

from . import records

RUNNING = "RUNNING"
FINISHED = "FINISHED"
FAILED = "FAILED"
KILLED = "KILLED"

_OF_STATE = {
    records.SUCCEEDED: FINISHED,
    records.CANCELLED: KILLED,
    records.TIMED_OUT: KILLED,
    records.PREEMPTED: KILLED,
}


def of_state(state: str) -> str:
    """Return the status of a run whose task ended in this state."""
    return _OF_STATE.get(state, FAILED)

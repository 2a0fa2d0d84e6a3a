"""What Slurm's job states mean here. Pure.

Slurm has base states and flags; it prints the flag if one is set. States of 20.11 to 26.05 are known.
"""

from __future__ import annotations

import functools

from lossi.contract.states import (
    CANCELLED,
    FAILED,
    NODE_FAILED,
    OUT_OF_MEMORY,
    PREEMPTED,
    QUEUED,
    RUNNING,
    SUCCEEDED,
    TIMED_OUT,
    UNKNOWN,
)

MEANING = {
    "PENDING": QUEUED,
    "RUNNING": RUNNING,
    "SUSPENDED": RUNNING,
    "COMPLETED": SUCCEEDED,
    "CANCELLED": CANCELLED,
    "FAILED": FAILED,
    "TIMEOUT": TIMED_OUT,
    "NODE_FAIL": NODE_FAILED,
    "PREEMPTED": PREEMPTED,
    "BOOT_FAIL": NODE_FAILED,
    "DEADLINE": TIMED_OUT,
    "OUT_OF_MEMORY": OUT_OF_MEMORY,
    # Flags of a job that has nodes. Its script has not started while they boot.
    "CONFIGURING": QUEUED,
    "POWER_UP_NODE": QUEUED,
    "COMPLETING": RUNNING,
    "STAGE_OUT": RUNNING,
    "RESIZING": RUNNING,
    "SIGNALING": RUNNING,
    "STOPPED": RUNNING,
    # Flags of a job that waits again: it had started once.
    "REQUEUED": QUEUED,
    "REQUEUE_HOLD": QUEUED,
    "REQUEUE_FED": QUEUED,
    "REQUEUED_CRON": QUEUED,
    "SPECIAL_EXIT": QUEUED,
    "RESV_DEL_HOLD": QUEUED,
    "EXPEDITING": QUEUED,
    # Its nodes did not come up.
    "LAUNCH_FAILED": NODE_FAILED,
    "RECONFIG_FAIL": NODE_FAILED,
    # A sibling runs on another cluster of a federation: how it ends is not known.
    "REVOKED": UNKNOWN,
}
"""Slurm's state → one of `lossi.contract.records.STATES`."""

REQUEUED = frozenset({"REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "REQUEUED_CRON", "SPECIAL_EXIT", "EXPEDITING"})
"""States of an attempt after which another one may follow."""


@functools.lru_cache(maxsize=256)
def word_of(text: str) -> str:
    """Return the state that counts: CANCELLED of ``CANCELLED by 1000``, the flag of ``RUNNING,COMPLETING`` (state and flags)."""
    words = text.replace("+", " ").replace(",", " ").upper().split()
    known = [word for word in words if word in MEANING]
    return (known or words or [""])[-1 if len(known) > 1 else 0]


def state_of(text: str) -> str:
    """Return the one of `lossi.contract.records.STATES` for a state of Slurm; an unknown state is ``unknown``, never an error."""
    return MEANING.get(word_of(text), UNKNOWN)


def is_rejected(state: str, node_list: str) -> bool:
    """Return whether slurmctld refused this submission: it failed without ever having a node."""
    return word_of(state) == "FAILED" and not node_list

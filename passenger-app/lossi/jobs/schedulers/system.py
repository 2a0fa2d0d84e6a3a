"""Kinds of batch systems: what a folder next to this module gives to the rest of Lossi besides its `Scheduler`.

Each folder has one, called ``SYSTEM``, in its ``__init__``, which must import nothing heavy: all of them are imported to know which
names of schedulers there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from lossi.jobs.schedulers.base import Scheduler

if TYPE_CHECKING:
    from lossi.clusters import Cluster

Cause = Literal["time_limit", "memory", "node_failure", "preemption"]
"""What a batch system can end a task for."""


@dataclass(frozen=True)
class PendingReason:
    """What a reason for waiting means: sentences without a full stop."""

    sentence: str
    suggestion: str = ""
    """What the user can do."""
    passes: bool = True
    """Whether waiting alone helps."""


@dataclass(frozen=True)
class ClusterCheck:
    """One thing that was checked on a cluster."""

    topic: str
    """Such as "partitions"; empty: the cluster as a whole."""
    level: Literal["ok", "warning", "error"]
    detail: str
    hint: str = ""


class BatchSystem:
    """A kind of batch system.

    Attributes
    ----------
    name
        Of its folder.
    schedulers
        Names of its schedulers, as in `JobSpec.scheduler` and `Cluster.scheduler`: one for each way to talk to it.
    has_clusters
        Whether it runs jobs on clusters of the site file; otherwise on this machine.
    """

    name: str
    schedulers: tuple[str, ...]
    has_clusters: bool = True

    def scheduler(self, name: str, cluster: Cluster | None) -> Scheduler:
        """Return the scheduler ``name`` of a cluster (None: of this machine)."""
        raise NotImplementedError

    def check_cluster(self, cluster: Cluster) -> Iterator[ClusterCheck]:
        """Check whether a cluster can be reached and has what the site file offers, for ``lossi doctor``.

        Raises
        ------
        LossiError
            If it does not answer.
        """
        yield from ()

    def explain_pending(self, reason: str) -> PendingReason | None:
        """Return what the scheduler's reason for waiting means; None: it is not one of this system's."""
        return None

    def cause_of_state(self, scheduler_state: str) -> Cause | None:
        """Return what ended a task, if the scheduler's state (`TaskView.scheduler_state`) says it."""
        return None

    def cause_in_log(self, text: str) -> Cause | None:
        """Return what ended a task, if the scheduler wrote it into the task's log or its own."""
        return None

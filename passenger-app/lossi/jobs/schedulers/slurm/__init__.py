"""Slurm 20.11 to 26.05, through its commands (`cli`), slurmrestd (`rest`) or PySlurm (`pyslurm`).

`adapter` is the port over any of these clients; they all answer with `records`. `preflight` holds a request against the cluster's limits.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lossi.jobs.schedulers.system import BatchSystem, Cause, ClusterCheck, PendingReason

if TYPE_CHECKING:
    from lossi.clusters import Cluster
    from lossi.jobs.schedulers.base import Scheduler


class Slurm(BatchSystem):
    """Slurm, with one scheduler for each client."""

    name = "slurm"
    schedulers = ("slurm_cli", "slurm_rest", "slurm_pyslurm")

    def scheduler(self, name: str, cluster: Cluster | None) -> Scheduler:
        """Return the scheduler of a cluster."""
        from lossi.jobs.schedulers.slurm import adapter, client

        assert cluster is not None
        return adapter.SlurmScheduler(cluster, client.of_cluster(cluster))

    def check_cluster(self, cluster: Cluster) -> Iterator[ClusterCheck]:
        """Check versions, commands, accounting, partitions, GPU types and accounts."""
        from lossi.jobs.schedulers.slurm import doctor

        return doctor.check(cluster)

    def explain_pending(self, reason: str) -> PendingReason | None:
        """Return what one of Slurm's reasons means."""
        from lossi.jobs.schedulers.slurm import pending_reasons

        return pending_reasons.explain(reason)

    def cause_of_state(self, scheduler_state: str) -> Cause | None:
        """Return what ended a job in a state such as ``TIMEOUT``."""
        from lossi.jobs.schedulers.slurm import causes

        return causes.of_state(scheduler_state)

    def cause_in_log(self, text: str) -> Cause | None:
        """Return what slurmstepd or srun gave as the cause."""
        from lossi.jobs.schedulers.slurm import causes

        return causes.in_log(text)


SYSTEM = Slurm()

"""The clients of Slurm, all of the same shape: each method asks one question and answers with `records`.

A client's only state is how to reach its cluster. It waits no longer than the cluster's ``deadline_s``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from lossi.clusters import Cluster
from lossi.jobs.schedulers.slurm.records import (
    AccountingRow,
    Association,
    Configuration,
    NodeGroup,
    PartitionRow,
    Qos,
    QueueRow,
)
from lossi.jobs.schedulers.slurm.request import SlurmRequest


class SlurmClient(Protocol):
    """Questions to a Slurm cluster, always as the user of this process.

    Every method raises `Unavailable` if no answer came in time or the daemon is down, and `InvalidInput` or `Forbidden` if
    Slurm refuses, with Slurm's message in ``why``.
    """

    def arguments(self, request: SlurmRequest) -> list[str]:
        """Return the argv that `submit` starts, or its nearest equivalent."""
        ...

    def submit(self, request: SlurmRequest) -> int:
        """Submit and return Slurm's id of the job."""
        ...

    def queue(self, *, ended: bool = False) -> list[QueueRow]:
        """Return the user's jobs in the queue; with ``ended`` also those that ended recently (MinJobAge)."""
        ...

    def accounting(self, jobs: Mapping[int, Sequence[int] | None], *, since: str | None = None) -> list[AccountingRow]:
        """Return the accounting of jobs by Slurm's id: all attempts of the given array tasks (None: of all).

        Jobs of other users are left out.
        """
        ...

    def named(self, prefix: str, since: str) -> list[tuple[int, str]]:
        """Return (id, name) of the user's jobs with this prefix, in the queue or since a time in the database."""
        ...

    def cancel(self, jobs: Mapping[int, Sequence[int] | None]) -> None:
        """Cancel array tasks (None: the whole job); tasks that have ended are not an error."""
        ...

    def configuration(self) -> Configuration:
        """Return the scheduler's configuration."""
        ...

    def partitions(self) -> list[PartitionRow]:
        """Return all partitions that the user may see."""
        ...

    def nodes(self) -> list[NodeGroup]:
        """Return the groups of alike nodes of each partition."""
        ...

    def associations(self) -> list[Association]:
        """Return which accounts the user may charge; empty if the site has no accounting."""
        ...

    def qos(self) -> list[Qos]:
        """Return all qualities of service; empty if the site has none."""
        ...

    def expected_start(self, request: SlurmRequest) -> tuple[str | None, str]:
        """Return when a job would start if it were submitted now, and Slurm's sentence (``sbatch --test-only``)."""
        ...


def of_cluster(cluster: Cluster) -> SlurmClient:
    """Return the client that a cluster names."""
    if cluster.scheduler == "slurm_rest":
        from lossi.jobs.schedulers.slurm.rest import RestClient

        return RestClient(cluster)
    if cluster.scheduler == "slurm_pyslurm":
        from lossi.jobs.schedulers.slurm.pyslurm import PySlurmClient

        return PySlurmClient(cluster)
    from lossi.jobs.schedulers.slurm.cli import CliClient

    return CliClient(cluster)

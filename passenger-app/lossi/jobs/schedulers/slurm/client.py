"""The clients of Slurm, all of the same shape: each method asks one question and answers with `records`.

A client holds no state but how to reach its cluster. It starts nothing but what its name says, with a cleaned environment, and
waits no longer than the cluster's ``deadline_s``.
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
    """What is asked of a Slurm cluster, always as the user whom the process belongs to.

    Every method raises `Unavailable` when no answer came in time or the part that should answer is down, and `InvalidInput`
    or `Forbidden` when Slurm refuses what was asked, with Slurm's own words in ``why``.
    """

    def arguments(self, request: SlurmRequest) -> list[str]:
        """Return the argv that `submit` starts, or its nearest equivalent."""
        ...

    def submit(self, request: SlurmRequest) -> int:
        """Submit and return Slurm's id of the job."""
        ...

    def queue(self, *, ended: bool = False) -> list[QueueRow]:
        """Return the user's own jobs in the queue; with ``ended`` also those that ended lately (MinJobAge)."""
        ...

    def accounting(self, jobs: Mapping[int, Sequence[int] | None], *, since: str | None = None) -> list[AccountingRow]:
        """Return what the database has of jobs by Slurm's id: all attempts of the given array tasks (None: of all).

        Those of another user are left out.
        """
        ...

    def named(self, prefix: str, since: str) -> list[tuple[int, str]]:
        """Return (id, name) of the user's jobs, in the queue or in the database since a time, whose name begins so."""
        ...

    def cancel(self, jobs: Mapping[int, Sequence[int] | None]) -> None:
        """Cancel array tasks (None: the whole job); those that have ended are no error."""
        ...

    def configuration(self) -> Configuration:
        """Return what of the scheduler's configuration matters."""
        ...

    def partitions(self) -> list[PartitionRow]:
        """Return all partitions that the user may see."""
        ...

    def nodes(self) -> list[NodeGroup]:
        """Return what kinds of node each partition has."""
        ...

    def associations(self) -> list[Association]:
        """Return which accounts the user may charge; empty where the site keeps no accounts."""
        ...

    def qualities(self) -> list[Qos]:
        """Return all qualities of service; empty where the site keeps none."""
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

"""The description of a cluster, asked for rarely and cached: configuration, partitions, nodes, associations, qualities of service."""

from __future__ import annotations

import grp
import os
from collections.abc import Callable, Sequence
from typing import TypeVar

from pydantic import TypeAdapter

from lossi.clusters import Cluster
from lossi.errors import LossiError, NotSupported, Unavailable
from lossi.jobs.schedulers.slurm.cache import Cache
from lossi.jobs.schedulers.slurm.client import SlurmClient
from lossi.jobs.schedulers.slurm.preflight.findings import Known
from lossi.jobs.schedulers.slurm.records import Association, Configuration, NodeGroup, PartitionRow, Qos, QueueRow

CONFIGURATION_S = 3600.0
DESCRIPTION_S = 600.0
"""Only an administrator changes partitions and limits, and Slurm itself decides anyway."""

T = TypeVar("T")
_CONFIGURATION = TypeAdapter(Configuration)
_PARTITIONS = TypeAdapter(list[PartitionRow])
_NODES = TypeAdapter(list[NodeGroup])
_ASSOCIATIONS = TypeAdapter(list[Association])
_QOS = TypeAdapter(list[Qos])


class Description:
    """The description of a cluster through one client."""

    def __init__(self, cluster: Cluster, client: SlurmClient, cache: Cache) -> None:
        self._cluster = cluster
        self._client = client
        self._cache = cache

    def configuration(self) -> Configuration:
        """Return the scheduler's configuration.

        Raises
        ------
        LossiError
            If it was never answered.
        """
        return self._cache.get("configuration", CONFIGURATION_S, _CONFIGURATION, self._client.configuration).value

    def accounts(self) -> bool:
        """Return whether a database keeps ended jobs; True until it is known."""
        try:
            return self.configuration().accounting
        except LossiError:
            return True

    def known(self, queue: Callable[[], Sequence[QueueRow]]) -> Known:
        """Return what requests are checked against; if the cluster does not answer, the rest is not asked for."""
        client = self._client
        questions = _Asked()
        configuration = questions.of(self.configuration)
        return Known(
            self._cluster,
            configuration,
            questions.of(lambda: self._cache.get("partitions", DESCRIPTION_S, _PARTITIONS, client.partitions).value),
            questions.of(lambda: self._cache.get("nodes", DESCRIPTION_S, _NODES, client.nodes).value),
            questions.of(lambda: self._cache.get("associations", DESCRIPTION_S, _ASSOCIATIONS, client.associations).value),
            questions.of(lambda: self._cache.get("qos", DESCRIPTION_S, _QOS, client.qos).value),
            questions.of(queue),
            _groups(),
        )


class _Asked:
    """One question after another until one is not answered."""

    def __init__(self) -> None:
        self._away = False

    def of(self, ask: Callable[[], T]) -> T | None:
        if self._away:
            return None
        try:
            return ask()
        except NotSupported:
            return None
        except Unavailable:
            self._away = True
            return None


def _groups() -> list[str] | None:
    try:
        return [grp.getgrgid(number).gr_name for number in {os.getegid(), *os.getgroups()}]
    except (KeyError, OSError):
        return None

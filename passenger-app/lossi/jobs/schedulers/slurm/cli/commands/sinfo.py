"""sinfo: the groups of alike nodes of each partition."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from lossi.clusters import Cluster
from lossi.jobs.schedulers.slurm import values
from lossi.jobs.schedulers.slurm.cli.commands import UNIT, Unreadable, chosen, records, without_cluster
from lossi.jobs.schedulers.slurm.records import NodeGroup

# partition (without the star of the default), nodes, cores, memory, generic resources, features, state
FIELDS = ("%R", "%D", "%c", "%m", "%G", "%f", "%T")


@dataclass(frozen=True)
class Sinfo:
    """Nodes of each partition in groups of alike ones (``--exact``: not together with larger ones)."""

    name: ClassVar[str] = "sinfo"

    def argv(self, cluster: Cluster) -> list[str]:
        """Return what to start."""
        form = "".join(f"{field}{UNIT}" for field in FIELDS)
        return [cluster.command(self.name), *chosen(cluster), "--noheader", "--exact", f"--format={form}"]

    def parse(self, text: str) -> list[NodeGroup]:
        """Return the groups.

        Raises
        ------
        Unreadable
            If the output is truncated or not as expected.
        """
        try:
            groups = [_group(*record) for record in records(self.name, without_cluster(text), len(FIELDS))]
        except ValueError as error:
            raise Unreadable(self.name, str(error)) from error
        return [group for group in groups if group.nodes]


def _group(partition: str, nodes: str, cpus: str, memory: str, gres: str, features: str, state: str) -> NodeGroup:
    gpus: dict[str, int] = {}
    for kind, number in values.gres(gres):
        gpus[kind] = gpus.get(kind, 0) + number
    return NodeGroup(
        partition=partition,
        nodes=int(nodes),
        cpus=int(cpus),
        memory_mb=int(memory),
        gpus=gpus,
        features=() if values.is_nothing(features) else tuple(features.split(",")),
        # A sign is appended to the state: * does not answer, ~ # ! % $ @ ^ - power and reboots.
        state=state.rstrip("*~#!%$@^-+"),
    )

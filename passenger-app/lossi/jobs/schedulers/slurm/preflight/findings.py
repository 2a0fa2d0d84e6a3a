"""Findings about a request, and what it is checked against. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from lossi.clusters import Cluster
from lossi.jobs.schedulers.slurm.records import Association, Configuration, NodeGroup, PartitionRow, Qos, QueueRow
from lossi.jobs.schedulers.slurm.request import SlurmRequest

Level = Literal["refused", "waits", "note"]


@dataclass(frozen=True)
class Finding:
    """A limit that affects a request.

    Attributes
    ----------
    level
        ``refused``: Slurm would reject the job or never start it; ``waits``: it would wait for the user's other jobs, or until
        the site changes something; ``note``: it can run, but perhaps not as meant.
    limit
        The limit's name for programs, such as ``partition.max_time`` or ``qos.MaxTRESPerUser.gres/gpu``.
    asked, allowed
        Numbers, or times in Slurm's format; None if there is nothing to count.
    """

    level: Level
    limit: str
    asked: str | int | None
    allowed: str | int | None
    message: str
    hint: str = ""


@dataclass(frozen=True)
class Known:
    """What a request is checked against; None: not known, and nothing is refused for it.

    Attributes
    ----------
    queue
        The user's jobs.
    groups
        Names of the user's groups.
    """

    cluster: Cluster
    configuration: Configuration | None = None
    partitions: Sequence[PartitionRow] | None = None
    nodes: Sequence[NodeGroup] | None = None
    associations: Sequence[Association] | None = None
    qos: Sequence[Qos] | None = None
    queue: Sequence[QueueRow] | None = None
    groups: Collection[str] | None = None

    def partition(self, name: str) -> PartitionRow | None:
        """Return a partition; None if there is none of that name, or it is not known."""
        return next((row for row in self.partitions or () if row.name == name), None)

    def enforced(self) -> frozenset[str]:
        """Return what accounting enforces: ``associations``, ``limits``, ``qos``, ``safe``."""
        words = {word.strip().lower() for word in (self.configuration.enforced if self.configuration else ())}
        if "all" in words or "safe" in words:
            words |= {"limits"}
        if words & {"limits", "qos", "wckeys", "all"}:
            words |= {"associations"}
        return frozenset(words | {"qos"} if "all" in words else words)


def at_once(request: SlurmRequest, tasks: int) -> int:
    """Return how many tasks may run at the same time."""
    return max(1, min(tasks, request.throttle or tasks))


def seconds(request: SlurmRequest) -> int | None:
    """Return the requested time limit in seconds."""
    return None if request.time_limit_min is None else request.time_limit_min * 60


def memory_asked(request: SlurmRequest, row: PartitionRow | None) -> int | None:
    """Return MiB per node: as requested, otherwise the partition's default; None: not known."""
    if request.memory_mb is not None or row is None:
        return request.memory_mb
    per_cpu = row.default_memory_per_cpu_mb
    return row.default_memory_per_node_mb or (per_cpu * request.cpus if per_cpu else None)


def tres(request: SlurmRequest, row: PartitionRow | None) -> dict[str, int]:
    """Return the resources of one task, over all its nodes, by TRES name."""
    taken = {"node": request.nodes, "cpu": request.nodes * request.cpus, "gres/gpu": request.nodes * request.gpus}
    memory = memory_asked(request, row)
    if memory is not None:
        taken["mem"] = memory * request.nodes
    if request.gpu_type:
        taken[f"gres/gpu:{request.gpu_type}"] = taken["gres/gpu"]
    return taken


def counted(number: int, what: str) -> str:
    """Return a number of things for a sentence, in the singular for one."""
    singular = re.sub(r"^(node|core|GPU|job|task)s", r"\1", what)
    return f"{number:,} {singular if number == 1 else what}"


def listed(words: Collection[str], most: int = 8) -> str:
    """Return names for a sentence, only the first few of many."""
    names = sorted(words)
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")

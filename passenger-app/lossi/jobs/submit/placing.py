"""What follows from where a job runs: variant of its environment, mounts, set-up lines, scratch folder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from lossi import clusters, environments
from lossi.contract.records import Resources
from lossi.jobs import schedulers


@dataclass(frozen=True)
class Place:
    """What follows from the machine or the partition that a job runs on.

    Attributes
    ----------
    architecture
        None: that of this machine.
    """

    accelerator: str = "none"
    architecture: str | None = None
    mounts: Sequence[environments.Mount] = ()
    setup: list[str] = field(default_factory=list)
    scratch: str | None = None


def find_place(scheduler: schedulers.Scheduler, resources: Resources) -> Place:
    """Return where a scheduler would run a job.

    Raises
    ------
    InvalidInput
        When the site does not offer the partition, or the partition has no such GPUs.
    """
    cluster = scheduler.target
    if cluster is None:
        return Place(_accelerator_by_name(resources))
    accelerator = "none"
    if resources.gpus:
        accelerator = clusters.accelerator_of(cluster, resources.partition, resources.gpu_type) or _accelerator_by_name(resources)
    return Place(
        accelerator,
        clusters.architecture_of(cluster, resources.partition),
        [
            environments.Mount(
                source=str(mount.source), target=None if mount.target is None else str(mount.target), read_only=mount.read_only
            )
            for mount in cluster.mounts
        ],
        list(cluster.setup),
        cluster.scratch,
    )


def _accelerator_by_name(resources: Resources) -> str:
    if not resources.gpus:
        return "none"
    # AMD calls its accelerators MI…; the other GPU types of clusters are NVIDIA's.
    return "rocm" if re.match(r"(?i)(amd|mi[0-9])", resources.gpu_type or "") else "cuda"

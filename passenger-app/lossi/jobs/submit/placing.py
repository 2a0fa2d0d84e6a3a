"""Where a job runs, as far as that decides what it is given: variant of its environment, mounts, set-up lines, scratch folder. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from lossi import clusters, environments
from lossi.contract.records import Resources
from lossi.jobs import schedulers


@dataclass(frozen=True)
class Place:
    """What follows from the machine or the partition of a cluster on which a job is to run.

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


def of(scheduler: schedulers.Scheduler, asked: Resources) -> Place:
    """Return the place that a scheduler would give to a job.

    Raises
    ------
    InvalidInput
        When the site does not offer the partition, or it has no such GPUs.
    """
    cluster = scheduler.target
    if cluster is None:
        return Place(_by_name(asked))
    accelerator = "none"
    if asked.gpus:
        accelerator = clusters.accelerator_of(cluster, asked.partition, asked.gpu_type) or _by_name(asked)
    return Place(
        accelerator,
        clusters.architecture_of(cluster, asked.partition),
        [
            environments.Mount(
                source=str(one.source), target=None if one.target is None else str(one.target), read_only=one.read_only
            )
            for one in cluster.mounts
        ],
        list(cluster.setup),
        cluster.scratch,
    )


def _by_name(asked: Resources) -> str:
    if not asked.gpus:
        return "none"
    # AMD names its accelerators MI…; everything else that clusters name by type is NVIDIA's.
    return "rocm" if re.match(r"(?i)(amd|mi[0-9])", asked.gpu_type or "") else "cuda"

"""What a cluster offers: which GPUs are where, which variant of an environment a partition needs, how GPUs are counted. Pure.

Knows only the site's configuration. If that says nothing, the answer is None or empty, and the caller asks the scheduler.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from lossi.clusters.models import Accelerator, AccountPolicy, Architecture, Cluster, GpuType, OfferedPartition
from lossi.errors import InvalidInput, did_you_mean


class ClusterOffer(BaseModel):
    """A cluster as users see it, without how it is reached."""

    model_config = ConfigDict(frozen=True)

    name: str
    title: str
    default: bool = Field(description="Whether jobs that name no cluster use it.")
    scheduler: str = Field(description="Client in use: `slurm_cli`, `slurm_rest` or `slurm_pyslurm`.")
    login_host: str | None
    partitions: tuple[OfferedPartition, ...] = Field(description="Partitions on offer; empty: all that the scheduler has.")
    default_partition: str | None
    gpu_types: dict[str, tuple[str, ...]] = Field(description="GPU type → partitions that have it.")
    account: AccountPolicy
    max_tasks: int | None = Field(description="Maximum number of tasks in a job.")
    labels: dict[str, str]


def offer(cluster: Cluster, *, default: bool = False) -> ClusterOffer:
    """Return a cluster as users see it."""
    return ClusterOffer(
        name=cluster.name,
        title=cluster.title or cluster.name,
        default=default,
        scheduler=cluster.scheduler,
        login_host=cluster.login_host,
        partitions=cluster.partitions,
        default_partition=cluster.default_partition,
        gpu_types=gpu_types(cluster),
        account=cluster.account,
        max_tasks=cluster.max_tasks,
        labels=cluster.labels,
    )


def offered(cluster: Cluster, partition: str | None) -> OfferedPartition | None:
    """Return the site's settings of a partition (None: the default partition), or None if the site lists no partitions.

    Raises
    ------
    InvalidInput
        When the site lists partitions and this is not one of them.
    """
    name = partition or cluster.default_partition
    if not cluster.partitions or name is None:
        return None
    by_name = {candidate.name: candidate for candidate in cluster.partitions}
    if name in by_name:
        return by_name[name]
    names = list(by_name)
    raise InvalidInput(
        f"partition {name[:80]!r} is not offered on {cluster.name}",
        hint=did_you_mean(name, names) or f"choose one of {', '.join(names)}",
        known=names,
    )


def gpu_types(cluster: Cluster) -> dict[str, tuple[str, ...]]:
    """Return GPU type → names of the partitions that have it, in the site's order."""
    by_type: dict[str, list[str]] = {}
    for partition in cluster.partitions:
        for gpu in partition.gpu_types:
            by_type.setdefault(gpu.name, []).append(partition.name)
    return {name: tuple(partitions) for name, partitions in by_type.items()}


def gpu_type(cluster: Cluster, partition: str | None, name: str | None) -> GpuType | None:
    """Return a GPU type by name; without a name, the only one in the partition.

    Returns
    -------
    GpuType or None
        None if the site lists no GPU types, or several and ``name`` is None.

    Raises
    ------
    InvalidInput
        When the partition is not offered or has no GPU of that type.
    """
    offer = offered(cluster, partition)
    candidates = _distinct(offer.gpu_types if offer is not None else _all(cluster))
    if name is None:
        return candidates[0] if len(candidates) == 1 else None
    for gpu in candidates:
        if gpu.name == name:
            return gpu
    if offer is None:
        return None
    names = [gpu.name for gpu in candidates]
    elsewhere = gpu_types(cluster).get(name, ())
    hint = f"{name} is in {' and '.join(elsewhere)}" if elsewhere else did_you_mean(name, names)
    what = f"partition {offer.name!r} has no GPU of type {name[:80]!r}" if names else f"partition {offer.name!r} has no GPUs"
    raise InvalidInput(
        what, hint=hint or (f"choose one of {', '.join(names)}" if names else "choose another partition"), known=names
    )


def accelerator_of(cluster: Cluster, partition: str | None, gpu_type_name: str | None = None) -> Accelerator | None:
    """Return the environment variant that a partition's GPUs need: ``cuda`` or ``rocm``.

    Returns
    -------
    str or None
        None if the site does not say, or has both and ``gpu_type_name`` is None.

    Raises
    ------
    InvalidInput
        As `gpu_type`.
    """
    if gpu_type_name is not None:
        gpu = gpu_type(cluster, partition, gpu_type_name)
        return gpu.accelerator if gpu else None
    offer = offered(cluster, partition)
    kinds = {gpu.accelerator for gpu in (offer.gpu_types if offer is not None else _all(cluster))}
    return kinds.pop() if len(kinds) == 1 else None


def architecture_of(cluster: Cluster, partition: str | None) -> Architecture | None:
    """Return the architecture of a partition's nodes; None: this machine's.

    Raises
    ------
    InvalidInput
        When the partition is not offered.
    """
    offer = offered(cluster, partition)
    return offer.architecture if offer is not None else None


def units(cluster: Cluster, partition: str | None, gpu_type_name: str | None) -> int:
    """Return how many of the scheduler's GPUs make one card, by default 1.

    Never raises, because accounting also covers partitions that are no longer offered.
    """
    here = [gpu for offer in cluster.partitions if offer.name == partition for gpu in offer.gpu_types]
    for candidates in (here, _all(cluster)):
        matching = {gpu.units_per_gpu for gpu in candidates if gpu_type_name in (None, gpu.name)}
        if len(matching) == 1:
            return matching.pop()
    return 1


def gpu_hours(cluster: Cluster, partition: str | None, gpu_type_name: str | None, gpus: float, seconds: float) -> float:
    """Return GPU hours in whole cards for a number of the scheduler's GPUs.

    LUMI's scheduler counts dies (GCDs), two per card: an hour on one die is half a GPU hour.
    """
    return gpus * seconds / 3600 / units(cluster, partition, gpu_type_name)


def _all(cluster: Cluster) -> tuple[GpuType, ...]:
    return tuple(gpu for partition in cluster.partitions for gpu in partition.gpu_types)


def _distinct(gpus: tuple[GpuType, ...]) -> list[GpuType]:
    return list({gpu.name: gpu for gpu in gpus}.values())

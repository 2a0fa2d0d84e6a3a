"""What a cluster offers: which GPUs are where, which variant of an environment a partition needs, how GPUs are counted. Pure.

Knows only what the site wrote down. Where it wrote down nothing, the answer is None or empty, and the scheduler is to be asked.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from lossi.clusters.models import Accelerator, AccountPolicy, Architecture, Cluster, GpuType, OfferedPartition
from lossi.errors import InvalidInput, did_you_mean


class ClusterOffer(BaseModel):
    """A cluster as users see it: nothing of how it is reached."""

    model_config = ConfigDict(frozen=True)

    name: str
    title: str
    default: bool = Field(description="Whether it is meant where a job names none.")
    scheduler: str = Field(description="How it is talked to: `slurm_cli`, `slurm_rest` or `slurm_pyslurm`.")
    login_host: str | None
    partitions: tuple[OfferedPartition, ...] = Field(description="What is offered; empty: all that the scheduler names.")
    default_partition: str | None
    gpu_types: dict[str, tuple[str, ...]] = Field(description="Type of GPU → the partitions that have it.")
    account: AccountPolicy
    max_tasks: int | None = Field(description="Most tasks in one job.")
    labels: dict[str, str]


def offer(cluster: Cluster, *, default: bool = False) -> ClusterOffer:
    """Return what users may see of a cluster."""
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
    """Return what the site wrote down of a partition (None: of the default one), or None where it offers all there are.

    Raises
    ------
    InvalidInput
        When the site offers some partitions and this is none of them.
    """
    name = partition or cluster.default_partition
    if not cluster.partitions or name is None:
        return None
    for one in cluster.partitions:
        if one.name == name:
            return one
    names = [one.name for one in cluster.partitions]
    raise InvalidInput(
        f"partition {name[:80]!r} is not offered on {cluster.name}",
        hint=did_you_mean(name, names) or f"choose one of {', '.join(names)}",
        known=names,
    )


def gpu_types(cluster: Cluster) -> dict[str, tuple[str, ...]]:
    """Return type of GPU → names of the partitions that have it, in the site's order."""
    found: dict[str, list[str]] = {}
    for partition in cluster.partitions:
        for gpu in partition.gpu_types:
            found.setdefault(gpu.name, []).append(partition.name)
    return {name: tuple(partitions) for name, partitions in found.items()}


def gpu_type(cluster: Cluster, partition: str | None, name: str | None) -> GpuType | None:
    """Return the kind of GPU that is meant; without a name, the only one of the partition.

    Returns
    -------
    GpuType or None
        None where the site wrote down none, or several and none was named.

    Raises
    ------
    InvalidInput
        When the partition is not offered, or has GPUs but none of that type.
    """
    place = offered(cluster, partition)
    candidates = _distinct(place.gpu_types if place is not None else _all(cluster))
    if name is None:
        return candidates[0] if len(candidates) == 1 else None
    for gpu in candidates:
        if gpu.name == name:
            return gpu
    if place is None:
        return None
    names = [gpu.name for gpu in candidates]
    elsewhere = gpu_types(cluster).get(name, ())
    hint = f"{name} is in {' and '.join(elsewhere)}" if elsewhere else did_you_mean(name, names)
    what = f"partition {place.name!r} has no GPU of type {name[:80]!r}" if names else f"partition {place.name!r} has no GPUs"
    raise InvalidInput(
        what, hint=hint or (f"choose one of {', '.join(names)}" if names else "choose another partition"), known=names
    )


def accelerator_of(cluster: Cluster, partition: str | None, gpu_type_name: str | None = None) -> Accelerator | None:
    """Return which variant of an environment the GPUs of a partition need: ``cuda`` or ``rocm``.

    Returns
    -------
    str or None
        None where the site does not say, or has both and none was named.

    Raises
    ------
    InvalidInput
        As `gpu_type`.
    """
    if gpu_type_name is not None:
        gpu = gpu_type(cluster, partition, gpu_type_name)
        return gpu.accelerator if gpu else None
    place = offered(cluster, partition)
    kinds = {gpu.accelerator for gpu in (place.gpu_types if place is not None else _all(cluster))}
    return kinds.pop() if len(kinds) == 1 else None


def architecture_of(cluster: Cluster, partition: str | None) -> Architecture | None:
    """Return the architecture of a partition's nodes; None: as this machine.

    Raises
    ------
    InvalidInput
        When the partition is not offered.
    """
    place = offered(cluster, partition)
    return place.architecture if place is not None else None


def units(cluster: Cluster, partition: str | None, gpu_type_name: str | None) -> int:
    """Return how many of the scheduler's GPUs are one card, 1 where the site does not say.

    Never raises: it also serves to read what the scheduler has accounted for partitions that are not offered any more.
    """
    here = [gpu for one in cluster.partitions if one.name == partition for gpu in one.gpu_types]
    for candidates in (here, _all(cluster)):
        matching = {gpu.units_per_gpu for gpu in candidates if gpu_type_name in (None, gpu.name)}
        if len(matching) == 1:
            return matching.pop()
    return 1


def gpu_hours(cluster: Cluster, partition: str | None, gpu_type_name: str | None, gpus: float, seconds: float) -> float:
    """Return the hours of whole cards that so many of the scheduler's GPUs are for so long.

    LUMI's scheduler counts dies (GCDs) and bills half an hour for an hour of one, because a card has two.
    """
    return gpus * seconds / 3600 / units(cluster, partition, gpu_type_name)


def _all(cluster: Cluster) -> tuple[GpuType, ...]:
    return tuple(gpu for partition in cluster.partitions for gpu in partition.gpu_types)


def _distinct(gpus: tuple[GpuType, ...]) -> list[GpuType]:
    return list({gpu.name: gpu for gpu in gpus}.values())

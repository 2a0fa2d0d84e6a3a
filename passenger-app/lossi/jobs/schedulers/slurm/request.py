"""A submission to Slurm, in one form that the clients (sbatch, slurmrestd, PySlurm) translate. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lossi.clusters import Cluster
from lossi.contract import records
from lossi.contract.records import PreparedJob, Resources
from lossi.jobs.schedulers.base import LOG
from lossi.jobs.schedulers.slurm.array_chunks import ArrayChunk

NAME = "lossi-"
"""Names of jobs begin so and hold Lossi's id only: every user of the cluster can see them."""
SHORTEST_SIGNALLED_S = 180
"""A signal may come up to a minute early: shorter jobs get Slurm's own SIGTERM only."""


@dataclass(frozen=True)
class SlurmRequest:
    """One submission: a job without an array, or one array.

    Attributes
    ----------
    name
        ``lossi-<id>``, with ``+<offset>`` for the further chunks of a sweep that one array cannot hold: script.sh adds the
        offset to the array's index.
    script
        Absolute path of ``script.sh``; `directory` is the job directory, in which it runs.
    memory_mb, gpus, cpus
        Per node; a task has one process per node.
    time_limit_min
        Whole minutes: Slurm knows no smaller unit.
    array
        Indices, always from 0; None: no array.
    throttle
        Maximum number of tasks at once.
    signal_s
        SIGUSR1 goes to the batch script this long before the limit.
    dependency
        In Slurm's format: ``afterok:12:13``.
    environment
        Variables of the job; none of the submitting process. Everybody can read them.
    options
        The site's additional options, ``--name=value``.
    """

    name: str
    script: Path
    directory: Path
    output: Path
    nodes: int = 1
    cpus: int = 1
    memory_mb: int | None = None
    gpus: int = 0
    gpu_type: str | None = None
    gpu_option: str = "gres"
    time_limit_min: int | None = None
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    array: range | None = None
    throttle: int | None = None
    signal_s: int | None = None
    requeue: bool = True
    dependency: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()


def build(job: PreparedJob, directory: Path, cluster: Cluster, chunk: ArrayChunk, throttle: int | None) -> SlurmRequest:
    """Return the request that runs one chunk of a job's tasks."""
    limit = job.resources.time_limit_s
    return SlurmRequest(
        name=chunk_name(job.id, chunk),
        script=directory / records.SCRIPT,
        directory=directory,
        output=directory / LOG,
        **_resources(job.resources, cluster),
        array=range(chunk.tasks) if job.tasks > 1 else None,
        throttle=throttle if throttle is not None and throttle < chunk.tasks else None,
        signal_s=cluster.signal_before_s
        if limit is not None and limit >= SHORTEST_SIGNALLED_S + cluster.signal_before_s
        else None,
        requeue=job.requeue,
        dependency=job.dependency,
    )


def session(resources: Resources, cluster: Cluster) -> SlurmRequest:
    """Return the request for a session that another program submits: it has no script and no name yet."""
    nowhere = Path()
    return SlurmRequest("", nowhere, nowhere, nowhere, **_resources(resources, cluster), requeue=False)


def _resources(resources: Resources, cluster: Cluster) -> dict[str, Any]:
    limit = resources.time_limit_s
    return {
        "nodes": resources.nodes,
        "cpus": resources.cpus,
        "memory_mb": resources.memory_mb,
        "gpus": resources.gpus,
        "gpu_type": resources.gpu_type,
        "gpu_option": cluster.gpu_option,
        "time_limit_min": None if limit is None else math.ceil(limit / 60),
        "partition": resources.partition or cluster.default_partition,
        "account": resources.account or cluster.account.default,
        "qos": resources.qos,
        "constraint": resources.constraint,
        "options": cluster.options,
    }


def chunk_name(job_id: str, chunk: ArrayChunk) -> str:
    """Return Slurm's name of a chunk."""
    return f"{NAME}{job_id}+{chunk.offset}" if chunk.offset else f"{NAME}{job_id}"


def chunk_of(slurm_id: int, name: str) -> ArrayChunk:
    """Return the chunk that Slurm knows by an id and a name of `chunk_name`; its number of tasks is not known."""
    offset = name.rpartition("+")[2] if "+" in name else "0"
    return ArrayChunk(int(offset) if offset.isdecimal() else 0, 0, slurm_id)

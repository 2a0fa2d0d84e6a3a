"""What Slurm is asked for, in one form that the doors (sbatch, slurmrestd, PySlurm) put into their own words. Pure."""

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
from lossi.jobs.schedulers.slurm.array_chunks import Part

NAME = "lossi-"
"""A job is called by Lossi's id and nothing of the user's: every user of the cluster sees names."""
SHORTEST_SIGNALLED_S = 180
"""A signal may come up to a minute early: jobs shorter than this are told by Slurm's own SIGTERM alone."""


@dataclass(frozen=True)
class SlurmRequest:
    """One submission: a job without an array, or one array.

    Attributes
    ----------
    name
        ``lossi-<id>``, and ``+<offset>`` for the further parts of a sweep that one array cannot hold: script.sh adds the
        offset to the array's index.
    script
        Absolute path of ``script.sh``; `directory` is the job directory, in which it runs.
    memory_mb, gpus, cpus
        Per node; a task has one process per node.
    time_limit_min
        Whole minutes, because Slurm knows no less.
    array
        Indices, always from 0; None: no array.
    throttle
        At most so many at once.
    signal_s
        SIGUSR1 goes to the batch script this long before the limit.
    dependency
        As Slurm writes it: ``afterok:12:13``.
    environment
        Variables of the job; nothing of the submitting process is passed on. Only what everybody may read.
    options
        The site's further options, ``--name=value``.
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


def build(job: PreparedJob, directory: Path, cluster: Cluster, part: Part, throttle: int | None) -> SlurmRequest:
    """Return what Slurm is asked for to run one part of a job's tasks."""
    limit = job.resources.time_limit_s
    return SlurmRequest(
        name=part_name(job.id, part),
        script=directory / records.SCRIPT,
        directory=directory,
        output=directory / LOG,
        **_resources(job.resources, cluster),
        array=range(part.tasks) if job.tasks > 1 else None,
        throttle=throttle if throttle is not None and throttle < part.tasks else None,
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


def part_name(job_id: str, part: Part) -> str:
    """Return the name under which Slurm knows a part of a job."""
    return f"{NAME}{job_id}+{part.offset}" if part.offset else f"{NAME}{job_id}"

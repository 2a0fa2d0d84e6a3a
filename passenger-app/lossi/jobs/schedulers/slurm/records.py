"""Slurm's answers in one form, whichever client got them. Pure.

Times are ISO 8601 in UTC with ``Z``, durations seconds, memory MiB. None and "": not known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import PlainSerializer, PlainValidator

Span = Annotated[
    range,
    PlainValidator(lambda value: value if isinstance(value, range) else range(*value)),
    PlainSerializer(lambda value: [value.start, value.stop, value.step], return_type=list[int]),
]
"""A range that can be stored as JSON."""


@dataclass(frozen=True)
class QueueRow:
    """One row of the queue: a job, a task of an array, or the tasks of an array that have not started."""

    job_id: int
    """Id of the array for its tasks, otherwise the job's own."""
    name: str
    state: str
    """Slurm's base state in its long form, such as PENDING; flags such as COMPLETING replace it."""
    tasks: tuple[Span, ...] | None = None
    """The array tasks of this row; None for a job without an array. A pending array is one row."""
    reason: str = ""
    """Slurm's own reason, such as Resources; empty for None."""
    partition: str = ""
    account: str = ""
    qos: str = ""
    nodes: int | None = None
    node_list: str = ""
    cpus: int | None = None
    gpus: int | None = None
    gpu_type: str | None = None
    submitted: str | None = None
    eligible: str | None = None
    started: str | None = None
    """When it started; for a pending job, when Slurm expects it to start."""
    ended: str | None = None
    """When it ended, or will have reached its time limit."""
    time_limit_s: int | None = None
    restarts: int | None = None
    priority: int | None = None
    exit_code: int | None = None
    signal: int | None = None


@dataclass(frozen=True)
class AccountingRow:
    """One attempt of a job or array task in the accounting database, with all its steps."""

    job_id: int
    """Id of the array for its tasks, otherwise the job's own."""
    name: str
    state: str
    """Long form only: ``CANCELLED by 1000`` is CANCELLED."""
    task: int | None = None
    """Number of the array task; None for a job without an array."""
    tasks: tuple[Span, ...] = ()
    """Instead of ``task``: those of an array that never started."""
    cancelled_by: int | None = None
    """uid of the user who cancelled it."""
    reason: str = ""
    exit_code: int | None = None
    signal: int | None = None
    partition: str = ""
    account: str = ""
    qos: str = ""
    cluster: str = ""
    nodes: int | None = None
    node_list: str = ""
    cpus: int | None = None
    """Allocated."""
    memory_mb: float | None = None
    """Allocated, over all nodes."""
    gpus: int | None = None
    gpu_type: str | None = None
    submitted: str | None = None
    eligible: str | None = None
    started: str | None = None
    ended: str | None = None
    elapsed_s: float | None = None
    time_limit_s: int | None = None
    cpu_s: float | None = None
    """User and system time of all steps (sacct's TotalCPU)."""
    max_rss_mb: float | None = None
    """As seff: the maximum over the steps of MaxRSS × number of tasks."""
    billing: float | None = None
    energy_j: float | None = None
    admin_comment: str = ""
    restarts: int | None = None


@dataclass(frozen=True)
class PartitionRow:
    """A partition."""

    name: str
    state: str = "UP"
    default: bool = False
    max_time_s: int | None = None
    """None: unlimited."""
    default_time_s: int | None = None
    min_nodes: int | None = None
    max_nodes: int | None = None
    """None: unlimited."""
    total_nodes: int | None = None
    max_cpus_per_node: int | None = None
    max_memory_per_node_mb: int | None = None
    max_memory_per_cpu_mb: int | None = None
    default_memory_per_cpu_mb: int | None = None
    default_memory_per_node_mb: int | None = None
    allowed_accounts: tuple[str, ...] = ()
    """Empty: all."""
    denied_accounts: tuple[str, ...] = ()
    allowed_qos: tuple[str, ...] = ()
    denied_qos: tuple[str, ...] = ()
    allowed_groups: tuple[str, ...] = ()
    qos: str = ""
    """Its own QOS, whose limits also apply."""


@dataclass(frozen=True)
class NodeGroup:
    """A group of alike nodes of a partition."""

    partition: str
    nodes: int
    cpus: int
    memory_mb: int
    gpus: Mapping[str, int] = field(default_factory=dict)
    """Type (empty: untyped) → number on each node."""
    features: tuple[str, ...] = ()
    state: str = ""


@dataclass(frozen=True)
class Limits:
    """The limits of an association or a quality of service; None: no limit. TRES by name, as ``cpu``, ``mem`` (MiB), ``node``, ``gres/gpu``."""

    max_wall_s: int | None = None
    max_jobs: int | None = None
    """Running at once."""
    max_submit: int | None = None
    """Submitted at once; each array task counts."""
    max_tres_per_job: Mapping[str, int] = field(default_factory=dict)
    max_tres_per_node: Mapping[str, int] = field(default_factory=dict)
    min_tres_per_job: Mapping[str, int] = field(default_factory=dict)
    max_tres: Mapping[str, int] = field(default_factory=dict)
    """At once by this user (QOS: MaxTRESPU) or by the whole association (GrpTRES)."""
    group_tres: Mapping[str, int] = field(default_factory=dict)
    group_jobs: int | None = None
    group_submit: int | None = None
    group_tres_minutes: Mapping[str, int] = field(default_factory=dict)
    max_tres_minutes_per_job: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Association:
    """The right of a user to charge an account, in one partition or in all."""

    cluster: str
    account: str
    partition: str = ""
    """Empty: all partitions."""
    qos: tuple[str, ...] = ()
    default_qos: str = ""
    is_default: bool = False
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class Qos:
    """A quality of service."""

    name: str
    limits: Limits = field(default_factory=Limits)
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Configuration:
    """The scheduler's configuration, as far as it matters here."""

    version: str
    """Such as 22.05.8."""
    cluster: str = ""
    max_array_size: int | None = None
    """Array indices are smaller."""
    max_job_count: int | None = None
    min_job_age_s: int | None = None
    accounting: bool = False
    """Whether a database keeps ended jobs."""
    enforced: tuple[str, ...] = ()
    """AccountingStorageEnforce, such as associations, limits, qos."""
    preemption: str = ""
    requeue: bool = True
    """JobRequeue."""
    gpus: bool = False
    parameters: Mapping[str, str] = field(default_factory=dict)

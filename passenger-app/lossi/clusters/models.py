"""A cluster's configuration: how to reach its scheduler and what the site offers on it. Pure."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, Field, model_validator

from lossi import units
from lossi.clusters.fields import FROZEN, AbsolutePath, Host, Line, Name, refuse_twice
from lossi.clusters.slurm import SlurmScheduler, SlurmSettings


def _time(value: str) -> str:
    try:
        units.parse_time(value)
    except ValueError:
        raise ValueError('must be a time limit in quotes, such as "2-00:00:00" or "36:00:00"') from None
    return value


def _memory(value: str) -> str:
    try:
        units.parse_memory(value)
    except ValueError:
        raise ValueError("must be an amount of memory, such as 480G") from None
    return value


def _expression(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"must be a regular expression: {error}") from None
    return value


def _folder(value: str) -> str:
    if not value.startswith("/"):
        raise ValueError("must be an absolute path")
    if "$" in re.sub(r"\$(SLURM_JOB_ID|USER)\b", "", value):
        raise ValueError("may contain only the variables $SLURM_JOB_ID and $USER")
    return value


Architecture = Literal["x86_64", "aarch64"]
Accelerator = Literal["cuda", "rocm"]


class Problem(BaseModel):
    """Something wrong or unused in a file; the rest of the file stays in use."""

    model_config = FROZEN

    file: str
    line: int | None = Field(default=None, description="1-based; unknown if the file cannot be read at all.")
    key: str = Field(default="", description="Dotted path of the key.")
    message: str
    hint: str = ""
    cluster: str | None = Field(default=None, description="The cluster that is disabled because of it.")
    level: Literal["error", "note"] = Field(default="error", description="`note`: nothing is wrong, but something is not used.")

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        text = f"{place}: {self.key}: {self.message}" if self.key else f"{place}: {self.message}"
        return f"{text} ({self.hint})" if self.hint else text


class Mount(BaseModel):
    """A folder of the nodes that is mounted in containers."""

    model_config = FROZEN

    source: AbsolutePath = Field(description="Folder on the node.")
    target: AbsolutePath | None = Field(default=None, description="Mount point in the container; unset: the same path.")
    read_only: bool = Field(default=True, description="Whether the mount is read-only.")


class GpuType(BaseModel):
    """A GPU type, as the scheduler names it."""

    model_config = FROZEN

    name: Name = Field(description="The scheduler's name for it, such as a100.")
    title: Line | None = Field(default=None, description="Display name, such as NVIDIA A100.")
    accelerator: Accelerator = Field(default="cuda", description="Environment variant that it needs.")
    memory_gb: float | None = Field(default=None, gt=0, description="Memory per GPU, in GB.")
    units_per_gpu: int = Field(
        default=1,
        ge=1,
        description="How many of the scheduler's GPUs make one card: 2 if it counts dies (GCDs) of AMD MI250X.",
    )


class OfferedPartition(BaseModel):
    """A partition that the site offers. Limits set here apply on top of the scheduler's."""

    model_config = FROZEN

    name: Name = Field(description="The scheduler's name for it.")
    title: Line | None = Field(default=None, description="Display text: what it is for.")
    architecture: Architecture | None = Field(default=None, description="Architecture of its nodes; unset: this machine's.")
    gpu_types: tuple[GpuType, ...] = Field(default=(), description="GPU types in it; empty: no GPUs are offered.")
    max_time: Annotated[Line, AfterValidator(_time)] | None = Field(
        default=None, description="Longest time limit, in Slurm's format, in quotes."
    )
    max_nodes: int | None = Field(default=None, ge=1, description="Maximum number of nodes per task.")
    max_cpus: int | None = Field(default=None, ge=1, description="Maximum number of cores per node.")
    max_memory: Annotated[Line, AfterValidator(_memory)] | None = Field(
        default=None, description="Maximum memory per node, such as 480G."
    )
    max_gpus: int | None = Field(default=None, ge=0, description="Maximum number of GPUs per node.")
    interactive: bool = Field(default=False, description="Whether it is for interactive sessions.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        refuse_twice([gpu.name for gpu in self.gpu_types], "the GPU type")
        return self


class AccountPolicy(BaseModel):
    """Which account is charged."""

    model_config = FROZEN

    required: bool = Field(default=False, description="Refuse jobs that name no account.")
    default: Name | None = Field(default=None, description="Used if a job names none.")
    pattern: Annotated[Line, AfterValidator(_expression)] | None = Field(
        default=None, description="Regular expression that the whole name must match."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.default and self.pattern and not re.fullmatch(self.pattern, self.default):
            raise ValueError(f"default {self.default!r} does not match the pattern {self.pattern!r}")
        return self


class CommonSettings(BaseModel):
    """The part of a cluster's entry that is the same for all batch systems."""

    model_config = FROZEN

    name: Name = Field(description="The key of its section, or the name of its file in clusters.d.")
    title: Line | None = Field(default=None, description="Display name.")
    hidden: bool = Field(default=False, description="Leave it out of lists; jobs can still name it.")
    scheduler: SlurmScheduler = Field(default="slurm_cli", description="Client to use.")
    login_host: Host | None = Field(default=None, description="Host that users log in to; for display only.")
    partitions: tuple[OfferedPartition, ...] = Field(
        default=(), description="Partitions on offer; empty: all that the scheduler has."
    )
    default_partition: Name | None = Field(default=None, description="Used if a job names none; unset: the scheduler's default.")
    account: AccountPolicy = Field(default=AccountPolicy(), description="Which account is charged.")
    max_tasks: int | None = Field(
        default=None, ge=1, description="Maximum number of tasks in a job; cannot exceed the setting `max_tasks`."
    )
    mounts: tuple[Mount, ...] = Field(default=(), description="Folders to mount in containers on this cluster.")
    setup: tuple[Line, ...] = Field(
        default=(), description="Lines of POSIX sh that a job runs first, such as `module load apptainer`."
    )
    scratch: Annotated[Line, AfterValidator(_folder)] | None = Field(
        default=None, description="Node-local folder for temporary files; may contain $SLURM_JOB_ID and $USER."
    )
    signal_before_s: int = Field(
        default=60, ge=5, le=3600, description="How long before the time limit a job is told to save its work."
    )
    poll_interval_s: float = Field(
        default=60.0, ge=0, le=3600, description="Minimum interval between queries of the scheduler, per user."
    )
    deadline_s: float = Field(default=3.0, gt=0, le=60, description="Timeout of a query to the scheduler.")
    exit_grace_s: float = Field(
        default=60.0, ge=0, le=3600, description="How long files from the nodes can take to become visible here."
    )
    labels: dict[Name, Line] = Field(default={}, description="The site's own facts, shown with the cluster.")


class Cluster(SlurmSettings, CommonSettings):
    """One cluster, from OOD's ``clusters.d`` and the site file together."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [partition.name for partition in self.partitions]
        refuse_twice(names, "the partition")
        if self.default_partition and names and self.default_partition not in names:
            raise ValueError(f"default_partition {self.default_partition!r} is not one of the partitions")
        self.check_sections(self.scheduler)
        return self

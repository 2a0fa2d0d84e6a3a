"""A cluster's configuration: how to reach its scheduler and what the site offers on it. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from lossi import units
from lossi.files.text import CONTROL

_CONFIG = ConfigDict(frozen=True, extra="forbid")

COMMANDS = ("sbatch", "squeue", "sacct", "scontrol", "scancel", "sinfo", "sacctmgr", "srun", "ssh")
"""Keys of `Cluster.bin_overrides`."""
RESERVED_OPTIONS = frozenset((
    "array", "chdir", "dependency", "error", "export", "export-file", "gid", "input", "job-name", "open-mode", "output", "parsable",
    "quiet", "signal", "test-only", "uid", "verbose", "wait", "wrap",
))  # fmt: skip
"""sbatch options that Lossi sets itself: overriding them would break how jobs are found, started or stopped."""

_OPTION = re.compile(r"--([a-z][a-z0-9-]*)(=.*)?")
_HOST = re.compile(r"(?:[A-Za-z0-9_.-]+@)?[A-Za-z0-9][A-Za-z0-9.:_-]*")


def _one_line(value: str) -> str:
    if CONTROL.search(value):
        raise ValueError("must be one line without control characters")
    return value


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError("must be an absolute path")
    _one_line(str(path))
    return path


def _host(value: str) -> str:
    # ssh would read a leading dash as an option.
    if not _HOST.fullmatch(value):
        raise ValueError("must be a host name, optionally with user@ in front")
    return value


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


def _option(value: str) -> str:
    match = _OPTION.fullmatch(value)
    if match is None:
        raise ValueError("must be a long sbatch option, --name or --name=value")
    if match[1] in RESERVED_OPTIONS:
        raise ValueError(f"--{match[1]} is set by Lossi and cannot be set here")
    return value


def _folder(value: str) -> str:
    if not value.startswith("/"):
        raise ValueError("must be an absolute path")
    if "$" in re.sub(r"\$(SLURM_JOB_ID|USER)\b", "", value):
        raise ValueError("may contain only the variables $SLURM_JOB_ID and $USER")
    return value


def _once(names: Sequence[str], what: str) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"lists {what} {twice!r} twice")


Line = Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_one_line)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$")]
AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
Host = Annotated[Line, AfterValidator(_host)]
Architecture = Literal["x86_64", "aarch64"]
Accelerator = Literal["cuda", "rocm"]


class Problem(BaseModel):
    """Something wrong or unused in a file; the rest of the file stays in use."""

    model_config = _CONFIG

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

    model_config = _CONFIG

    source: AbsolutePath = Field(description="Folder on the node.")
    target: AbsolutePath | None = Field(default=None, description="Mount point in the container; unset: the same path.")
    read_only: bool = Field(default=True, description="Whether the mount is read-only.")


class GpuType(BaseModel):
    """A GPU type, as the scheduler names it."""

    model_config = _CONFIG

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

    model_config = _CONFIG

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
        _once([gpu.name for gpu in self.gpu_types], "the GPU type")
        return self


class AccountPolicy(BaseModel):
    """Which account is charged."""

    model_config = _CONFIG

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


class RestSettings(BaseModel):
    """How to reach slurmrestd: over a Unix socket as the user, or over TCP with a JSON web token."""

    model_config = _CONFIG

    url: Annotated[str, Field(pattern=r"^https?://[^\s/@]+(/[^\s]*)?$")] | None = Field(
        default=None, description="Such as http://slurm.example.org:6820; needs a token."
    )
    socket: AbsolutePath | None = Field(default=None, description="Unix socket; `{user}` becomes the user's name.")
    token_command: tuple[Line, ...] = Field(
        default=(),
        description="Command (argv) that prints SLURM_JWT=… or the token, such as scontrol token lifespan=600; run as the user.",
    )
    token_file: Path | None = Field(default=None, description="File (mode 0600) with the token; `~` is the user's home.")
    version: Annotated[str, Field(pattern=r"^v0\.0\.\d{2}$")] | None = Field(
        default=None, description="API version; unset: the newest that both sides support."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.url is None) == (self.socket is None):
            raise ValueError("needs either url or socket")
        if self.url and not self.token_command and not self.token_file:
            raise ValueError("url needs token_command or token_file: slurmrestd answers nobody without a token")
        return self


class PySlurmSettings(BaseModel):
    """The interpreter with PySlurm."""

    model_config = _CONFIG

    python: AbsolutePath = Field(description="Interpreter in which `import pyslurm` works.")
    chroot: AbsolutePath | None = Field(
        default=None, description="Root folder of the interpreter, if it belongs to another system."
    )
    any_version: bool = Field(default=False, description="Use PySlurm even if it was built for another Slurm version.")


class Cluster(BaseModel):
    """One cluster, from OOD's ``clusters.d`` and the site file together."""

    model_config = _CONFIG

    name: Name = Field(description="The key of its section, or the name of its file in clusters.d.")
    title: Line | None = Field(default=None, description="Display name.")
    hidden: bool = Field(default=False, description="Leave it out of lists; jobs can still name it.")
    scheduler: Literal["slurm_cli", "slurm_rest", "slurm_pyslurm"] = Field(default="slurm_cli", description="Client to use.")
    slurm_name: Name | None = Field(default=None, description="Name for `-M`, if one slurmdbd serves several clusters.")
    bin: AbsolutePath | None = Field(default=None, description="Folder of the Slurm commands; unset: those on PATH.")
    bin_overrides: dict[str, AbsolutePath] = Field(default={}, description="Paths of single commands.")
    conf: AbsolutePath | None = Field(default=None, description="Path of slurm.conf, if not the default.")
    submit_host: Host | None = Field(default=None, description="Host on which to run the commands through ssh.")
    strict_host_checking: bool = Field(default=True, description="Whether ssh refuses hosts with unknown keys.")
    rest: RestSettings | None = Field(default=None, description="How to reach slurmrestd; for `slurm_rest`.")
    pyslurm: PySlurmSettings | None = Field(default=None, description="Where PySlurm is; for `slurm_pyslurm`.")
    login_host: Host | None = Field(default=None, description="Host that users log in to; for display only.")
    partitions: tuple[OfferedPartition, ...] = Field(
        default=(), description="Partitions on offer; empty: all that the scheduler has."
    )
    default_partition: Name | None = Field(default=None, description="Used if a job names none; unset: the scheduler's default.")
    account: AccountPolicy = Field(default=AccountPolicy(), description="Which account is charged.")
    gpu_option: Literal["gres", "gpus-per-node"] = Field(default="gres", description="sbatch option that requests GPUs.")
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
    options: tuple[Annotated[Line, AfterValidator(_option)], ...] = Field(
        default=(), description="Additional sbatch options for every job, such as --hint=nomultithread."
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

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        unknown = [name for name in self.bin_overrides if name not in COMMANDS]
        if unknown:
            raise ValueError(f"bin_overrides has unknown command {unknown[0]!r}; known: {', '.join(COMMANDS)}")
        names = [partition.name for partition in self.partitions]
        _once(names, "the partition")
        if self.default_partition and names and self.default_partition not in names:
            raise ValueError(f"default_partition {self.default_partition!r} is not one of the partitions")
        if self.scheduler == "slurm_rest" and self.rest is None:
            raise ValueError("scheduler slurm_rest needs the section rest")
        if self.scheduler == "slurm_pyslurm" and self.pyslurm is None:
            raise ValueError("scheduler slurm_pyslurm needs the section pyslurm")
        return self

    def command(self, name: str) -> str:
        """Return the path of a Slurm command, or its name if it is to be found on PATH."""
        path = self.bin_overrides.get(name) or (self.bin / name if self.bin else None)
        return str(path) if path else name

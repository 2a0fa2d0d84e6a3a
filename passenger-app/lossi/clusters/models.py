"""What Lossi knows of a cluster before it asks it anything: where its commands are, what the site offers on it. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

_CONFIG = ConfigDict(frozen=True, extra="forbid")

COMMANDS = ("sbatch", "squeue", "sacct", "scontrol", "scancel", "sinfo", "sacctmgr", "srun", "ssh")
"""What `Cluster.bin_overrides` may name."""
RESERVED_OPTIONS = frozenset(
    [
        "array",
        "chdir",
        "dependency",
        "error",
        "export",
        "export-file",
        "gid",
        "input",
        "job-name",
        "open-mode",
        "output",
        "parsable",
        "quiet",
        "signal",
        "test-only",
        "uid",
        "verbose",
        "wait",
        "wrap",
    ]
)
"""Options of sbatch that are Lossi's own: a second one would break how jobs are found, started or stopped."""

_OPTION = re.compile(r"--([a-z][a-z0-9-]*)(=.*)?")
_HOST = re.compile(r"(?:[A-Za-z0-9_.-]+@)?[A-Za-z0-9][A-Za-z0-9.:_-]*")
_TIME = re.compile(r"[0-9]{1,9}(?:s|m|h|d)|[0-9]{1,9}-[0-9]{1,2}(?::[0-9]{1,2}){0,2}|[0-9]{1,9}(?::[0-9]{1,2}){0,2}")
_MEMORY = re.compile(r"(?i)[0-9]{1,15}(?:\.[0-9]{1,6})?[kmgt]?(?:i?b)?")


def _one_line(value: str) -> str:
    if any(ord(character) < 32 or ord(character) == 127 for character in value):
        raise ValueError("must be one line without control characters")
    return value


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError("must be an absolute path")
    _one_line(str(path))
    return path


def _host(value: str) -> str:
    # ssh would read what begins with a sign as an option.
    if not _HOST.fullmatch(value):
        raise ValueError("must be the name of a host, with or without user@ before it")
    return value


def _time(value: str) -> str:
    if not _TIME.fullmatch(value):
        raise ValueError('must be a time as Slurm writes it, in quotes, such as "2-00:00:00" or "36:00:00"')
    return value


def _memory(value: str) -> str:
    if not _MEMORY.fullmatch(value):
        raise ValueError("must be an amount of memory, such as 480G")
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
        raise ValueError("must be an option of sbatch in its long form, --name or --name=value")
    if match[1] in RESERVED_OPTIONS:
        raise ValueError(f"--{match[1]} is set by Lossi and cannot be set here")
    return value


def _folder(value: str) -> str:
    if not value.startswith("/"):
        raise ValueError("must be an absolute path")
    if "$" in re.sub(r"\$(SLURM_JOB_ID|USER)\b", "", value):
        raise ValueError("may hold only the variables $SLURM_JOB_ID and $USER")
    return value


def _once(names: Sequence[str], what: str) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"names {what} {twice!r} twice")


Line = Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_one_line)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$")]
AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
Host = Annotated[Line, AfterValidator(_host)]
Architecture = Literal["x86_64", "aarch64"]
Accelerator = Literal["cuda", "rocm"]


class Problem(BaseModel):
    """Something in a file that is not right, or not used; what is good around it stays usable."""

    model_config = _CONFIG

    file: str
    line: int | None = Field(default=None, description="1-based; unknown where the file cannot be read at all.")
    key: str = Field(default="", description="Dotted path of the key.")
    message: str
    hint: str = ""
    cluster: str | None = Field(default=None, description="The cluster that is left out because of it.")
    level: Literal["error", "note"] = Field(default="error", description="`note`: nothing is wrong, but something is not used.")

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        text = f"{place}: {self.key}: {self.message}" if self.key else f"{place}: {self.message}"
        return f"{text} ({self.hint})" if self.hint else text


class Mount(BaseModel):
    """A folder of the nodes that containers see."""

    model_config = _CONFIG

    source: AbsolutePath = Field(description="Folder of the node.")
    target: AbsolutePath | None = Field(default=None, description="Where inside; unset: the same path.")
    read_only: bool = Field(default=True, description="Whether containers may only read it.")


class GpuType(BaseModel):
    """A kind of GPU, as the scheduler names it."""

    model_config = _CONFIG

    name: Name = Field(description="Type in the scheduler's words, such as a100.")
    title: Line | None = Field(default=None, description="For people, such as NVIDIA A100.")
    accelerator: Accelerator = Field(default="cuda", description="Which variant of an environment it needs.")
    memory_gb: float | None = Field(default=None, gt=0, description="Memory of one, in GB.")
    units_per_gpu: int = Field(
        default=1,
        ge=1,
        description="How many of the scheduler's units are one card: 2 where it counts dies (GCDs) of AMD MI250X.",
    )


class OfferedPartition(BaseModel):
    """A partition that the site offers; limits that are set here are stricter than the scheduler's own."""

    model_config = _CONFIG

    name: Name = Field(description="The scheduler's name of it.")
    title: Line | None = Field(default=None, description="For people: what it is meant for.")
    architecture: Architecture | None = Field(default=None, description="Of its nodes; unset: as this machine.")
    gpu_types: tuple[GpuType, ...] = Field(default=(), description="Kinds of GPU in it; empty: none are offered.")
    max_time: Annotated[Line, AfterValidator(_time)] | None = Field(
        default=None, description="Longest time limit, as Slurm writes it, in quotes."
    )
    max_nodes: int | None = Field(default=None, ge=1, description="Nodes that one task may ask for.")
    max_cpus: int | None = Field(default=None, ge=1, description="Cores of a node that one task may ask for.")
    max_memory: Annotated[Line, AfterValidator(_memory)] | None = Field(
        default=None, description="Memory of a node that one task may ask for, such as 480G."
    )
    max_gpus: int | None = Field(default=None, ge=0, description="GPUs of a node that one task may ask for.")
    interactive: bool = Field(default=False, description="Meant for interactive sessions.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _once([gpu.name for gpu in self.gpu_types], "the GPU type")
        return self


class AccountPolicy(BaseModel):
    """Which account pays."""

    model_config = _CONFIG

    required: bool = Field(default=False, description="Refuse a job that names none.")
    default: Name | None = Field(default=None, description="Used where a job names none.")
    pattern: Annotated[Line, AfterValidator(_expression)] | None = Field(
        default=None, description="Regular expression that the name must match as a whole."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.default and self.pattern and not re.fullmatch(self.pattern, self.default):
            raise ValueError(f"default {self.default!r} does not match the pattern {self.pattern!r}")
        return self


class RestDoor(BaseModel):
    """How slurmrestd is reached: a unix socket as the user, or TCP with a JSON web token."""

    model_config = _CONFIG

    url: Annotated[str, Field(pattern=r"^https?://[^\s/@]+(/[^\s]*)?$")] | None = Field(
        default=None, description="Such as http://slurm.example.org:6820; with it a token is needed."
    )
    socket: AbsolutePath | None = Field(default=None, description="Unix socket; `{user}` stands for the user's name.")
    token_command: tuple[Line, ...] = Field(
        default=(), description="argv that prints SLURM_JWT=… or the token, such as scontrol token lifespan=600; run as the user."
    )
    token_file: Path | None = Field(default=None, description="File (0600) that holds the token; `~` is the user's home.")
    version: Annotated[str, Field(pattern=r"^v0\.0\.\d{2}$")] | None = Field(
        default=None, description="API version; unset: the newest that both sides know."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.url is None) == (self.socket is None):
            raise ValueError("needs either url or socket")
        if self.url and not self.token_command and not self.token_file:
            raise ValueError("url needs token_command or token_file: without a token slurmrestd answers nobody")
        return self


class PySlurmDoor(BaseModel):
    """The interpreter that has PySlurm."""

    model_config = _CONFIG

    python: AbsolutePath = Field(description="Interpreter in which `import pyslurm` works.")
    chroot: AbsolutePath | None = Field(
        default=None, description="Root folder in which that interpreter lives, where it is another system's."
    )
    any_version: bool = Field(default=False, description="Use it although PySlurm was made for another Slurm version.")


class Cluster(BaseModel):
    """One cluster, from OOD's ``clusters.d`` and the site file together."""

    model_config = _CONFIG

    name: Name = Field(description="As people name it; the key of its section, or the name of its file in clusters.d.")
    title: Line | None = Field(default=None, description="For people.")
    hidden: bool = Field(default=False, description="Left out of lists; can still be named.")
    scheduler: Literal["slurm_cli", "slurm_rest", "slurm_pyslurm"] = Field(
        default="slurm_cli", description="How it is talked to."
    )
    slurm_name: Name | None = Field(default=None, description="Name for `-M`, where one slurmdbd serves several clusters.")
    bin: AbsolutePath | None = Field(default=None, description="Folder of the Slurm commands; unset: those on PATH.")
    bin_overrides: dict[str, AbsolutePath] = Field(default={}, description="Single commands that lie elsewhere.")
    conf: AbsolutePath | None = Field(default=None, description="slurm.conf, where it is not at its usual place.")
    submit_host: Host | None = Field(default=None, description="Host on which the commands are run through ssh.")
    strict_host_checking: bool = Field(default=True, description="Whether ssh refuses a host whose key it does not know.")
    rest: RestDoor | None = Field(default=None, description="How slurmrestd is reached; for `slurm_rest`.")
    pyslurm: PySlurmDoor | None = Field(default=None, description="Where PySlurm is; for `slurm_pyslurm`.")
    login_host: Host | None = Field(default=None, description="Host that users log in to; only shown.")
    partitions: tuple[OfferedPartition, ...] = Field(
        default=(), description="What is offered; empty: all that the scheduler names."
    )
    default_partition: Name | None = Field(default=None, description="Used where a job names none; unset: the scheduler's own.")
    account: AccountPolicy = Field(default=AccountPolicy(), description="Which account pays.")
    gpu_option: Literal["gres", "gpus-per-node"] = Field(default="gres", description="How GPUs are asked for.")
    max_tasks: int | None = Field(default=None, ge=1, description="Most tasks in one job; stricter than `max_tasks`.")
    mounts: tuple[Mount, ...] = Field(default=(), description="Folders that containers see on this cluster.")
    setup: tuple[Line, ...] = Field(
        default=(), description="Lines of POSIX sh that a job runs first, such as `module load apptainer`; the site's own text."
    )
    scratch: Annotated[Line, AfterValidator(_folder)] | None = Field(
        default=None, description="Node-local folder for temporary files; may hold $SLURM_JOB_ID and $USER."
    )
    options: tuple[Annotated[Line, AfterValidator(_option)], ...] = Field(
        default=(), description="Further sbatch options for every job, such as --hint=nomultithread."
    )
    signal_before_s: int = Field(default=60, ge=5, le=3600, description="How long before the time limit a job is told to save.")
    poll_interval_s: float = Field(default=60.0, ge=0, le=3600, description="The scheduler is asked at most this often per user.")
    deadline_s: float = Field(default=3.0, gt=0, le=60, description="How long an answer is waited for.")
    exit_grace_s: float = Field(default=60.0, ge=0, le=3600, description="How late the nodes' files may become visible here.")
    labels: dict[Name, Line] = Field(default={}, description="Facts of the site's own, shown with the cluster.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        unknown = [name for name in self.bin_overrides if name not in COMMANDS]
        if unknown:
            raise ValueError(f"bin_overrides names {unknown[0]!r}, known are {', '.join(COMMANDS)}")
        names = [partition.name for partition in self.partitions]
        _once(names, "the partition")
        if self.default_partition and names and self.default_partition not in names:
            raise ValueError(f"default_partition {self.default_partition!r} is not among the partitions")
        if self.scheduler == "slurm_rest" and self.rest is None:
            raise ValueError("scheduler slurm_rest needs the section rest")
        if self.scheduler == "slurm_pyslurm" and self.pyslurm is None:
            raise ValueError("scheduler slurm_pyslurm needs the section pyslurm")
        return self

    def command(self, name: str) -> str:
        """Return the path of a Slurm command, or its bare name where PATH is to find it."""
        found = self.bin_overrides.get(name) or (self.bin / name if self.bin else None)
        return str(found) if found else name

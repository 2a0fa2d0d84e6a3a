"""Dataclasses of every file in a job directory: the contract between what prepares, runs, watches and ingests a job.

Standard library and Python 3.9 only, because it travels in
``runner.pyz``. Unknown keys in a file are ignored and missing ones take their defaults, so that a newer Lossi reads
what an older one wrote.

Layout of ``<project>/.lossi/jobs/<id>/``::

    spec.json            PreparedJob: everything decided before submission
    tasks.jsonl          one JSON object of parameters per line, line n (0-based) = task n
    code.tar             the project's tree at submission        code.diff  its dirty diff, secrets masked
    runner.pyz           the runner        script.sh  the batch script
    tracking.db          template of the per-task MLflow store
    submission.json      SubmissionRecord: written once the scheduler accepted it
    cancel.json          CancelRequest: what the user asked to stop
    tasks/<n>/           progress.json ending.json exit.json use.jsonl log output.ipynb out/ tracking-<seq>-<sha16>.db
"""

from __future__ import annotations

import dataclasses
import functools
import json
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Optional, Type, TypeVar

FORMAT = 1
"""Version of the files' form; a reader refuses a greater one."""

SPEC = "spec.json"
TASKS = "tasks.jsonl"
CODE = "code.tar"
DIFF = "code.diff"
RUNNER = "runner.pyz"
SCRIPT = "script.sh"
TEMPLATE = "tracking.db"
SUBMISSION = "submission.json"
CANCEL = "cancel.json"
TASK_FOLDER = "tasks"
PROGRESS = "progress.json"
EXIT = "exit.json"
ENDING = "ending.json"
USE = "use.jsonl"
LOG = "log"
RANKS = "ranks.jsonl"
"""What the processes on a task's further nodes say of their end, while it runs."""
OUTPUT_NOTEBOOK = "output.ipynb"
OUTPUT_FOLDER = "out"
SNAPSHOT_PATTERN = "tracking-{seq:08d}-{digest}.db"

R = TypeVar("R")


@dataclass(frozen=True)
class DataLink:
    """A folder or file of the live project that is not in code.tar (ignored by git, or tracked by DVC)."""

    path: str
    """Relative to the project, with forward slashes."""
    target: str
    """Absolute path on the shared filesystem."""


@dataclass(frozen=True)
class CodeSnapshot:
    """The project's tree as it was at submission."""

    sha256: str = ""
    files: int = 0
    bytes: int = 0
    commit: Optional[str] = None
    branch: Optional[str] = None
    remote: Optional[str] = None
    """URL of ``origin`` without user and password."""
    dirty: bool = False
    diff_sha256: Optional[str] = None
    left_out: List[str] = field(default_factory=list)
    """Untracked files over the limit or that look like secrets: ``path (reason)``."""
    links: List[DataLink] = field(default_factory=list)


@dataclass(frozen=True)
class ResolvedEnvironment:
    """An environment of the catalogue, resolved for one target: nothing is looked up again when the job starts."""

    name: str
    kind: str
    """``local`` (a Python of this machine) or ``apptainer``."""
    python: str
    """The interpreter inside the environment: absolute path for local, ``python3`` in an image."""
    prefix: List[str] = field(default_factory=list)
    """argv that starts the container; empty for local. ``prefix + [python, …]`` is the whole command."""
    variant: str = ""
    """``<architecture>-<accelerator>``, or ``local``."""
    image: Optional[str] = None
    digest: Optional[str] = None
    sif: Optional[str] = None
    mlflow_version: Optional[str] = None
    packages_sha256: Optional[str] = None
    """Hash over the sorted ``name==version`` lines of what is installed (local only; an image has its digest)."""
    variables: Dict[str, str] = field(default_factory=dict)
    """Environment variables that the catalogue sets for this environment."""


@dataclass(frozen=True)
class Resources:
    """What a task asks for. Units: MiB and seconds."""

    cpus: int = 1
    memory_mb: Optional[int] = None
    gpus: int = 0
    gpu_type: Optional[str] = None
    time_limit_s: Optional[int] = None
    nodes: int = 1
    partition: Optional[str] = None
    account: Optional[str] = None
    qos: Optional[str] = None
    constraint: Optional[str] = None
    """Features that the nodes must have, as Slurm writes them."""


@dataclass(frozen=True)
class TrackingTarget:
    """Where the tasks of a job log to."""

    experiment: str
    experiment_id: str = "0"
    """Id in the project's own store (and so in the template)."""
    artifact_location: str = ""
    """Absolute path of the experiment's artifact folder, ``<project>/.lossi/artifacts/<experiment_id>``."""
    server_uri: Optional[str] = None
    """An MLflow server to log to instead of the embedded store."""
    publish_interval_s: float = 10.0


@dataclass(frozen=True)
class PreparedJob:
    """``spec.json``: a job as it will run, whatever happens to the project, the catalogue or Lossi meanwhile."""

    id: str
    """Lower-case ULID."""
    name: str
    kind: str
    """``notebook``, ``script`` or ``command``."""
    project: str
    """Absolute path of the project."""
    user: str
    created: str
    """ISO 8601 in UTC."""
    source: Optional[str] = None
    """Notebook or script, relative to the project; None for a command."""
    command: List[str] = field(default_factory=list)
    """argv of a command job, or extra arguments of a script job."""
    working_directory: str = "."
    """Relative to the project (and so to the unpacked code)."""
    language: str = "python"
    kernel: Optional[str] = None
    tasks: int = 1
    sweep: Optional[Dict[str, Any]] = None
    """The sweep as requested (grid, list, random, csv), for display and resubmission."""
    swept: List[str] = field(default_factory=list)
    """Names of the parameters that differ between tasks."""
    max_parallel: Optional[int] = None
    requeue: bool = False
    """Whether the scheduler may start a task again after a node failed or it was preempted; it continues its own run."""
    dependency: Optional[str] = None
    """What the job waits for, as the scheduler writes it, such as ``afterok:123``."""
    setup: List[str] = field(default_factory=list)
    """Lines of POSIX sh that the site has every job of its cluster run first."""
    scratch: Optional[str] = None
    """Node-local folder for temporary files, with $SLURM_JOB_ID and $USER still in it; None: $TMPDIR or /tmp."""
    defaults: Dict[str, Any] = field(default_factory=dict)
    """Literal defaults of the notebook's parameters: what a run has where its task says nothing else."""
    environment: ResolvedEnvironment = field(default_factory=lambda: ResolvedEnvironment("", "local", "python3"))
    resources: Resources = field(default_factory=Resources)
    code: CodeSnapshot = field(default_factory=CodeSnapshot)
    tracking: TrackingTarget = field(default_factory=lambda: TrackingTarget("Default"))
    tags: Dict[str, str] = field(default_factory=dict)
    """Extra tags the user wants on every run."""
    digests: Dict[str, str] = field(default_factory=dict)
    """SHA-256 of the other prepared files by name (code.tar, tasks.jsonl, tracking.db, runner.pyz), checked by the runner at start."""
    request: Dict[str, Any] = field(default_factory=dict)
    """The validated JobSpec, from which `resubmit` starts."""
    idempotency_key: Optional[str] = None
    resubmitted_from: Optional[str] = None
    output_limit_mb: int = 1024
    """Files newly written in the working directory are collected up to this size."""
    lossi_version: str = ""
    format: int = FORMAT


@dataclass(frozen=True)
class SubmissionRecord:
    """``submission.json``: the scheduler has it."""

    scheduler: str
    scheduler_id: str
    submitted: str
    cluster: Optional[str] = None
    argv: List[str] = field(default_factory=list)


@dataclass(frozen=True)
class CancelRequest:
    """``cancel.json``: what was asked to stop, by whom. ``tasks`` None = the whole job."""

    requested: str
    user: str
    tasks: Optional[List[int]] = None


@dataclass(frozen=True)
class Progress:
    """``tasks/<n>/progress.json``: rewritten after each cell."""

    task: int
    phase: str = "starting"
    """``starting``, ``running``, ``finishing`` or ``done``."""
    cell: int = 0
    """1-based number of the code cell being executed; 0 = none yet."""
    cells: int = 0
    """Code cells in all; 0 for scripts and commands."""
    first_line: str = ""
    started: str = ""
    elapsed_s: float = 0.0
    estimate_s: Optional[float] = None
    """Estimated seconds left, from the mean of the finished cells; None = no idea."""
    updated: str = ""
    attempt: int = 1
    notes: List[str] = field(default_factory=list)
    """Things the user should know, such as a kernel that was replaced."""


@dataclass(frozen=True)
class TaskError:
    """What the program itself said when it failed."""

    name: str
    message: str
    cell: Optional[int] = None
    """1-based number of the code cell."""
    traceback: str = ""
    """Plain text without terminal escapes, its last 20 kB."""


@dataclass(frozen=True)
class TaskExit:
    """``tasks/<n>/exit.json``: how a task ended. Written once, at the very end, beside and renamed."""

    task: int
    state: str
    exit_code: Optional[int] = None
    signal: Optional[int] = None
    reason: str = ""
    """One sentence: why this state."""
    error: Optional[TaskError] = None
    started: str = ""
    ended: str = ""
    elapsed_s: float = 0.0
    host: str = ""
    attempt: int = 1
    cpu_s: Optional[float] = None
    max_rss_mb: Optional[float] = None
    gpu_utilisation: Optional[float] = None
    """Mean of all samples and GPUs, percent."""
    gpu_memory_mb: Optional[float] = None
    """Greatest sum over the task's GPUs."""
    gpu_type: Optional[str] = None
    gpu_driver: Optional[str] = None
    run_ids: List[str] = field(default_factory=list)
    """MLflow runs of this task; the first is the task's own."""
    tracking_error: str = ""
    """Not empty: the task ran but its tracking is incomplete, and why."""
    notes: List[str] = field(default_factory=list)
    written_by: str = "runner"
    """``runner``, ``script`` (the fallback in script.sh) or ``scheduler``."""
    format: int = FORMAT


@dataclass(frozen=True)
class Ending:
    """``tasks/<n>/ending.json``: why the scheduler is about to stop the task; written before its SIGTERM."""

    state: str
    """``cancelled``, ``timed_out`` or ``out_of_memory``: what the task's exit.json shall say."""
    reason: str = ""


@dataclass(frozen=True)
class UseSample:
    """One line of ``tasks/<n>/use.jsonl``."""

    t: float
    """Seconds since the task's start."""
    cpu_percent: float
    """100 = one core busy."""
    rss_mb: float
    """Resident memory of the task's process tree."""
    gpu_percent: List[float] = field(default_factory=list)
    gpu_memory_mb: List[float] = field(default_factory=list)


def to_dict(record: Any) -> Dict[str, Any]:
    """Return a record as plain JSON types."""
    result: Dict[str, Any] = dataclasses.asdict(record)
    return result


def dump(record: Any) -> bytes:
    """Return a record as one UTF-8 JSON document ending in a newline (parameters keep every code point)."""
    return (json.dumps(to_dict(record), ensure_ascii=False, separators=(",", ":")) + "\n").encode("utf-8", "surrogatepass")


def from_dict(kind: Type[R], data: Dict[str, Any]) -> R:
    """Build a record from JSON types.

    Raises
    ------
    ValueError
        When a required key is missing, or the file's format is newer than this Lossi knows.
    """
    if not isinstance(data, dict):
        raise ValueError(f"{kind.__name__}: expected an object")
    if int(data.get("format", FORMAT)) > FORMAT:
        raise ValueError(f"{kind.__name__}: written by a newer Lossi (format {data['format']})")
    hints = _hints(kind)  # type: ignore[arg-type]
    values: Dict[str, Any] = {}
    for item in dataclasses.fields(kind):  # type: ignore[arg-type]
        if item.name in data:
            values[item.name] = _revive(hints[item.name], data[item.name])
        elif item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
            raise ValueError(f"{kind.__name__}: {item.name!r} is missing")
    return kind(**values)


@functools.lru_cache(maxsize=None)
def _hints(kind: Type[Any]) -> Dict[str, Any]:
    """Return the types of a record's fields; working them out takes milliseconds, and a sweep has thousands of records."""
    return typing.get_type_hints(kind)


def _revive(hint: Any, value: Any) -> Any:
    """Turn nested JSON objects back into the records that ``hint`` names."""
    if value is None:
        return None
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Union:
        return _revive(next(a for a in arguments if a is not type(None)), value)
    if typing.get_origin(hint) is list and arguments:
        return [_revive(arguments[0], item) for item in value]
    if dataclasses.is_dataclass(hint):
        return from_dict(typing.cast("Type[Any]", hint), value)
    return value


def load(kind: Type[R], path: Path) -> R:
    """Read a record from a file.

    Raises
    ------
    OSError
        When the file cannot be read.
    ValueError
        When it is not JSON or not such a record.
    """
    return from_dict(kind, json.loads(path.read_bytes().decode("utf-8", "surrogatepass")))


def load_optional(kind: Type[R], path: Path) -> Optional[R]:
    """Read a record, or return None when the file does not exist (yet) or is unreadable now."""
    try:
        return load(kind, path)
    except (OSError, ValueError):
        return None

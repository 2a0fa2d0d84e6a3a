"""The port of every batch system: what Lossi asks of a scheduler, and what it gets back.

An adapter is a folder next to this module. It reads the job directory, never the project, the catalogue or the index; it
starts ``script.sh`` once per task and knows nothing about notebooks. All adapters pass the same contract tests.

What an adapter must do for each task:

- ``script.sh`` (executable, ``#!/bin/sh``) is started without arguments; the task's 0-based number is in ``LOSSI_TASK`` (or
  ``SLURM_ARRAY_TASK_ID``) and the job's id in ``LOSSI_JOB_ID``. The script relies only on these and
  the machine's login environment; it opens its own log and makes ``tasks/<n>/`` if the scheduler has not.
- at most ``PreparedJob.max_parallel`` tasks of the job at once (None: as many as fit), started in the order of their numbers;
- a stop is SIGTERM to the script (it passes it on), a grace, then SIGKILL to the task's whole process tree;
- the exit code of the script is the exit code of the task. ``tasks/<n>/exit.json``, where it exists, tells more and wins over the
  scheduler's state, except that the scheduler alone knows why it killed something (time limit, memory, node lost): an
  adapter that knows says so in `TaskView.state` and `TaskView.reason`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from lossi.contract.records import PreparedJob, Resources, SubmissionRecord
from lossi.contract.states import UNKNOWN
from lossi.errors import NotSupported, Unavailable

if TYPE_CHECKING:
    from lossi.clusters import Cluster


class NotSubmitted(Unavailable):
    """The scheduler did not answer before anything was sent: it certainly has nothing of this submission."""


LOG = "scheduler.log"
"""In the job directory: output of the scheduler itself, and of a job before its script has opened the task's own log."""

Condition = Literal["ok", "any", "not_ok"]
"""How an earlier job must have ended: all its tasks succeeded; however; it failed."""

FORGOTTEN = "the scheduler no longer knows it, and there is no exit record"
"""The reason if neither a task's scheduler nor its directory knows anything about it."""


@dataclass(frozen=True)
class Capabilities:
    """What a scheduler can enforce; what it cannot is refused, or warned about, before submission."""

    max_gpus: int | None = None
    """GPUs that one task can get; None: not known here (the scheduler itself will refuse)."""
    max_nodes: int | None = None
    """Nodes that one task can get; None: not known here."""
    max_cpus: int | None = None
    """Cores that one task can get; None: not known here."""
    max_memory_mb: int | None = None
    """MiB that one task can get; None: not known here."""
    accounting: bool = False
    """Whether it has partitions, accounts and qualities of service."""
    time_limits: bool = True
    memory_limits: bool = True
    dependencies: bool = False
    """Whether a job can wait for another one."""
    requeue: bool = False
    """Whether it starts a task again by itself after a node failed or it was preempted."""
    sessions: bool = False
    """Whether Open OnDemand can submit interactive sessions to it, see `Scheduler.session_options`."""
    facts: bool = False
    """Whether `TaskView.facts` come some time after a task's end; its row is not final without them."""
    exit_grace_s: float = 5.0
    """How long files from the nodes can take to become visible here."""
    notice_s: float = 5.0
    """How long after a task's end the scheduler may still report an older state."""


@dataclass(frozen=True)
class SessionOptions:
    """How another program, such as Open OnDemand, submits an interactive session to the same scheduler."""

    partition: str | None
    account: str | None
    time_s: int | None
    """Time limit in seconds."""
    native: list[str]
    """The scheduler's own options for everything else: cores, memory, GPUs, what the site adds."""


@dataclass(frozen=True)
class Handle:
    """A submitted job, as a question to its scheduler."""

    job_id: str
    """Lossi's id of the job."""
    scheduler_id: str
    """The scheduler's own id, `SubmissionRecord.scheduler_id`."""
    directory: Path
    """Absolute path of the job directory."""
    tasks: int
    """Number of tasks; they are 0 … tasks - 1."""
    submitted: float | None = None
    """When the scheduler accepted it, in seconds since the epoch."""
    settled: Collection[int] = frozenset()
    """Tasks about which nothing more need be known."""


@dataclass(frozen=True)
class TaskView:
    """What the scheduler knows about one task now."""

    state: str
    """One of `lossi.contract.STATES`."""
    scheduler_state: str = ""
    """The scheduler's own state, such as ``PENDING``."""
    reason: str = ""
    """Why it waits or ended: one sentence, or the scheduler's own reason."""
    exit_code: int | None = None
    signal: int | None = None
    host: str | None = None
    started: str | None = None
    """ISO 8601 in UTC, as are all times."""
    ended: str | None = None
    as_of: float | None = None
    """When the scheduler said so, in seconds since the epoch; None: now."""
    restarts: int | None = None
    """How often it was started again; None: not known."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Its figures by name, of those in `SCHEDULER_FACTS`, over all attempts; they win over what the runner measured."""
    accounted: bool = False
    """Whether `facts` are final: the task has ended and its accounting is closed."""


@dataclass(frozen=True)
class JobView:
    """What the scheduler knows about one job now.

    ``tasks`` need only hold the tasks about which more is known than "queued"; missing tasks are in ``state`` if that is
    ``queued``, otherwise settled by their ``exit.json``.
    """

    known: bool
    """False: the scheduler has no record of it (any more)."""
    state: str = UNKNOWN
    scheduler_state: str = ""
    reason: str = ""
    tasks: Mapping[int, TaskView] = field(default_factory=dict)
    waiting: Sequence[range] = ()
    """Tasks that have not started (again) according to the scheduler, unless they are in ``tasks``."""
    as_of: float | None = None
    """When the scheduler said so, in seconds since the epoch; None: now."""
    stale: str = ""
    """Not empty: why this may be old."""
    expected_start: str | None = None
    """When the scheduler expects the waiting tasks to start, if it says so."""


@runtime_checkable
class Scheduler(Protocol):
    """One way to submit jobs to a cluster or this machine. Adapters inherit from it: what not all can do has a default.

    Instances hold no state that must survive: each call may come from another process.
    """

    @property
    def name(self) -> str:
        """Short name, as in `JobSpec.scheduler` and `SubmissionRecord.scheduler`: ``local``, ``slurm_cli``…"""
        ...

    @property
    def cluster(self) -> str | None:
        """Name of the cluster that it submits to, as in `JobSpec.cluster` and `SubmissionRecord.cluster`; None: this machine."""
        ...

    @property
    def target(self) -> Cluster | None:
        """The cluster's entry in the site file; None: this machine."""
        return None

    @property
    def capabilities(self) -> Capabilities:
        """What it can do; cheap to ask."""
        ...

    def directives(self, job: PreparedJob, directory: Path) -> list[str]:
        """Return the comment lines that ``script.sh`` must carry for this scheduler (``#SBATCH …``), or none."""
        return []

    def preview(self, job: PreparedJob, directory: Path) -> list[str]:
        """Return the argv (or its nearest equivalent) that `submit` would use. Touches nothing; ``directory`` need not exist.

        Raises
        ------
        LossiError
            What `submit` would refuse, as far as it can be known: Forbidden if jobs may not run here, InvalidInput for
            resources that it cannot give.
        """
        ...

    def warnings(self, job: PreparedJob, directory: Path) -> list[str]:
        """Return sentences about what would keep the job waiting or may not be as meant. Touches nothing."""
        return []

    def expected_start(self, job: PreparedJob, directory: Path) -> str | None:
        """Return when the job would start if it were submitted now; None: not known. Touches nothing."""
        return None

    def session_options(self, resources: Resources) -> SessionOptions:
        """Return how another program submits a session with these resources; asks the scheduler nothing.

        Raises
        ------
        Forbidden, InvalidInput
            If the resources exceed what the site allows.
        NotSupported
            If only Lossi can submit to this scheduler (`Capabilities.sessions`).
        """
        raise NotSupported(f"sessions cannot run on the scheduler {self.name!r}", hint="choose a cluster")

    def dependency(self, earlier: Sequence[tuple[Condition, SubmissionRecord, int]]) -> str:
        """Return `PreparedJob.dependency` for a job that waits for earlier ones of the same cluster.

        Parameters
        ----------
        earlier
            For each, how it must have ended, its submission, and its number of tasks.

        Raises
        ------
        NotSupported
            If jobs cannot wait for each other (`Capabilities.dependencies`).
        """
        raise NotSupported(
            f"the scheduler {self.name!r} cannot let a job wait for another one",
            hint="submit it when the other one has ended, or use a cluster",
        )

    def submit(self, job: PreparedJob, directory: Path) -> SubmissionRecord:
        """Submit a prepared job with all its tasks; return once the scheduler has accepted it durably.

        Does not write ``submission.json``: the caller does. If the scheduler already has the job id, its first record is
        returned.

        Raises
        ------
        Forbidden, InvalidInput, NotSupported
            Refused; nothing was submitted.
        NotSubmitted
            No answer, and nothing was sent.
        Unavailable
            No answer; `find` tells whether it was accepted.
        """
        ...

    def find(self, job_id: str) -> SubmissionRecord | None:
        """Return the record of the job with this id; None if the scheduler certainly does not have it.

        Raises
        ------
        Unavailable
            If the scheduler cannot be asked now.
        """
        ...

    def poll(self, jobs: Sequence[Handle]) -> dict[str, JobView]:
        """Return what is known about several jobs, by Lossi's id, with one question to the scheduler.

        Raises
        ------
        Unavailable
            If the scheduler cannot be asked now.
        """
        ...

    def cancel(self, handle: Handle, tasks: Sequence[int] | None) -> None:
        """Stop the given tasks (None: the whole job) and write ``cancel.json`` (`CancelRequest`).

        Returns once the request is durable, not when all tasks have ended.

        Tasks that have ended are not an error. A task that had not started is ``cancelled`` and never starts.

        Raises
        ------
        Unavailable
            If the scheduler cannot be asked now.
        """
        ...

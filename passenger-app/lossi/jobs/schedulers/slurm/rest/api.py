"""One API version of slurmrestd: what is asked for what, and how its answers are read. Pure.

A version is a class; its module says how it differs from its neighbour. `Api` has what is the same in all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from lossi.errors import NotSupported
from lossi.jobs.schedulers.slurm import values
from lossi.jobs.schedulers.slurm.records import AccountingRow, Association, NodeGroup, PartitionRow, Qos, QueueRow
from lossi.jobs.schedulers.slurm.request import SlurmRequest
from lossi.jobs.schedulers.slurm.rest import rows
from lossi.jobs.schedulers.slurm.rest.transport import Call

OPTIONS: Mapping[str, str] = {
    "licenses": "licenses",
    "mcs-label": "mcs_label",
    "prefer": "prefer",
    "reservation": "reservation",
    "wckey": "wckey",
}
"""Site options that slurmrestd takes as texts in all versions, to its own names."""
MOST_SELECTORS = 100
"""Jobs or array tasks in one question, so that its address stays short and its answer small."""


class Api(ABC):
    """How one version is spoken."""

    version: ClassVar[str]
    slash: ClassVar[str]
    """What a collection's path ends with."""
    filters_users: ClassVar[bool]
    """Whether the database can be asked for the jobs of one user."""
    accounts_exit_codes: ClassVar[bool]
    """Whether the database's answer has the right exit codes."""

    def slurm(self, path: str) -> str:
        """Return the path of something that slurmctld knows."""
        return f"/slurm/{self.version}/{path}"

    def database(self, path: str) -> str:
        """Return the path of something that slurmdbd knows."""
        return f"/slurmdb/{self.version}/{path}"

    # -- asking ------------------------------------------------------------------------------------------------------

    @abstractmethod
    def submission(self, request: SlurmRequest, script: str) -> Call:
        """Return the call that submits a job.

        Raises
        ------
        NotSupported
            For what this version cannot be asked.
        """

    @abstractmethod
    def cancellations(self, jobs: Mapping[int, Sequence[int] | None]) -> list[Call]:
        """Return the calls that cancel array tasks (None: the whole job)."""

    @abstractmethod
    def named(self, user: str, since: int, name: str, cluster: str) -> Call:
        """Return the call for the user's jobs since a time, or where that cannot be asked, everybody's of a name (empty: of any).

        ``uts`` before seconds since the epoch is understood by all versions, a plain number only by v0.0.42.
        """

    @abstractmethod
    def attempts(self, selectors: Sequence[str], cluster: str) -> Call:
        """Return the call for all attempts of jobs and array tasks."""

    def ping(self) -> Call:
        """Return the call that tells whether the version is served."""
        return Call(self.slurm(f"ping{self.slash}"))

    def selected(self, jobs: Mapping[int, Sequence[int] | None], cluster: str) -> list[Call]:
        """Return the calls for all attempts of the given array tasks (None: of all); many tasks are asked for as a whole."""
        selectors: list[str] = []
        for job_id, tasks in jobs.items():
            if tasks is None or len(tasks) > 10 * MOST_SELECTORS:
                selectors.append(str(job_id))
            else:
                selectors += [f"{job_id}_{task}" for task in tasks]
        starts = range(0, len(selectors), MOST_SELECTORS)
        return [self.attempts(selectors[start : start + MOST_SELECTORS], cluster) for start in starts]

    def associations_of(self, user: str) -> Call:
        """Return the call for what a user may charge; this version answers with everybody's."""
        return Call(self.database(f"associations{self.slash}"))

    # -- reading -----------------------------------------------------------------------------------------------------

    @abstractmethod
    def ended(self, value: Any) -> rows.Ended:
        """Return exit code and signal of a job in the queue."""

    @abstractmethod
    def accounted(self, job: Mapping[str, Any]) -> rows.Ended:
        """Return exit code and signal of a job in the database."""

    @abstractmethod
    def partition(self, found: Mapping[str, Any]) -> PartitionRow:
        """Return a partition."""

    @abstractmethod
    def refusals(self, document: Mapping[str, Any]) -> list[tuple[int, str]]:
        """Return (Slurm's number, Slurm's words) of the errors of an answer."""

    def queue_row(self, job: Mapping[str, Any]) -> QueueRow:
        """Return a record of the queue."""
        return rows.queue_row(job, self.ended(job.get("exit_code")))

    def accounting_row(self, job: Mapping[str, Any]) -> AccountingRow:
        """Return an attempt in the database."""
        return rows.accounting_row(job, self.accounted(job))

    def association(self, found: Mapping[str, Any]) -> Association:
        """Return an association."""
        return rows.association(found)

    def quality(self, found: Mapping[str, Any]) -> Qos:
        """Return a quality of service."""
        return rows.quality(found)

    def node_groups(self, nodes: Iterable[Mapping[str, Any]]) -> list[NodeGroup]:
        """Return the nodes that are alike."""
        return rows.node_groups(nodes)

    def job_id(self, document: Mapping[str, Any]) -> int | None:
        """Return Slurm's id of the job that was submitted."""
        found = document.get("job_id")
        return found if isinstance(found, int) and found > 0 else None


def properties(request: SlurmRequest) -> dict[str, Any]:
    """Return the properties of a job that all versions write alike; those that are not asked for are left out.

    Raises
    ------
    NotSupported
        For a site option that slurmrestd cannot be asked for.
    """
    unknown = [option for option in request.options if _name(option) not in OPTIONS or "=" not in option]
    if unknown:
        raise NotSupported(
            f"slurmrestd cannot be asked for {', '.join(unknown)}",
            hint="leave it out of the cluster's options, or use slurm_cli for this cluster",
        )
    found: dict[str, Any] = {
        "name": request.name,
        "current_working_directory": str(request.directory),
        "standard_output": str(request.output).replace("%", "%%"),  # a single one begins a placeholder
        "standard_input": "/dev/null",
        "tasks": request.nodes,
        "tasks_per_node": 1,
        "cpus_per_task": request.cpus,
        "partition": request.partition,
        "account": request.account,
        "qos": request.qos,
        "constraints": request.constraint,
        "array": array(request),
        "dependency": request.dependency,
        "requeue": request.requeue,
        **{OPTIONS[_name(option)]: option.partition("=")[2] for option in request.options},
    }
    return {name: value for name, value in found.items() if value is not None}


def environment(request: SlurmRequest) -> dict[str, str]:
    """Return the job's variables: those asked for, and what makes slurmd load the login environment, as ``--export=NONE`` does."""
    return {"SLURM_EXPORT_ENV": "NONE", "SLURM_GET_USER_ENV": "1", **request.environment}


def array(request: SlurmRequest) -> str | None:
    """Return the array as Slurm writes it, with its throttle."""
    if request.array is None:
        return None
    listed = values.ranges_text(request.array)
    return f"{listed}%{request.throttle}" if request.throttle else listed


def gpu_words(request: SlurmRequest) -> str:
    """Return GPUs of a node without the word "gpu" before them: ``a100:2``; empty: none."""
    if not request.gpus:
        return ""
    return ":".join([*([request.gpu_type] if request.gpu_type else []), str(request.gpus)])


def _name(option: str) -> str:
    return option.partition("=")[0].removeprefix("--")

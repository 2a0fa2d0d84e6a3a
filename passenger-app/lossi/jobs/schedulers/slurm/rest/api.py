"""One API version of slurmrestd: its requests and the parsers of its answers. Pure.

A version is a class; its module describes how it differs from its neighbour. `Api` has what all share.
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
"""Site options that slurmrestd takes as text in all versions → its own names."""
MOST_SELECTORS = 100
"""Maximum jobs or array tasks in one question, so that its URL stays short and its answer small."""


class Api(ABC):
    """One API version."""

    version: ClassVar[str]
    slash: ClassVar[str]
    """End of a collection's path."""
    filters_users: ClassVar[bool]
    """Whether the database can select the jobs of one user."""
    accounts_exit_codes: ClassVar[bool]
    """Whether the database's answers have correct exit codes."""

    def slurm(self, path: str) -> str:
        """Return the path of a resource of slurmctld."""
        return f"/slurm/{self.version}/{path}"

    def database(self, path: str) -> str:
        """Return the path of a resource of slurmdbd."""
        return f"/slurmdb/{self.version}/{path}"

    # -- asking ------------------------------------------------------------------------------------------------------

    @abstractmethod
    def submission(self, request: SlurmRequest, script: str) -> Call:
        """Return the call that submits a job.

        Raises
        ------
        NotSupported
            For what this version cannot do.
        """

    @abstractmethod
    def cancellations(self, jobs: Mapping[int, Sequence[int] | None]) -> list[Call]:
        """Return the calls that cancel array tasks (None: the whole job)."""

    @abstractmethod
    def named(self, user: str, since: int, name: str, cluster: str) -> Call:
        """Return the call for the user's jobs since a time or, if the version cannot select them, everybody's of a name (empty: any).

        All versions understand ``uts`` before seconds since the epoch, only v0.0.42 a plain number.
        """

    @abstractmethod
    def attempts(self, selectors: Sequence[str], cluster: str) -> Call:
        """Return the call for all attempts of jobs and array tasks."""

    def ping(self) -> Call:
        """Return the call that checks whether the server has this version."""
        return Call(self.slurm(f"ping{self.slash}"))

    def selected(self, jobs: Mapping[int, Sequence[int] | None], cluster: str) -> list[Call]:
        """Return the calls for all attempts of the given array tasks (None: of all); for many tasks, the whole job is asked for."""
        selectors: list[str] = []
        for job_id, tasks in jobs.items():
            if tasks is None or len(tasks) > 10 * MOST_SELECTORS:
                selectors.append(str(job_id))
            else:
                selectors += [f"{job_id}_{task}" for task in tasks]
        starts = range(0, len(selectors), MOST_SELECTORS)
        return [self.attempts(selectors[start : start + MOST_SELECTORS], cluster) for start in starts]

    def associations_of(self, user: str) -> Call:
        """Return the call for the user's associations; this version answers with everybody's."""
        return Call(self.database(f"associations{self.slash}"))

    # -- reading -----------------------------------------------------------------------------------------------------

    @abstractmethod
    def ended(self, value: Any) -> rows.Ended:
        """Return exit code and signal of a job in the queue."""

    @abstractmethod
    def accounted(self, job: Mapping[str, Any]) -> rows.Ended:
        """Return exit code and signal of a job in the database."""

    @abstractmethod
    def partition(self, item: Mapping[str, Any]) -> PartitionRow:
        """Return a partition."""

    @abstractmethod
    def refusals(self, document: Mapping[str, Any]) -> list[tuple[int, str]]:
        """Return (Slurm's number, message) of the errors in an answer."""

    def queue_row(self, job: Mapping[str, Any]) -> QueueRow:
        """Return a row of the queue."""
        return rows.queue_row(job, self.ended(job.get("exit_code")))

    def accounting_row(self, job: Mapping[str, Any]) -> AccountingRow:
        """Return an attempt."""
        return rows.accounting_row(job, self.accounted(job))

    def association(self, item: Mapping[str, Any]) -> Association:
        """Return an association."""
        return rows.association(item)

    def quality(self, item: Mapping[str, Any]) -> Qos:
        """Return a quality of service."""
        return rows.quality(item)

    def node_groups(self, nodes: Iterable[Mapping[str, Any]]) -> list[NodeGroup]:
        """Return groups of alike nodes."""
        return rows.node_groups(nodes)

    def job_id(self, document: Mapping[str, Any]) -> int | None:
        """Return Slurm's id of the submitted job."""
        number = document.get("job_id")
        return number if isinstance(number, int) and number > 0 else None


def properties(request: SlurmRequest) -> dict[str, Any]:
    """Return the properties of a job that are the same in all versions, without those that are not set.

    Raises
    ------
    NotSupported
        For a site option that slurmrestd does not have.
    """
    unknown = [option for option in request.options if _name(option) not in OPTIONS or "=" not in option]
    if unknown:
        raise NotSupported(
            f"slurmrestd does not have the option {', '.join(unknown)}",
            hint="remove it from the cluster's options, or use slurm_cli for this cluster",
        )
    values: dict[str, Any] = {
        "name": request.name,
        "current_working_directory": str(request.directory),
        "standard_output": str(request.output).replace("%", "%%"),  # a single one starts a placeholder
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
    return {name: value for name, value in values.items() if value is not None}


def environment(request: SlurmRequest) -> dict[str, str]:
    """Return the job's variables, and the one that makes slurmd load the login environment, as ``--export=NONE`` does."""
    return {"SLURM_EXPORT_ENV": "NONE", "SLURM_GET_USER_ENV": "1", **request.environment}


def array(request: SlurmRequest) -> str | None:
    """Return the array in Slurm's format, with its throttle."""
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

"""The client over PySlurm: the same questions as through the commands, sent to a child process (`process`, `child`).

What PySlurm lacks is refused with a hint: an expected start, the site's sbatch options, another cluster of the same slurmdbd. It
knows only the names of qualities of service, and only the last attempt of a requeued job.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from lossi.clusters import Cluster
from lossi.contract.states import has_ended
from lossi.errors import InvalidInput, NotFound, NotSupported, Unavailable
from lossi.files import atomic
from lossi.jobs.schedulers.slurm import directives, states, values
from lossi.jobs.schedulers.slurm.pyslurm import process, rows
from lossi.jobs.schedulers.slurm.records import (
    AccountingRow,
    Association,
    Configuration,
    NodeGroup,
    PartitionRow,
    Qos,
    QueueRow,
)
from lossi.jobs.schedulers.slurm.request import SlurmRequest

SUBMIT_S = 30.0
"""Time limit of a submission: giving up on one that arrives late leaves a job that nobody knows about."""

T = TypeVar("T")
_INSTEAD = "set scheduler: slurm_cli for this cluster"


class PySlurmClient:
    """`SlurmClient` over PySlurm.

    Parameters
    ----------
    cluster
        The cluster; its ``pyslurm.python`` is the interpreter with PySlurm, ``conf`` the slurm.conf as that interpreter sees
        it.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    def arguments(self, request: SlurmRequest) -> list[str]:
        """Return PySlurm's attributes for a request as ``name=value``; there is no command."""
        options = _options(request)
        values = {**options, "script": str(request.script), "signal": f"B:USR1@{request.signal_s}" if request.signal_s else None}
        return ["pyslurm.JobSubmitDescription", *(f"{name}={value}" for name, value in values.items() if value is not None)]

    def submit(self, request: SlurmRequest) -> int:
        """Submit and return Slurm's id of the job.

        Raises
        ------
        NotSupported
            For sbatch options of the site.
        InvalidInput, Forbidden
            If Slurm refuses.
        Unavailable
            If no answer came: the job may have been submitted.
        """
        options = _options(request)
        try:
            options["script"] = request.script.read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise NotFound(f"there is no script {request.script}", hint="prepare the job again") from error
        except OSError as error:
            raise atomic.explained(error, request.script) from error
        question = {"ask": "submit", "options": options, "signal_s": request.signal_s}
        return int(process.ask(self.cluster, question, deadline_s=max(SUBMIT_S, self.cluster.deadline_s)))

    def queue(self, *, ended: bool = False) -> list[QueueRow]:
        """Return the user's jobs in the queue; with ``ended`` also those that ended recently."""
        queue_rows = self._records({"ask": "queue"}, rows.queue_row)
        return [row for row in queue_rows if ended or not has_ended(states.state_of(row.state))]

    def accounting(self, jobs: Mapping[int, Sequence[int] | None], *, since: str | None = None) -> list[AccountingRow]:
        """Return the accounting of jobs by Slurm's id; for requeued tasks only the last attempt."""
        if not jobs:
            return []
        question = {"ask": "accounting", "ids": sorted(jobs), "since": rows.epoch(since) if since else None}
        return [row for row in self._records(question, rows.accounting_row) if _asked(row, jobs)]

    def named(self, prefix: str, since: str) -> list[tuple[int, str]]:
        """Return (id, name) of the user's jobs with this prefix."""
        names = process.ask(self.cluster, {"ask": "named", "prefix": prefix, "since": rows.epoch(since)})
        return self._read(lambda: [(int(number), str(name)) for number, name in names])

    def cancel(self, jobs: Mapping[int, Sequence[int] | None]) -> None:
        """Cancel array tasks (None: the whole job); tasks that have ended are not an error."""
        targets = [
            str(job) if tasks is None else f"{job}_[{values.ranges_text(tasks)}]" for job, tasks in jobs.items() if tasks != []
        ]
        if targets:
            process.ask(self.cluster, {"ask": "cancel", "targets": targets}, deadline_s=max(SUBMIT_S, self.cluster.deadline_s))

    def configuration(self) -> Configuration:
        """Return the scheduler's configuration."""
        values = process.ask(self.cluster, {"ask": "configuration"})
        return self._read(lambda: rows.configuration(values))

    def partitions(self) -> list[PartitionRow]:
        """Return all partitions that are neither hidden nor root's."""
        return self._records({"ask": "partitions"}, rows.partition_row)

    def nodes(self) -> list[NodeGroup]:
        """Return the groups of alike nodes of each partition."""
        items = process.ask(self.cluster, {"ask": "nodes"})
        return self._read(lambda: rows.node_groups(items))

    def associations(self) -> list[Association]:
        """Return which accounts the user may charge; empty if the site has no accounting."""
        return self._records({"ask": "associations"}, rows.association)

    def qos(self) -> list[Qos]:
        """Return all qualities of service by name: PySlurm does not know their limits."""
        names = process.ask(self.cluster, {"ask": "qos"})
        return self._read(lambda: [Qos(str(name)) for name in names])

    def expected_start(self, request: SlurmRequest) -> tuple[str | None, str]:
        """Refuse: PySlurm cannot tell when a job would start.

        Raises
        ------
        NotSupported
            Always.
        """
        raise NotSupported("PySlurm cannot tell when a job would start", hint=_INSTEAD)

    def _records(self, question: Mapping[str, Any], make: Callable[[Mapping[str, Any]], T]) -> list[T]:
        items = process.ask(self.cluster, question)
        return self._read(lambda: [make(item) for item in items])

    def _read(self, make: Callable[[], T]) -> T:
        try:
            return make()
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise Unavailable(
                f"cannot read what PySlurm of cluster {self.cluster.name} answered",
                why=f"{type(error).__name__}: {error}",
                hint=_INSTEAD,
            ) from error


def _options(request: SlurmRequest) -> dict[str, Any]:
    """Return PySlurm's attributes of a request, without the script and the signal.

    Raises
    ------
    NotSupported
        For sbatch options of the site.
    InvalidInput
        For a variable that no client can pass on.
    """
    if request.options:
        raise NotSupported(
            f"PySlurm cannot pass on the site's option {request.options[0]}",
            hint="remove `options` of this cluster from the site file, or " + _INSTEAD,
        )
    if request.time_limit_min is not None and request.time_limit_min < 1:
        raise InvalidInput("the time limit must be at least a minute", hint="leave it out for the partition's own")
    directives.export(request)  # what one client refuses, all refuse
    kind = f"gpu:{request.gpu_type}" if request.gpu_type else "gpu"
    array = None
    if request.array is not None:
        array = values.ranges_text(request.array) + (f"%{request.throttle}" if request.throttle else "")
    return {
        "name": request.name,
        "partitions": request.partition,
        "account": request.account,
        "qos": request.qos,
        "constraints": request.constraint,
        "nodes": str(request.nodes),
        "ntasks": request.nodes,
        "ntasks_per_node": 1,
        "cpus_per_task": request.cpus,
        "memory_per_node": request.memory_mb,
        "gres_per_node": {kind: request.gpus} if request.gpus else None,
        "time_limit": request.time_limit_min,
        "array": array,
        "dependencies": request.dependency,
        "kill_on_invalid_dependency": True if request.dependency else None,
        "is_requeueable": request.requeue,
        "working_directory": str(request.directory),
        # % starts one of Slurm's placeholders in this option, and nowhere else.
        "standard_output": str(request.output).replace("%", "%%"),
        "log_files_open_mode": "append",
        # As sbatch's --export=NONE: the user's login environment on the node. An empty one would mean "all of mine";
        # what there is lets srun hand on the script's.
        "get_user_environment": True,
        "environment": {**request.environment, "SLURM_EXPORT_ENV": "ALL"},
    }


def _asked(row: AccountingRow, jobs: Mapping[int, Sequence[int] | None]) -> bool:
    """Return whether a row is one of the tasks that were asked for."""
    if row.job_id not in jobs:
        return False
    numbers = jobs[row.job_id]
    if numbers is None or (row.task is None and not row.tasks):
        return True
    return row.task in numbers if row.task is not None else _overlap(row.tasks, numbers)


def _overlap(spans: Iterable[range], numbers: Sequence[int]) -> bool:
    return any(number in span for span in spans for number in numbers)

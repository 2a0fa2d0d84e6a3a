"""The client over Slurm's commands: one command per question, none per job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from lossi import processes
from lossi.clusters import Cluster
from lossi.jobs.schedulers.slurm import process, refusals, states
from lossi.jobs.schedulers.slurm.cli.commands import Command, sacct, sacctmgr, sbatch, scancel, scontrol, sinfo, squeue
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


@dataclass(frozen=True)
class CliClient:
    """Slurm through its commands; see `SlurmClient`."""

    cluster: Cluster

    def arguments(self, request: SlurmRequest) -> list[str]:
        """Return the argv that `submit` starts."""
        return process.argv_of(self.cluster, sbatch.Sbatch(request).argv(self.cluster))

    def submit(self, request: SlurmRequest) -> int:
        """Submit and return Slurm's id of the job."""
        return self._ask(sbatch.Sbatch(request), deadline_s=max(SUBMIT_S, self.cluster.deadline_s))

    def queue(self, *, ended: bool = False) -> list[QueueRow]:
        """Return the user's jobs in the queue; with ``ended`` also those that ended recently."""
        return self._ask(squeue.Squeue(ended))

    def accounting(self, jobs: Mapping[int, Sequence[int] | None], *, since: str | None = None) -> list[AccountingRow]:
        """Return the accounting of jobs; nothing if the site has no database.

        Tasks without a row of their own may belong to an array that never started: then one more question asks for the whole
        array.
        """
        user = processes.user().name
        numbers = {job: None if tasks is None else frozenset(tasks) for job, tasks in jobs.items()}
        rows = [row for words in sacct.words_of(jobs) for row in self._database(sacct.Sacct(user, tuple(words), since), [])]
        known = {(row.job_id, row.task) for row in rows}
        by_task = {job: tasks for job, tasks in numbers.items() if tasks is not None and len(tasks) <= sacct.MOST_TASKS}
        arrays = [job for job, tasks in by_task.items() if any((job, task) not in known for task in tasks)]
        for words in sacct.words_of(dict.fromkeys(arrays)):
            rows += [row for row in self._database(sacct.Sacct(user, tuple(words), since), []) if row.task is None]
        return [row for row in rows if _is_wanted(row, numbers)]

    def named(self, prefix: str, since: str) -> list[tuple[int, str]]:
        """Return (id, name) of the user's jobs with this prefix, in the queue or since a time in the database.

        Refused submissions are left out, although both remember them for a while.
        """
        names = dict(self._database(sacct.SacctNames(processes.user().name, since), []))
        rows = (row for row in self.queue(ended=True) if not states.is_rejected(row.state, row.node_list))
        names.update({row.job_id: row.name for row in rows})
        return sorted((job, name) for job, name in names.items() if name.startswith(prefix))

    def cancel(self, jobs: Mapping[int, Sequence[int] | None]) -> None:
        """Cancel array tasks (None: the whole job); tasks that have ended are not an error."""
        for words in scancel.words_of(jobs):
            command = scancel.Scancel(tuple(words))
            done = process.run(self.cluster, command.argv(self.cluster), deadline_s=max(SUBMIT_S, self.cluster.deadline_s))
            if done.status and not refusals.is_gone(done.stderr):
                raise refusals.error_of(command.name, done.stderr, done.status)

    def configuration(self) -> Configuration:
        """Return the scheduler's configuration."""
        return self._ask(scontrol.ShowConfig())

    def partitions(self) -> list[PartitionRow]:
        """Return all partitions that the user may see."""
        return self._ask(scontrol.ShowPartitions())

    def nodes(self) -> list[NodeGroup]:
        """Return the groups of alike nodes of each partition."""
        return self._ask(sinfo.Sinfo())

    def associations(self) -> list[Association]:
        """Return which accounts the user may charge; empty if the site has no accounting."""
        return self._database(sacctmgr.ShowAssociations(processes.user().name), [])

    def qos(self) -> list[Qos]:
        """Return all qualities of service; empty if the site has none."""
        return self._database(sacctmgr.ShowQos(), [])

    def expected_start(self, request: SlurmRequest) -> tuple[str | None, str]:
        """Return when a job would start if it were submitted now, and Slurm's message."""
        command = sbatch.SbatchTest(request)
        done = process.run(self.cluster, command.argv(self.cluster))
        if done.status:
            raise refusals.error_of(command.name, done.stderr, done.status)
        return command.parse(done.stderr)

    def _ask(self, command: Command[T], *, deadline_s: float | None = None) -> T:
        done = process.run(self.cluster, command.argv(self.cluster), deadline_s=deadline_s)
        if done.status:
            raise refusals.error_of(command.name, done.stderr, done.status)
        return command.parse(done.stdout)

    def _database(self, command: Command[T], nothing: T) -> T:
        """Return the answer of a command that asks the database, ``nothing`` if the site has none."""
        done = process.run(self.cluster, command.argv(self.cluster))
        if refusals.is_disabled(done.stderr):
            return nothing
        if done.status:
            raise refusals.error_of(command.name, done.stderr, done.status)
        return command.parse(done.stdout)


def _is_wanted(row: AccountingRow, asked_tasks: Mapping[int, frozenset[int] | None]) -> bool:
    tasks = asked_tasks.get(row.job_id, frozenset())
    # An array that was cancelled early is one row without task numbers.
    if tasks is None or (row.task is None and not row.tasks):
        return row.job_id in asked_tasks
    return row.task in tasks if row.task is not None else any(task in span for span in row.tasks for task in tasks)

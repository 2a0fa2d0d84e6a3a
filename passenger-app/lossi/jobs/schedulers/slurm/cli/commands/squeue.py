"""squeue: the user's jobs."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import ClassVar

from lossi.clusters import Cluster
from lossi.contract.states import has_ended
from lossi.jobs.schedulers.slurm import states, values
from lossi.jobs.schedulers.slurm.cli.commands import UNIT, Unreadable, chosen, records, without_cluster
from lossi.jobs.schedulers.slurm.records import QueueRow

# The name comes last and is the only free text. All fields are in Slurm 20.11 and in 26.05.
FIELDS = (
    "ArrayJobID",
    "ArrayTaskID",
    "State",
    "Reason",
    "Partition",
    "Account",
    "QOS",
    "NumNodes",
    "NodeList",
    "NumCPUs",
    "tres-alloc",
    "tres-per-node",
    "SubmitTime",
    "EligibleTime",
    "StartTime",
    "EndTime",
    "TimeLimit",
    "RestartCnt",
    "PriorityLong",
    "exit_code",
    "Name",
)


@dataclass(frozen=True)
class Squeue:
    """The user's jobs in the queue; with ``ended`` also those that slurmctld still remembers."""

    ended: bool = False
    name: ClassVar[str] = "squeue"

    def argv(self, cluster: Cluster) -> list[str]:
        """Return its argv; fields without a size are not truncated.

        ``--local`` saves a question to slurmctld: whether its cluster belongs to a federation.
        """
        form = ",".join(f"{field}:{UNIT}" for field in FIELDS)
        states_asked = ["--states=all"] if self.ended else []
        return [
            cluster.command(self.name),
            *chosen(cluster),
            "--me",
            "--local",
            "--noheader",
            "--noconvert",
            *states_asked,
            f"--Format={form}",
        ]

    def parse(self, text: str) -> list[QueueRow]:
        """Return the rows.

        Raises
        ------
        Unreadable
            If the output is truncated or not as expected.
        """
        try:
            return [_row(*record) for record in records(self.name, without_cluster(text), len(FIELDS))]
        except ValueError as error:
            raise Unreadable(self.name, str(error)) from error


def _row(
    job: str,
    tasks: str,
    state: str,
    reason: str,
    partition: str,
    account: str,
    qos: str,
    nodes: str,
    node_list: str,
    cpus: str,
    tres: str,
    per_node: str,
    submitted: str,
    eligible: str,
    started: str,
    ended: str,
    limit: str,
    restarts: str,
    priority: str,
    status: str,
    name: str,
) -> QueueRow:
    code, signal = values.exit_code(status) if has_ended(states.state_of(state)) else (None, None)
    gpus, gpu_type = _gpus(tres, per_node)
    return QueueRow(
        job_id=int(job),
        name=name,
        state=states.word_of(state),
        tasks=None if values.is_nothing(tasks) else values.ranges(tasks),
        reason=values.text_of(reason),
        partition=partition,
        account=values.text_of(account),
        qos=values.text_of(qos),
        nodes=values.number(nodes),
        node_list=values.text_of(node_list),
        cpus=values.number(cpus),
        gpus=gpus,
        gpu_type=gpu_type,
        submitted=values.utc_time(submitted),
        eligible=values.utc_time(eligible),
        started=values.utc_time(started),
        ended=values.utc_time(ended),
        time_limit_s=values.whole_seconds(limit),
        restarts=values.number(restarts),
        priority=values.number(priority),
        exit_code=code,
        signal=signal,
    )


@functools.lru_cache(maxsize=256)  # all tasks of an array have the same
def _gpus(tres: str, per_node: str) -> tuple[int | None, str | None]:
    return values.gpus(values.tres(tres), per_node)

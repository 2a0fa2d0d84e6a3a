"""From slurmrestd's jobs, nodes and limits to `records`: what all API versions share. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from lossi.contract.states import CANCELLED, has_ended
from lossi.jobs.schedulers.slurm import states, values
from lossi.jobs.schedulers.slurm.records import AccountingRow, Association, Limits, NodeGroup, Qos, QueueRow
from lossi.jobs.schedulers.slurm.rest.fields import (
    at,
    minutes,
    moment,
    number,
    positive,
    seconds,
    state,
    tasks,
    text,
    tres,
    user_id,
    words,
)

_MIB = 2**20
_FLAGS = {
    "DENY_LIMIT": "DenyOnLimit",
    "ENFORCE_USAGE_THRESHOLD": "EnforceUsageThreshold",
    "NO_DECAY": "NoDecay",
    "NO_RESERVE": "NoReserve",
    "OVERRIDE_PARTITION_QOS": "OverPartQOS",
    "PARTITION_MAXIMUM_NODE": "PartitionMaxNodes",
    "PARTITION_MINIMUM_NODE": "PartitionMinNodes",
    "PARTITION_QOS": "OverPartQOS",
    "PARTITION_TIME_LIMIT": "PartitionTimeLimit",
    "RELATIVE": "Relative",
    "REQUIRED_RESERVATION": "RequiresReservation",
    "REQUIRED_RESERVATION_FLAG": "RequiresReservation",
    "USAGE_FACTOR_SAFE": "UsageFactorSafe",
}
"""slurmrestd's flags of a QOS → sacctmgr's."""

Ended = tuple[int | None, int | None]
"""Exit code and signal, of which one at most is known."""


def is_own(job: Mapping[str, Any], uid: int, user: str) -> bool:
    """Return whether a row of the queue is the user's."""
    owner = number(job.get("user_id"))
    return owner == uid if owner is not None else bool(user) and job.get("user_name") == user


def queue_row(job: Mapping[str, Any], ended: Ended) -> QueueRow:
    """Return a row of the queue."""
    word = state(job.get("job_state"))
    is_final = has_ended(states.state_of(word))
    array, task = positive(job.get("array_job_id")), number(job.get("array_task_id"))
    listed = tasks(job.get("array_task_string"))
    resources = _read_tres(job.get("tres_alloc_str")) or _read_tres(job.get("tres_req_str"))
    gpus, gpu_type = values.gpus(resources, text(job.get("tres_per_node")) or text(job.get("tres_per_job")))
    return QueueRow(
        job_id=array or number(job.get("job_id")) or 0,
        name=text(job.get("name")),
        state=word,
        tasks=None if not array else listed if listed is not None else (range(task, task + 1),) if task is not None else (),
        reason=text(job.get("state_reason")),
        partition=text(job.get("partition")),
        account=text(job.get("account")),
        qos=text(job.get("qos")),
        nodes=positive(job.get("node_count")),
        node_list=text(job.get("nodes")),
        cpus=positive(job.get("cpus")),
        gpus=gpus,
        gpu_type=gpu_type,
        submitted=moment(job.get("submit_time")),
        eligible=moment(job.get("eligible_time")),
        started=moment(job.get("start_time")),
        ended=moment(job.get("end_time")),
        time_limit_s=minutes(job.get("time_limit")),
        restarts=number(job.get("restart_cnt")),
        priority=number(job.get("priority")),
        exit_code=ended[0] if is_final else None,
        signal=ended[1] if is_final else None,
    )


def accounting_row(job: Mapping[str, Any], ended: Ended) -> AccountingRow:
    """Return one attempt, with all its steps.

    CPU time is the sum over the steps, as sacct's TotalCPU; memory is seff's: the maximum over the steps of MaxRSS × number of
    tasks (contribs/seff in Slurm's sources).
    """
    word = state(at(job, "state", "current"))
    is_final = has_ended(states.state_of(word)) or word in states.REQUEUED
    array, task = positive(at(job, "array", "job_id")), number(at(job, "array", "task_id"))
    steps = [step for step in job.get("steps") or () if isinstance(step, Mapping)]
    resources = tres(at(job, "tres", "allocated"))
    # Jobs that never had resources have the time of the question as their start in later versions.
    started = moment(at(job, "time", "start")) if resources else None
    gpus, gpu_type = values.gpus(resources or tres(at(job, "tres", "requested")), text(job.get("used_gres")))
    times = [at(step, "time", "total") for step in steps]
    resident = [size for step in steps if (size := _resident_mb(step)) is not None]
    return AccountingRow(
        job_id=array or number(job.get("job_id")) or 0,
        name=text(job.get("name")),
        state=word,
        task=task if array else None,
        tasks=(tasks(at(job, "array", "task")) or ()) if array and task is None else (),
        cancelled_by=user_id(job.get("kill_request_user")) if states.state_of(word) == CANCELLED else None,
        reason=text(at(job, "state", "reason")),
        exit_code=ended[0] if is_final else None,
        signal=ended[1] if is_final else None,
        partition=text(job.get("partition")),
        account=text(job.get("account")),
        qos=text(job.get("qos")),
        cluster=text(job.get("cluster")),
        nodes=positive(job.get("allocation_nodes")) if resources else None,
        node_list=text(job.get("nodes")),
        cpus=resources.get("cpu"),
        memory_mb=_float(resources.get("mem")),
        gpus=gpus,
        gpu_type=gpu_type,
        submitted=moment(at(job, "time", "submission")),
        eligible=moment(at(job, "time", "eligible")),
        started=started,
        ended=moment(at(job, "time", "end")) if is_final else None,
        elapsed_s=_float(number(at(job, "time", "elapsed"))) if started else None,
        time_limit_s=minutes(at(job, "time", "limit")),
        cpu_s=sum(seconds(time) for time in times) if steps and is_final else None,
        max_rss_mb=max(resident, default=None),
        billing=_float(resources.get("billing")),
        energy_j=_float(resources.get("energy") or None),
        admin_comment=text(at(job, "comment", "administrator")),
        restarts=number(job.get("restart_cnt")),
    )


def with_exit_codes(attempts: Iterable[AccountingRow], queue: Iterable[QueueRow]) -> list[AccountingRow]:
    """Return the attempts; those without an exit code or signal get the queue's for the same start of the same task."""
    known = {
        (row.job_id, None if row.tasks is None else row.tasks[0].start, row.started): (row.exit_code, row.signal)
        for row in queue
        if (row.exit_code is not None or row.signal is not None) and (row.tasks is None or row.tasks)
    }
    filled = []
    for row in attempts:
        if row.exit_code is None and row.signal is None and row.started:
            code, signal = known.get((row.job_id, row.task, row.started), (None, None))
            row = replace(row, exit_code=code, signal=signal)
        filled.append(row)
    return filled


def node_groups(nodes: Iterable[Mapping[str, Any]]) -> list[NodeGroup]:
    """Return groups of alike nodes, for each of their partitions."""
    counts: dict[tuple[Any, ...], int] = {}
    for node in nodes:
        gpus: dict[str, int] = {}
        for kind, count in values.gres(text(node.get("gres"))):
            gpus[kind] = gpus.get(kind, 0) + count
        word = "+".join((*words(node.get("state")), *words(node.get("state_flags")))).lower()
        alike = (number(node.get("cpus")) or 0, number(node.get("real_memory")) or 0, tuple(sorted(gpus.items())))
        for partition in words(node.get("partitions")):
            key = (partition, *alike, words(node.get("features")), word)
            counts[key] = counts.get(key, 0) + 1
    return [
        NodeGroup(partition, count, cpus, memory, dict(gpus), features, word)
        for (partition, cpus, memory, gpus, features, word), count in counts.items()
    ]


def association(item: Mapping[str, Any]) -> Association:
    """Return an association."""
    most = item.get("max")
    return Association(
        cluster=text(item.get("cluster")),
        account=text(item.get("account")),
        partition=text(item.get("partition")),
        qos=words(item.get("qos")),
        default_qos=text(at(item, "default", "qos")),
        is_default=bool(item.get("is_default")),
        limits=Limits(
            max_wall_s=minutes(at(most, "jobs", "per", "wall_clock")),
            max_jobs=number(at(most, "jobs", "active")),
            max_submit=number(at(most, "jobs", "total")),
            max_tres_per_job=tres(at(most, "tres", "per", "job")),
            max_tres_per_node=tres(at(most, "tres", "per", "node")),
            group_tres=tres(at(most, "tres", "total")),
            group_jobs=number(at(most, "jobs", "per", "count")),
            group_submit=number(at(most, "jobs", "per", "submitted")),
            group_tres_minutes=tres(at(most, "tres", "group", "minutes")),
            max_tres_minutes_per_job=tres(at(most, "tres", "minutes", "per", "job")),
        ),
    )


def quality(item: Mapping[str, Any]) -> Qos:
    """Return a quality of service."""
    most = at(item, "limits", "max")
    return Qos(
        name=text(item.get("name")),
        limits=Limits(
            max_wall_s=minutes(at(most, "wall_clock", "per", "job")),
            max_jobs=number(at(most, "jobs", "active_jobs", "per", "user")),
            max_submit=number(at(most, "jobs", "per", "user")),
            max_tres_per_job=tres(at(most, "tres", "per", "job")),
            max_tres_per_node=tres(at(most, "tres", "per", "node")),
            min_tres_per_job=tres(at(item, "limits", "min", "tres", "per", "job")),
            max_tres=tres(at(most, "tres", "per", "user")),
            group_tres=tres(at(most, "tres", "total")),
            group_jobs=number(at(most, "active_jobs", "count")),
            group_submit=number(at(most, "jobs", "count")),
            group_tres_minutes=tres(at(most, "tres", "minutes", "total")),
            max_tres_minutes_per_job=tres(at(most, "tres", "minutes", "per", "job")),
        ),
        flags=tuple(_FLAGS.get(flag, flag) for flag in words(item.get("flags"))),
    )


def listed(document: Mapping[str, Any], *names: str) -> list[Mapping[str, Any]] | None:
    """Return the objects of the first of these members that is a list; None: there is none."""
    for name in names:
        items = document.get(name)
        if isinstance(items, Sequence) and not isinstance(items, str):
            return [item for item in items if isinstance(item, Mapping)]
    return None


def errors(document: Mapping[str, Any]) -> list[tuple[int, str]]:
    """Return (Slurm's number, message) of the errors in an answer."""
    refused = []
    for item in listed(document, "errors") or ():
        code = number(item.get("error_number")) or number(item.get("error_code")) or 0
        messages = [text(item.get(name)) for name in ("description", "error")]
        refused.append((code, ": ".join(message for message in messages if message)))
    return refused


def _resident_mb(step: Mapping[str, Any]) -> float | None:
    greatest = tres(at(step, "tres", "requested", "max")).get("mem")
    return None if greatest is None else greatest * max(1, positive(at(step, "tasks", "count")) or 1) / _MIB


def _read_tres(value: Any) -> dict[str, float]:
    try:
        return values.tres(value) if isinstance(value, str) else {}
    except ValueError:
        return {}


def _float(value: int | None) -> float | None:
    return None if value is None else float(value)

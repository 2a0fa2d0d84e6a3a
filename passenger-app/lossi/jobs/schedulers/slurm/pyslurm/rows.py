"""From the plain fields of the child to `records`. Pure.

Corrected here: task 0 of an array comes as None (zero counts as "not set"), the accounting has sets of tasks as a hexadecimal
bit mask, "no limit" is a word in some fields and None in others. Cannot be corrected: PySlurm subtracts 128 from an exit code of
128 and more, so 137 arrives as 9.
"""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Any

from lossi.contract.states import has_ended
from lossi.jobs.schedulers.slurm import states, values
from lossi.jobs.schedulers.slurm.records import (
    AccountingRow,
    Association,
    Configuration,
    Limits,
    NodeGroup,
    PartitionRow,
    QueueRow,
)

Fields = Mapping[str, Any]
_MIB = 2**20


def queue_row(job: Fields) -> QueueRow:
    """Return a row of the queue.

    Raises
    ------
    ValueError, KeyError, TypeError
        If the fields are not those of a job.
    """
    ended = has_ended(states.state_of(job["state"]))
    code, signal = _ending(job) if ended else (None, None)
    gpus, kind = values.gpus(job["tres"], ",".join(f"{name}:{number}" for name, number in (job["gres_per_node"] or {}).items()))
    return QueueRow(
        job_id=job["array_id"] or job["id"],
        name=job["name"] or "",
        state=states.word_of(job["state"]),
        tasks=_tasks(job),
        reason=values.text_of(job["state_reason"] or ""),
        partition=job["partition"] or "",
        account=job["account"] or "",
        qos=job["qos"] or "",
        nodes=job["num_nodes"],
        node_list=job["allocated_nodes"] or "",
        cpus=job["cpus"],
        gpus=gpus or None,
        gpu_type=kind,
        submitted=moment(job["submit_time"]),
        eligible=moment(job["eligible_time"]),
        started=moment(job["start_time"]),
        ended=moment(job["end_time"]),
        time_limit_s=_times(job["time_limit"], 60),
        restarts=job["requeue_count"],
        priority=job["priority"],
        exit_code=code,
        signal=signal,
    )


def accounting_row(job: Fields) -> AccountingRow:
    """Return a row of the accounting, with all its steps.

    Raises
    ------
    ValueError, KeyError, TypeError
        If the fields are not those of a job.
    """
    tasks = _tasks(job)
    task = tasks[0][0] if tasks and len(tasks) == 1 and len(tasks[0]) == 1 else None
    steps = job["steps"]
    resident = [step["max_rss"] * (step["ntasks"] or 1) for step in steps if step["max_rss"]]
    code, signal = _ending(job) if has_ended(states.state_of(job["state"])) else (None, None)
    gpus, kind = values.gpus(job["tres"])
    return AccountingRow(
        job_id=job["array_id"] or job["id"],
        name=job["name"] or "",
        state=states.word_of(job["state"]),
        task=task,
        tasks=tasks if tasks and task is None else (),
        cancelled_by=job["cancelled_by"],
        reason=values.text_of(job["state_reason"] or ""),
        exit_code=code,
        signal=signal,
        partition=job["partition"] or "",
        account=job["account"] or "",
        qos=job["qos"] or "",
        cluster=job["cluster"] or "",
        nodes=job["num_nodes"],
        node_list=values.text_of(job["nodelist"] or ""),
        cpus=_whole(job["tres"].get("cpu")),
        memory_mb=job["tres"].get("mem"),
        gpus=gpus or None,
        gpu_type=kind,
        submitted=moment(job["submit_time"]),
        eligible=moment(job["eligible_time"]),
        started=moment(job["start_time"]),
        ended=moment(job["end_time"]),
        elapsed_s=job["elapsed_time"] or 0,
        time_limit_s=_times(job["time_limit"], 60),
        cpu_s=job["cpu_time"] if steps else None,
        max_rss_mb=max(resident) / _MIB if resident else None,
        billing=job["tres"].get("billing"),
        energy_j=sum(step["energy"] or 0 for step in steps) or None,
        admin_comment=job["admin_comment"] or "",
        restarts=job["requeue_count"],
    )


def partition_row(row: Fields) -> PartitionRow:
    """Return a partition."""
    return PartitionRow(
        name=row["name"],
        state=row["state"] or "UP",
        default=bool(row["is_default"]),
        max_time_s=_times(row["max_time"], 60),
        default_time_s=_times(row["default_time"], 60),
        min_nodes=_whole(row["min_nodes"]),
        max_nodes=_whole(row["max_nodes"]),
        total_nodes=_whole(row["total_nodes"]),
        max_cpus_per_node=_whole(row["max_cpus_per_node"]),
        max_memory_per_node_mb=_whole(row["max_memory_per_node"]),
        max_memory_per_cpu_mb=_whole(row["max_memory_per_cpu"]),
        default_memory_per_cpu_mb=_whole(row["default_memory_per_cpu"]),
        default_memory_per_node_mb=_whole(row["default_memory_per_node"]),
        allowed_accounts=_names(row["allowed_accounts"]),
        denied_accounts=_names(row["denied_accounts"]),
        allowed_qos=_names(row["allowed_qos"]),
        denied_qos=_names(row["denied_qos"]),
        allowed_groups=_names(row["allowed_groups"]),
        qos=row["qos"] or "",
    )


def node_groups(nodes: Iterable[Fields]) -> list[NodeGroup]:
    """Return the groups of alike nodes of each partition."""
    counted = Counter(
        (
            partition,
            node["total_cpus"],
            node["real_memory"] or 0,
            tuple(sorted(_gpus(node["configured_gres"] or {}).items())),
            tuple(node["available_features"] or ()),
            str(node["state"] or ""),
        )
        for node in nodes
        for partition in node["partitions"] or ()
    )
    return [
        NodeGroup(partition, number, cpus, memory, dict(gpus), features, state)
        for (partition, cpus, memory, gpus, features, state), number in sorted(counted.items())
    ]


def association(row: Fields) -> Association:
    """Return an association; PySlurm does not know its default quality of service."""
    return Association(
        cluster=row["cluster"] or "",
        account=row["account"] or "",
        partition=row["partition"] or "",
        qos=tuple(row["qos"] or ()),
        is_default=bool(row["is_default"]),
        limits=Limits(
            max_wall_s=_times(row["max_wall_time_per_job"], 60),
            max_jobs=_whole(row["max_jobs"]),
            max_submit=_whole(row["max_submit_jobs"]),
            max_tres_per_job=row["max_tres_per_job"],
            max_tres_per_node=row["max_tres_per_node"],
            max_tres_minutes_per_job=row["max_tres_mins_per_job"],
            group_tres=row["group_tres"],
            group_jobs=_whole(row["group_jobs"]),
            group_submit=_whole(row["group_submit_jobs"]),
            group_tres_minutes=row["group_tres_mins"],
        ),
    )


def configuration(values: Fields) -> Configuration:
    """Return the scheduler's configuration."""
    preemption = values["preempt_type"] or ""
    return Configuration(
        version=values["version"] or "",
        cluster=values["cluster_name"] or "",
        max_array_size=_whole(values["max_array_size"]),
        max_job_count=_whole(values["max_job_count"]),
        min_job_age_s=_whole(values["min_job_age"]),
        accounting=(values["accounting_storage_type"] or "").endswith("slurmdbd"),
        enforced=tuple(str(word).lower() for word in values["accounting_storage_enforce"] or ()),
        preemption="" if preemption.endswith("none") else preemption,
        requeue=values["job_requeue"] is not False,
        gpus="gpu" in (values["gres_types"] or ()),
    )


def moment(epoch: int | None) -> str | None:
    """Return ISO 8601 in UTC with Z for seconds since the epoch; None: not known."""
    if not epoch:
        return None
    return datetime.datetime.fromtimestamp(epoch, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def epoch(text: str) -> int:
    """Return seconds since the epoch for ISO 8601.

    Raises
    ------
    ValueError
        For anything else.
    """
    return int(datetime.datetime.fromisoformat(text).timestamp())


def _tasks(job: Fields) -> tuple[range, ...] | None:
    """Return the array tasks of a row; None without an array."""
    if not job["array_id"]:
        return None
    if job["array_task_id"] is not None:
        return (range(job["array_task_id"], job["array_task_id"] + 1),)
    waiting = job["array_tasks_waiting"]
    if not waiting:
        return (range(1),)
    return _of_mask(waiting) if waiting.lower().startswith("0x") else values.ranges(waiting)


def _of_mask(text: str) -> tuple[range, ...]:
    """Return the tasks of a bit mask: ``0x3C`` is 2 to 5."""
    bits = reversed(f"{int(text, 16):b}")
    numbers = (number for number, bit in enumerate(bits) if bit == "1")
    runs = (list(run) for _, run in groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]))
    return tuple(range(run[0][1], run[-1][1] + 1) for run in runs)


def _ending(job: Fields) -> tuple[int | None, int | None]:
    signal = job["exit_code_signal"] or None
    return (None, signal) if signal else (job["exit_code"], None)


def _whole(value: Any) -> int | None:
    """Return a number; None for "no limit"."""
    return None if value is None or isinstance(value, str) else int(value)


def _times(value: Any, factor: int) -> int | None:
    number = _whole(value)
    return None if number is None else number * factor


def _names(value: Iterable[str] | None) -> tuple[str, ...]:
    return tuple(name for name in value or () if name != "ALL")


def _gpus(gres: Mapping[str, int]) -> dict[str, int]:
    return dict(values.gres(",".join(f"{name}:{number}" for name, number in gres.items())))

"""PySlurm's plain fields become records; its own oddities are made good."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as st

from lossi.jobs.schedulers.slurm.pyslurm import rows

JOB: dict[str, Any] = {
    **dict.fromkeys(("state_reason", "array_id", "array_task_id", "array_tasks_waiting", "qos", "allocated_nodes", "nodelist")),
    **dict.fromkeys(("submit_time", "eligible_time", "start_time", "end_time", "time_limit", "gres_per_node", "admin_comment")),
    "id": 7,
    "name": "lossi-x",
    "state": "RUNNING",
    "partition": "small",
    "account": "proj1",
    "num_nodes": 1,
    "cpus": 2,
    "requeue_count": 0,
    "priority": 1,
    "exit_code": 0,
    "exit_code_signal": 0,
    "tres": {},
    "cluster": "ci",
    "elapsed_time": 5,
    "cpu_time": 3,
    "steps": [],
    "cancelled_by": None,
}


def job(**changes: Any) -> dict[str, Any]:
    return {**JOB, **changes}


def test_task_0_of_an_array_comes_without_its_number() -> None:
    row = rows.queue_row(job(id=9, array_id=7))
    assert (row.job_id, row.tasks) == (7, (range(1),))
    assert rows.accounting_row(job(id=9, array_id=7)).task == 0


def test_a_job_without_an_array_has_no_tasks() -> None:
    assert rows.queue_row(JOB).tasks is None
    row = rows.accounting_row(JOB)
    assert (row.task, row.tasks) == (None, ())


def test_waiting_tasks_come_as_text_or_as_a_mask() -> None:
    assert rows.queue_row(job(array_id=7, array_tasks_waiting="2-5,9")).tasks == (range(2, 6), range(9, 10))
    assert rows.accounting_row(job(array_id=7, array_tasks_waiting="0x23C")).tasks == (range(2, 6), range(9, 10))


@given(st.sets(st.integers(0, 3000), min_size=1))
def test_a_mask_is_the_tasks_whose_bits_are_set(tasks: set[int]) -> None:
    mask = hex(sum(1 << task for task in tasks))
    row = rows.queue_row(job(array_id=7, array_tasks_waiting=mask))
    assert row.tasks is not None
    assert [task for span in row.tasks for task in span] == sorted(tasks)
    assert all(before.stop < after.start for before, after in zip(row.tasks, row.tasks[1:], strict=False))


def test_an_exit_code_is_only_known_of_what_has_ended() -> None:
    assert rows.queue_row(JOB).exit_code is None
    ended = rows.queue_row(job(state="FAILED", exit_code=3))
    assert (ended.exit_code, ended.signal) == (3, None)
    killed = rows.accounting_row(job(state="CANCELLED", exit_code=0, exit_code_signal=15))
    assert (killed.exit_code, killed.signal) == (None, 15)


def test_the_type_of_gpus_is_in_what_was_asked_for() -> None:
    row = rows.queue_row(job(tres={"gres/gpu": 2}, gres_per_node={"gres/gpu:a100": 2}))
    assert (row.gpus, row.gpu_type) == (2, "a100")
    typed = rows.accounting_row(job(tres={"gres/gpu": 2, "gres/gpu:a100": 2}))
    assert (typed.gpus, typed.gpu_type) == (2, "a100")


def test_memory_is_that_of_the_hungriest_step_times_its_tasks() -> None:
    steps = [{"ntasks": 1, "max_rss": 30 * 2**20, "energy": 0}, {"ntasks": 4, "max_rss": 10 * 2**20, "energy": 5}]
    row = rows.accounting_row(job(steps=steps, tres={"cpu": 4, "mem": 200, "billing": 4}))
    assert (row.max_rss_mb, row.energy_j, row.cpus, row.memory_mb, row.billing, row.cpu_s) == (40, 5, 4, 200, 4, 3)


def test_times_are_utc_and_limits_seconds() -> None:
    row = rows.queue_row(job(submit_time=1_000_000_000, time_limit=10))
    assert (row.submitted, row.time_limit_s, row.started) == ("2001-09-09T01:46:40Z", 600, None)
    assert rows.accounting_row(job(time_limit="PartitionLimit")).time_limit_s is None
    assert rows.epoch("2001-09-09T01:46:40Z") == 1_000_000_000


def test_no_limit_and_all_are_not_values() -> None:
    names = [
        "min_nodes",
        "total_nodes",
        "max_cpus_per_node",
        "max_memory_per_node",
        "max_memory_per_cpu",
        "default_memory_per_cpu",
    ]
    fields = {
        **dict.fromkeys([*names, "default_memory_per_node", "default_time"], "UNLIMITED"),
        **{name: ["ALL"] for name in ("allowed_accounts", "denied_accounts", "allowed_qos", "denied_qos", "allowed_groups")},
        "name": "gpu",
        "state": "UP",
        "is_default": False,
        "max_time": 1440,
        "max_nodes": "UNLIMITED",
        "qos": None,
    }
    row = rows.partition_row(fields)
    assert (row.max_time_s, row.max_nodes, row.max_memory_per_node_mb, row.denied_accounts) == (86400, None, None, ())


def test_nodes_are_counted_by_kind() -> None:
    node = {
        "total_cpus": 16,
        "real_memory": 64000,
        "configured_gres": {"gpu:a100": 4},
        "available_features": ["gpu"],
        "state": "IDLE",
    }
    groups = rows.node_groups([{**node, "partitions": ["gpu", "all"]}, {**node, "partitions": ["gpu"]}])
    assert {group.partition: group.nodes for group in groups} == {"gpu": 2, "all": 1}
    assert groups[0].gpus == {"a100": 4}


@pytest.mark.parametrize("broken", [{}, {"array_id": 1}, {"id": 1, "state": None}])
def test_fields_of_something_else_are_an_error(broken: dict[str, Any]) -> None:
    with pytest.raises((KeyError, TypeError, AttributeError, ValueError)):
        rows.queue_row(broken)

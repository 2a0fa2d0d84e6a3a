"""What the local scheduler makes of the machine that it finds itself on, and of a Slurm allocation there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lossi.jobs.schedulers.local import machine
from lossi.jobs.schedulers.local.machine import Allocation, allocation

IN_JOB = {"SLURM_JOB_ID": "123", "SLURMD_NODENAME": "node7"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"SLURM_JOB_ID": "123"}, None),  # salloc's shell on the login node
        ({"SLURMD_NODENAME": "node7"}, None),
        ({"SLURM_JOB_ID": "../x", "SLURMD_NODENAME": "node7"}, None),
        ({"SLURM_JOB_ID": "", "SLURMD_NODENAME": "node7"}, None),
        (IN_JOB, Allocation("123")),
        (IN_JOB | {"SLURM_CPUS_ON_NODE": "4", "SLURM_MEM_PER_NODE": "2000"}, Allocation("123", 4, 2000)),
        (IN_JOB | {"SLURM_CPUS_ON_NODE": "4", "SLURM_MEM_PER_CPU": "500"}, Allocation("123", 4, 2000)),
        (IN_JOB | {"SLURM_CPUS_ON_NODE": "many", "SLURM_MEM_PER_NODE": "0"}, Allocation("123")),
        (IN_JOB | {"CUDA_VISIBLE_DEVICES": "0,1", "SLURM_JOB_GPUS": "4,5"}, Allocation("123", gpus=("0", "1"))),
        (IN_JOB | {"CUDA_VISIBLE_DEVICES": "", "SLURM_JOB_GPUS": "4,5"}, Allocation("123")),
        (IN_JOB | {"CUDA_VISIBLE_DEVICES": "NoDevFiles"}, Allocation("123")),
        (IN_JOB | {"ROCR_VISIBLE_DEVICES": "3"}, Allocation("123", gpus=("3",))),
        (IN_JOB | {"SLURM_JOB_GPUS": "4,5"}, Allocation("123", gpus=("4", "5"))),
        (IN_JOB | {"SLURM_TASK_PID": "77"}, Allocation("123", task_pid=77)),
    ],
)
def test_an_allocation_is_told_by_what_slurmd_says(environment: dict[str, str], expected: Allocation | None) -> None:
    assert allocation(environment) == expected


@pytest.fixture
def login_node(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "sbatch").write_text("#!/bin/sh\n")
    (tmp_path / "sbatch").chmod(0o755)
    return {"PATH": str(tmp_path)}


def test_jobs_belong_into_an_allocation_but_not_on_a_login_node(login_node: dict[str, str]) -> None:
    assert "login node" in str(machine.why_not_here(login_node))
    assert "login node" in str(machine.why_not_here(login_node | {"SLURM_JOB_ID": "123"}))
    assert machine.why_not_here(login_node | IN_JOB) is None
    assert "Open OnDemand" in str(machine.why_not_here(login_node | IN_JOB | {"PASSENGER_BASE_URI": "/pun/sys/lossi"}))


def test_a_machine_has_no_more_than_its_allocation(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*machine.PASSED_ON, *machine.GPU_VARIABLES):
        monkeypatch.delenv(name, raising=False)
    cores, memory = machine.cores(), machine.total_memory_mb()
    for name, value in {**IN_JOB, "SLURM_CPUS_ON_NODE": "1", "SLURM_MEM_PER_NODE": "64", "SLURM_JOB_GPUS": "5"}.items():
        monkeypatch.setenv(name, value)
    assert (machine.cores(), machine.total_memory_mb(), machine.gpu_ids()) == (1, 64, ("5",))
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "100000")
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "1000000000")
    assert (machine.cores(), machine.total_memory_mb()) == (cores, memory)


def test_a_supervisor_is_told_of_its_allocation_and_of_nothing_else() -> None:
    variables = IN_JOB | {
        "SLURM_CPUS_ON_NODE": "4",
        "SLURM_JWT": "secret",
        "SLURM_ARRAY_TASK_ID": "3",
        "PATH": os.environ["PATH"],
    }
    assert machine.passed_on(variables) == IN_JOB | {"SLURM_CPUS_ON_NODE": "4"}
    assert machine.passed_on({"SLURM_JOB_ID": "123", "SLURM_CPUS_ON_NODE": "4"}) == {}

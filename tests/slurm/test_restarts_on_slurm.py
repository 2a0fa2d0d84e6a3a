"""Tasks that Slurm starts again or gives up: a node dies, somebody requeues, a higher partition takes the node."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from real_cluster import OwnCluster
from slurm_site import Site
from trials import WAITING, WAITING_NOTEBOOK, let_go, runs_of, task_folder, until_begun, until_published


def power_off(slurm: OwnCluster, node: str) -> None:
    """End a node as a loss of power does: slurmd and all that runs there at once, and Slurm is told that it is down."""
    slurm.kill_slurmd(node)
    there = [number for path in Path("/proc").glob("[0-9]*") if _is_of(number := int(path.name), slurm, node)]
    # Each step's keeper first: it would still report how its processes ended.
    for number in [*sorted({parent for each in there if (parent := _keeper(each))}), *there]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)
    slurm.scontrol("update", f"nodename={node}", "state=down", "reason=test")


def _is_of(number: int, slurm: OwnCluster, node: str) -> bool:
    with contextlib.suppress(OSError):
        variables = Path(f"/proc/{number}/environ").read_bytes().split(b"\0")
        return f"SLURMD_NODENAME={node}".encode() in variables and f"SLURM_CONF={slurm.conf}".encode() in variables
    return False


def _keeper(number: int) -> int | None:
    """Return the parent of a process if it is slurmstepd."""
    with contextlib.suppress(OSError):
        parent = int(Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[1])
        return parent if Path(f"/proc/{parent}/comm").read_text().strip() == "slurmstepd" else None
    return None


def power_on(slurm: OwnCluster, node: str) -> None:
    slurm.start_slurmd(node)
    slurm.scontrol("update", f"nodename={node}", "state=resume")


def node_of(slurm: OwnCluster, job: Any) -> str:
    return slurm.job("root", job["scheduler_id"])["NodeList"]


def check_second_attempt(site: Site, job: Any) -> Any:
    """Check that a task that ran twice is one run with what both attempts logged, and return the task."""
    assert site.until(job["id"], "succeeded")["counts"] == {"succeeded": 1}
    (task,) = site.until_accounted(job["id"])
    (run,) = runs_of(site, job["id"])
    assert (task["attempt"], task["restarts"], task["exit_code"]) == (2, 1, 0), task
    assert (run["metrics.attempt"], run["metrics.done"], run["status"]) == (2.0, 1.0, "FINISHED")
    logged = site.lossi("runs", "show", run["run_id"])["metrics"]["attempt"]
    assert (logged["min"], logged["max"], logged["count"]) == (1.0, 2.0, 2), "what both attempts logged is there"
    text = (task_folder(site, job["id"]) / "log").read_text()
    assert "attempt 1 has begun" in text and "attempt 2 has ended" in text
    rows = site.cluster.sacct(site.user, job["scheduler_id"], "State", "ElapsedRaw")
    assert task["elapsed_s"] == pytest.approx(sum(float(row["ElapsedRaw"]) for row in rows), abs=1)
    return task


@pytest.mark.slow
def test_a_task_whose_node_dies_has_failed_with_it_or_goes_on_in_its_run_on_another(own_slurm: OwnCluster) -> None:
    site = Site(own_slurm)
    site.write("train.py", WAITING)
    site.write("train.ipynb", WAITING_NOTEBOOK)
    lost = site.submit("train.py", "-t", "10", "-c", "8", "--no-requeue")
    again = site.submit("train.ipynb", "-t", "10", "-c", "8")
    until_begun(site, lost["id"])
    until_begun(site, again["id"])
    until_published(site, lost["id"])
    until_published(site, again["id"])
    nodes = sorted({node_of(own_slurm, lost), node_of(own_slurm, again)})
    place = node_of(own_slurm, lost)
    try:
        for node in nodes:
            power_off(own_slurm, node)
        site.until(lost["id"], "node_failed")
    finally:
        for node in nodes:
            power_on(own_slurm, node)
    (task,) = site.until_accounted(lost["id"])
    assert (task["state"], task["scheduler_state"], task["restarts"]) == ("node_failed", "NODE_FAIL", 0), task
    assert task["reason"] == f"a node failed ({place})"
    assert [run["metrics.attempt"] for run in runs_of(site, lost["id"])] == [1.0], "what was logged is not lost"
    assert "attempt 1 has begun" in (task_folder(site, lost["id"]) / "log").read_text()
    why = site.lossi("jobs", "why", f"{lost['id']}.0")
    assert (why["kind"], why["again"]) == ("node_failure", True), why
    own_slurm.start_now(again["scheduler_id"])
    until_begun(site, again["id"], attempt=2)
    let_go(site, again["id"], attempt=2)
    check_second_attempt(site, again)


@pytest.mark.slow
def test_a_task_that_is_requeued_or_preempted_goes_on_in_its_run(own_slurm: OwnCluster) -> None:
    site = Site(own_slurm)
    site.write("train.py", WAITING)
    requeued = site.submit("train.py", "-t", "10", "-m", "500M")
    gpu = site.submit("train.py", "-t", "10", "-m", "500M", "--partition", "gpu", "--gpus", "a100:2")
    pushed = site.submit("train.py", "-t", "10", "-c", "8", "-m", "500M", "--partition", "low")
    given_up = site.submit("train.py", "-t", "10", "-c", "8", "-m", "500M", "--partition", "low", "--no-requeue")
    jobs = (requeued, gpu, pushed, given_up)
    for job in jobs:
        until_begun(site, job["id"])
    for job in jobs:
        until_published(site, job["id"])
    high = own_slurm.sbatch(own_slurm.users[1], "sleep 600", "--partition=high", "--cpus-per-task=16", "--time=10")
    own_slurm.run_as(site.user, ["scontrol", "requeue", requeued["scheduler_id"]])
    own_slurm.run_as(site.user, ["scontrol", "requeue", gpu["scheduler_id"]])
    ended = site.until(given_up["id"], "preempted")
    assert "higher priority" in ended["reason"], ended
    own_slurm.run_as(own_slurm.users[1], ["scancel", str(high)])
    site.until(pushed["id"], "queued", "running")
    for job in (requeued, gpu, pushed):
        own_slurm.start_now(job["scheduler_id"])
    for job in (requeued, gpu, pushed):
        until_begun(site, job["id"], attempt=2)
        let_go(site, job["id"], attempt=2)
    for job in (requeued, gpu, pushed):
        task = check_second_attempt(site, job)
        if job is gpu:
            assert task["gpu_hours"] == pytest.approx(2 * task["elapsed_s"] / 3600)
    (task,) = site.until_accounted(given_up["id"])
    assert (task["state"], task["scheduler_state"], task["restarts"]) == ("preempted", "PREEMPTED", 0)
    (run,) = runs_of(site, given_up["id"])
    assert run["metrics.attempt"] == 1.0
    why = site.lossi("jobs", "why", f"{given_up['id']}.0")
    assert (why["kind"], why["again"]) == ("preemption", True), why

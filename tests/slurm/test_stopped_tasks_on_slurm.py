"""Tasks that are stopped from outside: cancelled by somebody, at their time limit, at their memory limit."""

from __future__ import annotations

import json
from typing import Any

import pytest
from real_cluster import OwnCluster
from slurm_site import Site
from trials import CELLS, WAITING, WAITING_NOTEBOOK, let_go, notebook, runs_of, task_folder, until_begun, until_published

GREEDY = notebook(
    *CELLS[:2],
    "held = []\nfor _ in range(200):\n    held.append(bytearray(b'x' * 2**24))\n    time.sleep(0.02)",
)


def why(site: Site, job: Any, number: int = 0) -> Any:
    return site.lossi("jobs", "why", f"{job['id']}.{number}")


def saved(site: Site, job: Any) -> str:
    """Return the outputs of the executed notebook."""
    return json.dumps(json.loads((task_folder(site, job["id"]) / "output.ipynb").read_text())["cells"])


@pytest.mark.slow
def test_what_stops_a_task_is_told_and_what_it_had_done_is_kept(own_slurm: OwnCluster) -> None:
    site = Site(own_slurm)
    site.write("train.py", WAITING)
    site.write("train.ipynb", WAITING_NOTEBOOK)
    site.write("greedy.ipynb", GREEDY)
    limited = site.submit("train.ipynb", "-t", "1", "-m", "700M")
    warned = site.submit("train.ipynb", "-t", "10", "-m", "700M")
    greedy = site.submit("greedy.ipynb", "-t", "10", "-m", "400M")
    sweep = site.submit("train.py", "-g", "x=0,1,2,3,4", "-t", "5", "-m", "700M")

    until_begun(site, sweep["id"], *range(5))
    for job, number in ((sweep, 3), (greedy, 0), (limited, 0), (warned, 0)):
        until_begun(site, job["id"], number)
        until_published(site, job["id"], number)
    let_go(site, greedy["id"])
    own_slurm.run_as(own_slurm.users[1], ["scancel", f"{sweep['scheduler_id']}_0"], expect=None)
    own_slurm.run_as(site.user, ["scancel", f"{sweep['scheduler_id']}_3"])
    own_slurm.run_as("root", ["scancel", f"{sweep['scheduler_id']}_4"])
    site.lossi("cancel", f"{sweep['id']}.2")
    own_slurm.run_as(site.user, ["scancel", "--signal=USR1", "--batch", warned["scheduler_id"]])
    let_go(site, sweep["id"], 0, 1)
    assert site.until(sweep["id"], "cancelled")["counts"] == {"succeeded": 2, "cancelled": 3}
    tasks = site.until_accounted(sweep["id"])
    assert [task["state"] for task in tasks] == ["succeeded", "succeeded", "cancelled", "cancelled", "cancelled"]
    for number, user in ((2, site.user), (3, site.user), (4, "root")):
        assert f"cancelled by {user}" in tasks[number]["reason"], tasks[number]
        assert why(site, sweep, number)["kind"] == "cancelled"
    assert {run["metrics.attempt"] for run in runs_of(site, sweep["id"])} == {1.0}
    assert len(runs_of(site, sweep["id"])) == 5, "also the runs of those that were cancelled are there"
    assert "attempt 1 has begun" in (task_folder(site, sweep["id"], 3) / "log").read_text()

    early = site.until(warned["id"], "timed_out")
    assert "time limit" in early["reason"]
    dead = site.until(greedy["id"], "out_of_memory")
    late = site.until(limited["id"], "timed_out")
    for job in (warned, limited, greedy):
        site.until_accounted(job["id"])
        (run,) = runs_of(site, job["id"])
        assert run["metrics.attempt"] == 1.0 and run["status"] in ("KILLED", "FAILED"), run
    assert "attempt 1 has begun" in saved(site, warned) and "attempt 1 has begun" in saved(site, limited)
    assert "attempt 1 has begun" in saved(site, greedy)
    assert dead["reason"] and late["reason"]

    explanation = why(site, limited)
    assert explanation["kind"] == "time_limit" and explanation["suggestion"].startswith("Resubmit it with "), explanation
    assert explanation["changes"]["resources"]["time"] == "00:02:00"
    explanation = why(site, greedy)
    assert explanation["kind"] == "memory" and explanation["suggestion"].startswith("Resubmit it with "), explanation
    assert "memory" in explanation["changes"]["resources"]
    more_time = site.lossi("resubmit", limited["id"], "--more", "time", "-d")
    more_memory = site.lossi("resubmit", greedy["id"], "--more", "memory", "-d")
    resources = {job["id"]: site.job(job["id"])["definition"]["resources"] for job in (more_time, more_memory)}
    assert resources[more_time["id"]]["time_limit_s"] >= 120 and resources[more_memory["id"]]["memory_mb"] > 400
    for job in (more_time, more_memory):
        assert job["resubmitted_from"] in (limited["id"], greedy["id"])
        site.lossi("cancel", job["id"])
    (task,) = site.tasks(greedy["id"])
    assert [task["scheduler_state"]] == [row["State"] for row in own_slurm.sacct(site.user, greedy["scheduler_id"], "State")]


def test_chosen_tasks_of_a_sweep_are_submitted_again(own_slurm: OwnCluster) -> None:
    site = Site(own_slurm)
    site.write("values.jsonl", "".join(f'{{"x": {number}}}\n' for number in range(8)))
    site.write("train.py", "import sys\nprint('arguments', *sys.argv[1:])\nsys.exit('7' in str(sys.argv))\n")
    job = site.submit("train.py", "--list", "values.jsonl", "-t", "5", "-m", "200M")
    site.until(job["id"], "failed", "succeeded")
    again = site.lossi("resubmit", job["id"], "--task", "1", "--task", "3", "--task", "7", "-d")
    assert (again["tasks"], again["resubmitted_from"]) == (3, job["id"])
    tasks = site.lossi("jobs", "show", again["id"])["tasks"]["items"]
    assert [task["parameters"]["x"] for task in tasks] == [1, 3, 7]
    assert site.lossi("resubmit", job["id"], "--task", "99", "-d", expect=3)["title"]
    site.until(again["id"], "succeeded", "failed")

"""slurmctld and slurmdbd away while jobs run, and a site without slurmdbd: what is shown meanwhile and what is right afterwards."""

from __future__ import annotations

import json
from typing import Any

from real_cluster import OwnCluster
from slurm_site import Site
from trials import WAITING, jobs_left, let_go, runs_of, until_begun

DEADLINE_S = 3.0


REST = """
import json, pathlib, sys
from lossi import projects
from lossi.api import security
from lossi.app import create_app
project = projects.find(pathlib.Path(sys.argv[1]))
app = create_app(security.AuthMode(secret="s" * 32, token="t" * 43), project=project)
client = app.test_client()
answer = client.get(sys.argv[2], headers={"Authorization": "Bearer " + "t" * 43, "Host": "127.0.0.1:8477"})
print(json.dumps({"status": answer.status_code, "said": answer.get_json()}))
"""


def rest(site: Site, path: str) -> Any:
    """Ask the web application as the user: status and answer."""
    argv = [site.cluster.installation.python, "-c", REST, site.project, path]
    return json.loads(site.cluster.run_as(site.user, argv, env=site.env).stdout)


def test_slurmctld_killed_while_jobs_run_shows_the_last_state_as_stale_and_loses_nothing(own_slurm: OwnCluster) -> None:
    site = Site(own_slurm, deadline_s=DEADLINE_S)
    site.write("train.py", WAITING)
    site.write("values.jsonl", "".join(f'{{"x": {number}}}\n' for number in range(3)))
    held = Site(own_slurm, options=["--hold"])
    held.write("train.py", WAITING)
    waiting = held.submit("train.py", "-t", "5")
    job = site.submit("train.py", "--list", "values.jsonl", "-t", "5", "-m", "500M")
    until_begun(site, job["id"], 0, 1, 2)
    site.until(job["id"], "running")
    assert held.job(waiting["id"])["state"] == "queued"
    own_slurm.kill_ctld()
    try:
        before = jobs_left(site)
        let_go(site, job["id"], 0)
        own_slurm.wait(lambda: site.lossi("jobs", "list")["stale"], "the last answer of slurmctld is too old")
        shown = site.lossi("jobs", "list")
        assert shown["items"][0]["state"] == "running"
        assert "'ci'" in shown["stale"] and "shown as it was at" in shown["stale"], shown["stale"]
        answer = rest(site, "/api/v1/jobs")
        assert (answer["status"], answer["said"]["items"][0]["state"]) == (200, "running")
        assert "shown as it was at" in answer["said"]["stale"]
        assert held.lossi("jobs", "list")["items"][0]["state"] == "queued"
        refused = site.lossi("run", "-d", "train.py", "-t", "5", expect=5)
        text = json.dumps(refused)
        assert "Slurm does not answer" in text and "try again" in text, text
        assert jobs_left(site) == before, "nothing is left of what was not submitted"
        account = site.project / ".lossi" / "jobs" / job["id"] / "tasks" / "0" / "exit.json"
        own_slurm.wait(account.exists, "task 0 ends though nobody looks after it")
        own_slurm.wait(lambda: site.job(job["id"])["counts"].get("succeeded") == 1, "its own account tells that it ended")
        assert site.lossi("cancel", job["id"], expect=5)["title"]
    finally:
        own_slurm.start_ctld()
    let_go(site, job["id"], 1, 2)
    assert site.until(job["id"], "succeeded")["counts"] == {"succeeded": 3}
    assert site.lossi("jobs", "list")["stale"] == ""
    tasks = site.until_accounted(job["id"])
    assert [(task["state"], task["exit_code"], task["scheduler_state"], task["restarts"]) for task in tasks] == [
        ("succeeded", 0, "COMPLETED", 0)
    ] * 3
    assert [run["metrics.done"] for run in runs_of(site, job["id"])] == [1.0] * 3
    assert held.job(waiting["id"])["state"] == "queued"
    held.lossi("cancel", waiting["id"])
    assert held.until(waiting["id"], "cancelled")["counts"] == {"cancelled": 1}


def test_slurmdbd_stopped_while_jobs_end_delays_their_facts_and_nothing_else(own_slurm: OwnCluster) -> None:
    site = Site(own_slurm)
    site.write("train.py", WAITING)
    job = site.submit("train.py", "-t", "5", "-m", "500M")
    bad = site.submit("-t", "5", "--", "sh", "-c", "sleep 1; exit 42")
    until_begun(site, job["id"])
    own_slurm.stop_dbd()
    try:
        let_go(site, job["id"])
        site.until(job["id"], "succeeded")
        failed = site.until(bad["id"], "failed")
        assert "42" in failed["reason"]
        (task,) = site.tasks(job["id"])
        assert (task["state"], task["exit_code"], task["final"]) == ("succeeded", 0, False)
        assert site.lossi("jobs", "list")["stale"] == "", "the queue is asked, and it answers"
        later = site.submit("-t", "5", "--", "sleep", "1")
        site.until(later["id"], "succeeded")
    finally:
        own_slurm.start_dbd()
    for ended, state, word in ((job, "succeeded", "COMPLETED"), (bad, "failed", "FAILED"), (later, "succeeded", "COMPLETED")):
        (task,) = site.until_accounted(ended["id"])
        assert (task["state"], task["scheduler_state"], task["account"]) == (state, word, "proj1")
        assert task["elapsed_s"] >= 1 and task["cpus"] == 1


def test_a_site_without_slurmdbd_knows_how_each_job_ended_also_after_slurm_has_forgotten_it(
    slurm_without_accounting: OwnCluster,
) -> None:
    slurm = slurm_without_accounting
    site = Site(slurm)
    site.write("train.py", WAITING)
    killed = site.submit("-t", "1", "--", "sleep", "600")
    good = site.submit("train.py", "-t", "5", "-m", "500M", "-c", "2")
    bad = site.submit("-t", "5", "--", "sh", "-c", "exit 42")
    sweep = site.submit("-t", "5", "--list", site.write("values.jsonl", '{"x": 1}\n{"x": 2}\n'), "train.py")
    stopped = site.submit("-t", "5", "--", "sleep", "600")
    held = Site(slurm, options=["--hold"])
    waiting = held.submit("-t", "5", "--", "true")
    until_begun(site, good["id"])
    site.until(stopped["id"], "running")
    site.until(killed["id"], "running")
    slurm.scontrol("update", f"jobid={killed['scheduler_id']}", "endtime=now")  # noticed within half a minute
    held.lossi("cancel", waiting["id"])
    site.lossi("cancel", stopped["id"])
    site.until(sweep["id"], "running", "queued")
    until_begun(site, sweep["id"], 0, 1)
    slurm.run_as(site.user, ["scancel", f"{sweep['scheduler_id']}_1"])
    let_go(site, sweep["id"], 0)
    let_go(site, good["id"])
    expected: list[tuple[Site, Any, dict[str, int]]] = [
        (site, good, {"succeeded": 1}),
        (site, bad, {"failed": 1}),
        (site, sweep, {"succeeded": 1, "cancelled": 1}),
        (site, stopped, {"cancelled": 1}),
        (held, waiting, {"cancelled": 1}),
        (site, killed, {"timed_out": 1}),
    ]
    ends = [(where, where.until(job["id"], *_ENDS)["counts"], counts_expected) for where, job, counts_expected in expected]
    assert [counts for _, counts, _ in ends] == [counts_expected for _, _, counts_expected in ends]
    slurm.wait(
        lambda: not any(slurm.job(where.user, job["scheduler_id"]) for where, job, _ in expected), "slurmctld forgets them"
    )
    for where, job, counts_expected in expected:
        assert where.job(job["id"])["counts"] == counts_expected
    for where in (site, held):
        (where.project / ".lossi" / "lossi.db").unlink()  # what follows can come from the job directories alone
    for where, job, counts_expected in expected[:-1]:  # the limit of a job so short is Slurm's knowledge alone
        assert where.job(job["id"])["counts"] == counts_expected
    (task,) = site.tasks(bad["id"])
    assert (task["exit_code"], task["final"]) == (42, True)
    (task,) = site.tasks(good["id"])
    assert task["cpus"] == 2 and task["elapsed_s"] > 0 and task["max_rss_mb"] > 10
    assert [run["metrics.done"] for run in runs_of(site, good["id"])] == [1.0]


_ENDS = ("succeeded", "failed", "cancelled", "timed_out", "out_of_memory", "node_failed", "preempted", "unknown")

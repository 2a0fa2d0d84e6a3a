"""The main job on a real cluster as an ordinary user: sweep, watch, compare; what Lossi says agrees with Slurm."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from real_cluster import OwnCluster, RealCluster
from slurm_site import Site
from trials import jobs_left

DEMO = Path(__file__).resolve().parents[2] / "passenger-app" / "lossi" / "demo" / "project"
QUICK = "import os, sys\nprint('hello from task', os.environ['LOSSI_TASK'])\n"


@pytest.mark.slow
def test_the_demo_sweep_runs_unchanged_and_its_facts_agree_with_sacct(slurm: RealCluster) -> None:
    site = Site(slurm)
    for path in DEMO.iterdir():
        site.write(path.name, path.read_text())
    gpu = ("--partition", slurm.gpu_partition, "--gpus", "a100:1") if slurm.own else ()
    job = site.lossi(
        "sweep", "train_digits.ipynb", "--cluster", "ci", "-g", "classifier=svc,forest", "-g", "seed=1,2", "-m", "1500M", "-t", "10",
        *map(str, gpu), "--max-parallel", "2",
    )  # fmt: skip
    assert (job["state"], job["tasks"], job["counts"]) == ("succeeded", 4, {"succeeded": 4})
    tasks = site.until_accounted(job["id"]) if slurm.accounting else site.tasks(job["id"])
    compared = site.lossi("runs", "compare", "--job", job["id"])
    assert len(compared["runs"]) == 4
    assert set(compared["job"]["state"]) == {"succeeded"}
    assert compared["metrics"]["accuracy"]["differs"]
    best = site.lossi(
        "runs", "list", "--filter", "job.elapsed_s > 0 AND job.state = 'succeeded'", "--order-by", "job.elapsed_s DESC"
    )
    assert len(best["columns"]["run_id"]) == 4
    if not slurm.accounting:
        return
    rows = slurm.sacct(
        site.user, job["scheduler_id"], "JobID", "State", "ElapsedRaw", "Partition", "AllocCPUS", "Account", "NodeList"
    )
    accounted = slurm.run_as(site.user, ["sacct", "-n", "-P", "-j", job["scheduler_id"], "-o", "JobID,TotalCPU"]).stdout
    cpu = dict(line.split("|") for line in accounted.splitlines())
    by_task = {int(row["JobID"].partition("_")[2]): row for row in rows}
    for task in tasks:
        row = by_task[task["task"]]
        assert (task["scheduler_state"], task["elapsed_s"], task["partition"], task["cpus"], task["account"], task["node_list"]) == (
            row["State"], float(row["ElapsedRaw"]), row["Partition"], int(row["AllocCPUS"]), row["Account"], row["NodeList"],
        )  # fmt: skip
        assert task["cpu_s"] == pytest.approx(_seconds(cpu[row["JobID"]]), abs=0.01)
        assert task["cpu_efficiency"] == pytest.approx(task["cpu_s"] / (task["elapsed_s"] * task["cpus"]), rel=1e-4)
        if slurm.own:
            assert (task["gpus"], task["gpu_type"]) == (1, "a100")
            assert task["gpu_hours"] == pytest.approx(task["elapsed_s"] / 3600)
            assert task["memory_efficiency"] == pytest.approx(task["max_rss_mb"] / 1500, rel=1e-4)


def _seconds(text: str) -> float:
    """Read ``[[days-]hours:]minutes:seconds.milliseconds``."""
    days, _, clock = text.rpartition("-")
    value = 0.0
    for part in clock.split(":"):
        value = value * 60 + float(part)
    return value + 86400 * int(days or 0)


def test_a_job_runs_as_submitted_though_lossi_is_removed_and_everything_is_edited_while_it_waits(
    own_slurm: OwnCluster,
) -> None:
    site = Site(own_slurm, options=["--hold"])
    site.write("train.py", QUICK)
    job = site.submit("train.py", "--cluster", "ci", "-t", "5")
    installed = own_slurm.installation
    python = json.loads((site.project / ".lossi" / "jobs" / job["id"] / "spec.json").read_text())["environment"]["python"]
    assert str(installed.root) in python, "the job runs in the environment that Lossi is in: uninstall only Lossi"
    packages = next((installed.root / "lib").glob("python3*/site-packages"))
    hidden = [path.rename(path.with_name(f".hidden-{path.name}")) for path in packages.glob("lossi*")]
    installed.command.rename(installed.command.with_name(".hidden"))
    try:
        site.write("train.py", "raise SystemExit('edited')\n")
        site.file.write_text("clusters: {ci: {bin: /nowhere}}\n")
        site.write(".lossi/environments.yml", "environments: {python: {broken\n")
        own_slurm.run_as(site.user, ["scontrol", "release", job["scheduler_id"]])
        account = site.project / ".lossi" / "jobs" / job["id"] / "tasks" / "0" / "exit.json"
        own_slurm.wait(account.exists, "the task has ended")
    finally:
        for path in hidden:
            path.rename(path.with_name(path.name.removeprefix(".hidden-")))
        installed.command.with_name(".hidden").rename(installed.command)
    assert json.loads(account.read_text())["state"] == "succeeded"
    assert (account.parent / "log").read_text().startswith("hello from task 0")


def test_a_job_starts_when_the_one_it_follows_has_succeeded_and_is_cancelled_when_that_has_failed(slurm: RealCluster) -> None:
    site = Site(slurm)
    site.write("train.py", QUICK)
    go = site.project / "go"
    waits = f"until [ -e '{go}' ]; do sleep 0.1; done"
    first = site.submit("-t", "5", "--", "sh", "-c", waits)
    second = site.submit("-t", "5", "train.py", "--after", first["id"])
    assert site.job(second["id"])["state"] == "queued"
    assert "Dependency" in site.job(second["id"])["reason"]
    go.touch()
    site.until(second["id"], "succeeded")
    go.unlink()
    bad = site.submit("-t", "5", "--", "sh", "-c", f"{waits}; exit 1")
    third = site.submit("-t", "5", "train.py", "--after", bad["id"])
    go.touch()
    assert site.until(third["id"], "cancelled")["counts"] == {"cancelled": 1}
    refused = site.lossi("run", "-d", "train.py", "--after", bad["id"], expect=4)
    assert "did not succeed: failed" in refused["title"] + refused["detail"]


def test_nothing_secret_is_in_anything_that_slurm_or_others_can_read(own_slurm: OwnCluster) -> None:
    site = Site(own_slurm)
    secret = "s3cr3t-" + "x" * 20
    held = dict.fromkeys(
        ("AWS_SECRET_ACCESS_KEY", "SECRET_KEY_BASE", "MLFLOW_TRACKING_PASSWORD", "SLURM_JWT", "HF_TOKEN"), secret
    )
    job = site.submit("-t", "5", "--", "sh", "-c", "env; sleep 3", **held)
    site.until(job["id"], "running", "succeeded")
    visible = own_slurm.scontrol("show", "job", "-dd", job["scheduler_id"])
    visible += subprocess.run(["ps", "axeww"], capture_output=True, text=True, check=True).stdout
    site.until(job["id"], "succeeded")
    visible += "".join(
        own_slurm.run_as("root", ["sacct", "-j", job["scheduler_id"], option]).stdout
        for option in ("--batch-script", "--env-vars")
    )
    visible += "".join(
        path.read_text("utf-8", "replace") for path in (site.project / ".lossi" / "jobs" / job["id"]).rglob("*") if path.is_file()
    )
    assert secret not in visible


def test_a_preview_says_when_the_job_would_start_and_what_would_stop_or_change_it(own_slurm: OwnCluster) -> None:
    site = Site(own_slurm)
    site.write("train.py", QUICK)
    shown = site.lossi("run", "--preview", "train.py", "-t", "5", "--partition", "gpu")
    assert shown["expected_start"] is not None and shown["expected_start"].endswith("Z")
    assert any("gpu" in warning for warning in shown["warnings"]), "a GPU partition without a GPU"
    assert jobs_left(site) == []


def test_another_users_job_is_not_found_and_nothing_of_it_is_told(own_slurm: OwnCluster) -> None:
    mine, theirs = Site(own_slurm, own_slurm.users[0]), Site(own_slurm, own_slurm.users[1])
    job = theirs.submit("-t", "5", "--", "sleep", "20")
    refused = mine.lossi("jobs", "show", job["id"], expect=3)
    assert theirs.project.name not in json.dumps(refused)
    mine.lossi("cancel", job["id"], expect=3)
    assert theirs.job(job["id"])["state"] in ("queued", "running")
    theirs.lossi("cancel", job["id"])


def test_tasks_run_inside_an_allocation_instead_of_queueing(own_slurm: OwnCluster) -> None:
    site = Site(own_slurm)
    site.write("train.py", QUICK)
    command = f"LOSSI_SITE={site.file} exec {own_slurm.installation.command} sweep train.py -g x=1,2,3 --here --json >said.json"
    slurm_id = own_slurm.sbatch(site.user, command, "--cpus-per-task=2", "--mem=4000", "--time=5", cwd=site.project)
    output = site.project / "said.json"
    own_slurm.wait(lambda: output.exists() and output.read_text().rstrip().endswith("}"), "the sweep has ended")
    job = json.loads(output.read_text())
    assert (job["state"], job["scheduler"], job["counts"]) == ("succeeded", "local", {"succeeded": 3})
    assert own_slurm.sacct(site.user, slurm_id, "JobID") == [{"JobID": str(slurm_id)}], "no other job was queued"


def test_one_submission_makes_few_files_and_one_slurm_job(own_slurm: OwnCluster) -> None:
    site = Site(own_slurm, options=["--hold"])
    site.write("train.py", QUICK)
    before = set(site.project.rglob("*"))
    site.write("values.jsonl", "".join(f'{{"x": {number}}}\n' for number in range(1000)))
    job = site.submit("train.py", "--list", "values.jsonl", "-t", "5")
    created = set(site.project.rglob("*")) - before - {site.project / "values.jsonl"}
    assert len([path for path in created if path.is_file()]) <= 12
    assert own_slurm.job(site.user, job["scheduler_id"])["ArrayTaskId"] == "0-999"
    site.lossi("cancel", job["id"])
    assert site.until(job["id"], "cancelled")["counts"] == {"cancelled": 1000}


def test_a_sweep_beyond_max_array_size_is_one_job(own_slurm: OwnCluster) -> None:
    with own_slurm.configured(SLURMCI_MAXARRAY="4"):
        site = Site(own_slurm)
        shutil.rmtree(own_slurm.projects / f"{site.user}-state" / "xdg_cache_home" / "lossi" / "clusters", ignore_errors=True)
        site.write("train.py", QUICK)
        site.write("values.jsonl", "".join(f'{{"x": {number}}}\n' for number in range(10)))
        job = site.submit("train.py", "--list", "values.jsonl", "-t", "5", "--max-parallel", "4")
        assert job["scheduler_id"].count("+") == 2
        site.until(job["id"], "succeeded")
        logs = [
            (site.project / ".lossi" / "jobs" / job["id"] / "tasks" / str(number) / "log").read_text() for number in range(10)
        ]
        assert [f"hello from task {number}\n" in log for number, log in enumerate(logs)] == [True] * 10
        shutil.rmtree(own_slurm.projects / f"{site.user}-state" / "xdg_cache_home" / "lossi" / "clusters", ignore_errors=True)

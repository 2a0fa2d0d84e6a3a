"""Bad input on a real cluster: refused with what is wrong and what to do, nothing left behind; odd names that are right work."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from real_cluster import OwnCluster
from slurm_site import Site
from trials import QUICK, jobs_left, task_folder

REFUSED: list[tuple[tuple[str, ...], tuple[int, ...], str]] = [
    (("--partition", "smal"), (2, 3, 4), "smal"),
    (("-A", "nobodys"), (2, 3, 4), "nobodys"),
    (("--qos", "closed"), (2, 3, 4), "closed"),
    (("--partition", "gpu", "--gpus", "h100:1"), (2, 3, 4), "h100"),
    (("--partition", "small", "--gpus", "a100:1"), (2, 3, 4), "small"),
    (("--partition", "gpu", "--gpus", "a100:9"), (2, 4), "9"),
    (("-N", "0"), (2,), "--nodes"),
    (("-N", "99"), (2, 4), "99"),
    (("-c", "64"), (2, 4), "64"),
    (("-t", "1:2:3:4"), (2,), "1:2:3:4"),
    (("-t", "9-00:00:00"), (2, 4), "9-00:00:00"),
    (("-m", "-4G"), (2,), "-4G"),
    (("-m", "900G"), (2, 4), "small"),
    (("-C", "no-such-feature"), (2, 4), "no-such-feature"),
    (("-n", "two\nlines"), (2,), "one line"),
    (("--cluster", "cj"), (2, 3), "cj"),
    (("--after", "01zzzzzzzzzzzzzzzzzzzzzzzz"), (2, 3), "01zzz"),
]


def refuse(site: Site, *arguments: str | Path) -> tuple[int, Any]:
    """Submit what must be refused and return exit code and message."""
    installed = site.cluster.installation.command
    done = site.cluster.run_as(site.user, [installed, *arguments, "--json"], cwd=site.project, env=site.env, expect=None)
    assert done.returncode, f"{arguments} was not refused: {done.stdout}"
    assert "Traceback" not in done.stdout + done.stderr
    try:
        return done.returncode, json.loads(done.stdout or done.stderr)
    except ValueError:
        return done.returncode, {"detail": done.stdout + done.stderr, "hint": "by the command line itself"}


def test_what_cannot_be_right_is_refused_by_name_and_leaves_nothing(own_slurm: OwnCluster) -> None:
    site = Site(own_slurm)
    site.write("train.py", QUICK)
    wrong = []
    for options, codes, named in REFUSED:
        code, problem = refuse(site, "run", "-d", "train.py", *(() if "-t" in options else ("-t", "5")), *options)
        text = json.dumps(problem, ensure_ascii=False)
        if code not in codes or named not in text or not problem.get("hint"):
            wrong.append((options, code, problem))
        if "internal-error" in text:
            wrong.append((options, code, problem))
    assert not wrong, "\n".join(map(str, wrong))
    assert jobs_left(site) == []
    assert own_slurm.run_as(site.user, ["squeue", "-h", "--me"]).stdout == ""


def test_slurm_that_is_not_there_or_not_slurm_is_told_of_and_breaks_nothing(own_slurm: OwnCluster) -> None:
    site = Site(own_slurm)
    site.write("train.py", QUICK)
    job = site.submit("-t", "5", "--", "sleep", "600")
    site.until(job["id"], "running")
    usual = site.file.read_text()
    before = jobs_left(site)
    programs = own_slurm.root / "programs"
    for name, text, words in (
        ("nowhere", None, "could not be started"),
        ("rubbish", "echo 'S1urm 99.99-beta'; echo '\\001|||{[}|x'; exit 0", ""),
        ("broken", "kill -SEGV $$", ""),
        ("cut", 'exec 3>&1; "/usr/bin/$(basename "$0")" "$@" | head -c 90 >&3', ""),
    ):
        folder = programs / name
        if text is not None:
            folder.mkdir(parents=True)
            for command in ("sbatch", "squeue", "sacct", "scontrol", "scancel", "sinfo", "sacctmgr"):
                folder.joinpath(command).write_text(f"#!/bin/sh\n{text}\n")
                folder.joinpath(command).chmod(0o755)
        site.file.write_text(usual.replace("    conf:", f"    bin: {folder}\n    conf:", 1))
        shutil.rmtree(own_slurm.projects / f"{site.user}-state" / "xdg_cache_home" / "lossi" / "clusters", ignore_errors=True)
        shown = site.lossi("jobs", "list")
        assert shown["items"][0]["state"] in ("running", "unknown", "queued"), (name, shown)
        assert shown["items"][0]["state"] == "running" or shown["stale"], (name, shown)
        if name != "cut":  # there sbatch itself has worked
            assert shown["stale"], (name, shown)
            code, problem = refuse(site, "run", "-d", "train.py", "-t", "5")
            assert code == 5 and problem["hint"], (name, code, problem)
            assert words in json.dumps(problem), (name, problem)
            assert jobs_left(site) == before, name
    site.file.write_text(usual)
    shutil.rmtree(own_slurm.projects / f"{site.user}-state" / "xdg_cache_home" / "lossi" / "clusters", ignore_errors=True)
    assert site.job(job["id"])["state"] == "running", "what was shown meanwhile has changed nothing for good"
    site.lossi("cancel", job["id"])
    site.until(job["id"], "cancelled")


def test_odd_names_and_paths_run_like_others(own_slurm: OwnCluster) -> None:
    home = own_slurm.projects / "100% sure, 'quoted' %j $(id) ü"
    home.mkdir(exist_ok=True)
    own_slurm.give(home, own_slurm.users[0])
    site = Site(own_slurm)
    moved = home / "a project %A_%a"
    site.project.rename(moved)
    site.project = moved
    site.lossi("project", "init")
    site.write("train.py", QUICK)
    name = "a name 🚀 %j $(id) `id` '\" #SBATCH --hold"
    job = site.submit("train.py", "-g", "x=1,2", "-t", "5", "-m", "200M", "-n", name)
    assert site.until(job["id"], "succeeded")["name"] == name
    for number in (0, 1):
        assert (task_folder(site, job["id"], number) / "log").read_text().startswith(f"hello from task {number}\n")
    tasks = site.until_accounted(job["id"])
    assert [task["scheduler_state"] for task in tasks] == ["COMPLETED"] * 2
    assert site.lossi("jobs", "list")["items"][0]["name"] == job["name"]

"""The project's folder as it can be on a cluster: full, and seen late from the login node; locks that hold on one node only."""

from __future__ import annotations

import contextlib
import json
import subprocess
from pathlib import Path

import pytest
from full_disk import fill, half_written, small
from real_cluster import OwnCluster
from slurm_site import Site
from trials import QUICK, WAITING, jobs_left, let_go, runs_of, task_folder, until_begun

LOCKS = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <dlfcn.h>
#include <stdarg.h>
#include <sys/file.h>
/* Locks of a mount with local_lock=all, as another node sees them: each node is granted its own. */
static int granted(int command) {
    return command == F_SETLK || command == F_SETLKW || command == F_OFD_SETLK || command == F_OFD_SETLKW;
}
#define LOCKS(NAME) \
    int NAME(int file, int command, ...) { \
        static int (*next)(int, int, void *); \
        va_list rest; \
        va_start(rest, command); \
        void *argument = va_arg(rest, void *); \
        va_end(rest); \
        if (granted(command)) return 0; \
        if (!next) next = (int (*)(int, int, void *))dlsym(RTLD_NEXT, #NAME); \
        return next(file, command, argument); \
    }
LOCKS(fcntl)
LOCKS(fcntl64)
int flock(int file, int operation) { (void)file; (void)operation; return 0; }
"""


@pytest.mark.slow
def test_a_full_folder_refuses_submissions_and_fails_tasks_for_that_reason(own_slurm: OwnCluster) -> None:
    site = Site(own_slurm)
    with small(site.project, "size=8m"):
        site.lossi("project", "init")
        site.write("train.py", WAITING)
        site.write("quick.py", QUICK)
        running = site.submit("train.py", "-t", "5", "-m", "500M")
        held = site.submit("-t", "5", "quick.py", "--after", f"{running['id']}:any")
        until_begun(site, running["id"])
        before = jobs_left(site)
        (task_folder(site, running["id"]) / "out" / "go-1").touch()
        filler = fill(site.project)
        refused = site.lossi("run", "-d", "quick.py", "-t", "5", expect=5)
        assert "the filesystem is full" in json.dumps(refused), refused
        assert "Traceback" not in json.dumps(refused)
        assert jobs_left(site) == before, "nothing is left of what was refused"
        own_slurm.wait(
            lambda: own_slurm.job(site.user, held["scheduler_id"])["JobState"] not in ("PENDING", "RUNNING", "COMPLETING"), 60
        )
        assert site.lossi("jobs", "list")["items"], "a full folder can be looked at"
        filler.unlink()
        for job in (running, held):
            end = site.until(job["id"], "succeeded", "failed")
            folder = task_folder(site, job["id"])
            assert not half_written(folder)
            if end["state"] == "failed":
                report = end["reason"] + "".join(path.read_text() for path in folder.parents[1].glob("scheduler*.log"))
                assert "is full" in report or "No space left" in report, report
        assert "failed" in {site.job(job["id"])["state"] for job in (running, held)}, "something of them could not be written"
        last = site.submit("quick.py", "-t", "5")
        site.until(last["id"], "succeeded")
        site.until_accounted(last["id"])
    with small(site.project, "nr_inodes=120"):
        site.lossi("project", "init")
        site.write("quick.py", QUICK)
        refused = site.lossi("sweep", "-d", "quick.py", "-t", "5", "-g", "x=" + ",".join(map(str, range(30))), expect=2)
        assert "files" in json.dumps(refused) and refused["hint"], refused
        for number in range(100):
            with contextlib.suppress(OSError):
                (site.project / f"file{number}").touch()
        refused = site.lossi("run", "-d", "quick.py", "-t", "5", expect=5)
        assert "files" in json.dumps(refused), refused
        assert jobs_left(site) == []


@pytest.mark.slow
def test_files_that_the_login_node_sees_late_change_nothing_but_the_moment(own_slurm: OwnCluster) -> None:
    site = Site(own_slurm, exit_grace_s=3600)
    site.write("train.py", WAITING)
    good = site.submit("train.py", "-t", "5", "-m", "500M")
    bad = site.submit("-t", "5", "--", "sh", "-c", 'until [ -e "$LOSSI_OUTPUT_DIR/go-1" ]; do sleep 0.1; done; exit 42')
    lost = site.submit("-t", "5", "--", "sleep", "300")
    until_begun(site, good["id"])
    own_slurm.wait(lambda: task_folder(site, lost["id"]).joinpath("log").exists(), "the task is running")
    site.until(bad["id"], "running")
    site.until(lost["id"], "running")
    own_slurm.wait(lambda: task_folder(site, bad["id"]).joinpath("out").exists(), "the other one too")
    jobs = site.project / ".lossi" / "jobs"
    # The login node's view: the folders of tasks as they were; new files come after the scheduler has said that the tasks ended.
    view = own_slurm.root / f"view-{site.project.name}"
    subprocess.run(["cp", "-a", str(jobs), str(view)], check=True)
    enter = ["unshare", "--mount", "--propagation", "private", "sh", "-c", 'mount --bind "$1" "$2" && shift 2 && exec "$@"', "sh"]
    command = [own_slurm.installation.command, "jobs", "show"]

    def seen(job_id: str) -> tuple[str, str]:
        words = [*enter, str(view), str(jobs), "su", "-s", "/bin/sh", site.user, "-c"]
        environment = {**own_slurm.environment_of(site.user), **site.env}
        line = " ".join([*map(str, command), job_id, "--json", "-P", f"'{site.project}'"])
        done = subprocess.run([*words, line], env=environment, capture_output=True, text=True, check=True, cwd="/")
        (task,) = json.loads(done.stdout)["tasks"]["items"]
        return task["state"], task["reason"]

    let_go(site, good["id"])
    let_go(site, bad["id"])
    own_slurm.run_as("root", ["scancel", "--signal=KILL", "--full", lost["scheduler_id"]])
    for job in (good, bad, lost):
        own_slurm.wait(
            lambda job=job: own_slurm.job("root", job["scheduler_id"])["JobState"] not in ("RUNNING", "COMPLETING"), 60
        )
    for job in (good, bad, good, bad):
        state, reason = seen(job["id"])
        assert state == "running", reason
        assert "without leaving" not in reason
    subprocess.run(["cp", "-a", f"{jobs}/.", str(view)], check=True)
    assert seen(good["id"])[0] == "succeeded"
    assert seen(bad["id"])[0] == "failed" and "42" in seen(bad["id"])[1]
    site.file.write_text(site.file.read_text().replace("exit_grace_s: 3600", "exit_grace_s: 1"))
    own_slurm.wait(lambda: seen(lost["id"])[0] not in ("running", "queued"))
    assert seen(lost["id"])[0] in ("failed", "cancelled"), seen(lost["id"])
    assert site.until(good["id"], "succeeded") and site.until(bad["id"], "failed")


@pytest.mark.host("cc", "as", "ld")
def test_where_locks_hold_on_one_node_only_two_that_write_at_once_lose_nothing(own_slurm: OwnCluster, tmp_path: Path) -> None:
    source, shim = tmp_path / "locks.c", own_slurm.root / "locks.so"
    source.write_text(LOCKS)
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(shim), str(source), "-ldl"], check=True)
    shim.chmod(0o755)
    site = Site(own_slurm)
    site.write("train.py", "import mlflow\nwith mlflow.start_run():\n    mlflow.log_metric('done', 1.0)\n")
    sweep = site.submit("train.py", "-g", "x=0,1,2,3,4,5", "-t", "5", "-m", "400M", "--max-parallel", "3")
    command = f"LD_PRELOAD={shim} LOSSI_SITE={site.file} {own_slurm.installation.command}"
    look = f"for i in 1 2 3 4 5 6 7 8; do {command} jobs list --json >/dev/null; {command} runs list --json >/dev/null; done"
    users = [
        subprocess.Popen(
            own_slurm.argv_as(site.user, ["sh", "-c", look]),
            cwd=site.project,
            env=own_slurm.environment_of(site.user),
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    errors = [process.communicate(timeout=200)[1] for process in users]
    assert "Traceback" not in "".join(errors), errors
    assert site.until(sweep["id"], "succeeded")["counts"] == {"succeeded": 6}
    assert [run["metrics.done"] for run in runs_of(site, sweep["id"])] == [1.0] * 6, "each run is there, and once"

"""The cluster of these tests does what the other tests build upon: if one of these fails, look here first."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from real_cluster import OwnCluster, RealCluster

pytestmark = pytest.mark.root


def test_every_node_is_idle_and_users_are_who_they_are(own_slurm: OwnCluster) -> None:
    nodes = own_slurm.run_as(own_slurm.users[0], ["sinfo", "-h", "-N", "-o", "%N"]).stdout.split()
    assert set(nodes) == {"cpu01", "cpu02", "gpu01", "gpu02", "pre01"}
    for user in own_slurm.users:
        folder = own_slurm.project(user)
        output = own_slurm.run_as(user, ["sh", "-c", 'id -un; pwd; echo "$HOME"; cat'], cwd=folder, text="read").stdout
        assert output.split() == [user, str(folder), str(own_slurm.home(user)), "read"]


def test_user_cannot_look_into_what_is_closed(own_slurm: OwnCluster, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    assert own_slurm.run_as(own_slurm.users[0], ["cat", secret], expect=None).returncode != 0


def test_command_that_takes_too_long_leaves_nothing_behind(own_slurm: OwnCluster) -> None:
    user, mark = own_slurm.users[0], "86399.25"
    with pytest.raises(subprocess.TimeoutExpired):
        own_slurm.run_as(user, ["sh", "-c", f"sleep {mark} & wait"], timeout=1)
    own_slurm.wait(lambda: subprocess.run(["pgrep", "-f", f"^sleep {mark}"], capture_output=True).returncode == 1)


def test_array_runs_as_the_user_on_a_gpu_that_was_asked_for(own_slurm: OwnCluster) -> None:
    user = own_slurm.users[1]
    folder = own_slurm.project(user)
    body = 'echo "$(id -un) $CUDA_VISIBLE_DEVICES" >out$SLURM_ARRAY_TASK_ID'
    job = own_slurm.sbatch(user, body, "--partition=gpu", "--array=0-2", "--gres=gpu:a100:2", "--account=proj2", cwd=folder)
    rows = own_slurm.wait(
        lambda: (
            [row for row in own_slurm.sacct(user, job, "State", "Account") if row["State"] == "COMPLETED"][2:]
            and own_slurm.sacct(user, job, "JobID", "State", "Account", "AllocTRES")
        )
    )
    assert [(row["JobID"], row["Account"]) for row in rows] == [(f"{job}_{n}", "proj2") for n in range(3)]
    assert all("gres/gpu=2" in row["AllocTRES"].split(",") for row in rows)
    for number in range(3):
        who, gpus = (folder / f"out{number}").read_text().split()
        assert who == user and len(gpus.split(",")) == 2
        assert (folder / f"out{number}").owner() == user


def test_memory_beyond_what_was_asked_for_ends_the_job(own_slurm: OwnCluster) -> None:
    user = own_slurm.users[0]
    greedy = f"exec {sys_python()} -c 'held = bytearray(400 << 20); import time; time.sleep(60)'"
    job = own_slurm.sbatch(user, greedy, "--mem=100")
    own_slurm.wait(lambda: own_slurm.job(user, job).get("JobState") not in ("PENDING", "RUNNING", "COMPLETING"))
    # Without cgroups, Slurm says no more than this.
    row = own_slurm.wait(
        lambda: [row for row in own_slurm.sacct(user, job, "State", "ExitCode") if row["State"] not in ("RUNNING", "PENDING")]
    )[0]
    assert row["State"] in ("FAILED", "OUT_OF_MEMORY")


def test_higher_partition_preempts_and_the_job_is_requeued(own_slurm: OwnCluster) -> None:
    user = own_slurm.users[0]
    folder = own_slurm.project(user)
    body = 'echo "${SLURM_RESTART_COUNT:-0}" >>starts; until [ -e go ]; do sleep 0.1; done'
    low = own_slurm.sbatch(user, body, "--partition=low", "--exclusive", "--requeue", cwd=folder)
    own_slurm.wait(lambda: (folder / "starts").exists())
    high = own_slurm.sbatch(own_slurm.users[1], "true", "--partition=high", "--exclusive")
    own_slurm.wait(lambda: own_slurm.job(user, high).get("JobState") == "COMPLETED")
    assert int(own_slurm.job(user, low)["Restarts"]) == 1
    own_slurm.start_now(low)
    starts = own_slurm.wait(lambda: (folder / "starts").read_text().split()[1:] and (folder / "starts").read_text())
    assert starts == "0\n1\n"
    (folder / "go").touch()
    own_slurm.wait(lambda: own_slurm.job(user, low).get("JobState") == "COMPLETED")
    states = own_slurm.wait(
        lambda: [row["State"] for row in own_slurm.sacct(user, low, "State")][1:] and own_slurm.sacct(user, low, "State")
    )
    assert [row["State"] for row in states] == ["PREEMPTED", "COMPLETED"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--partition=tiny", "--time=10"], "time limit"),
        (["--partition=tiny", "--nodes=2", "--time=1"], "Node count"),
        (["--partition=tiny", "--account=proj2", "--time=1"], "account"),
        (["--partition=tiny", "--qos=few", "--time=1"], "qos"),
        (["--qos=closed"], "qos"),
        (["--account=nobody"], "account"),
        (["--partition=nowhere"], "partition"),
        (["--mem=1T"], "Memory"),
    ],
)
def test_limits_are_enforced(own_slurm: OwnCluster, options: list[str], said: str) -> None:
    user = own_slurm.users[0]
    refused = own_slurm.run_as(user, ["sbatch", *options, "--wrap=true"], cwd=own_slurm.project(user), expect=None)
    assert refused.returncode != 0
    assert said.casefold() in refused.stderr.casefold()


def test_group_limit_of_an_account_makes_jobs_wait(own_slurm: OwnCluster) -> None:
    user = own_slurm.users[0]
    job = own_slurm.sbatch(user, "true", "--account=capped", "--cpus-per-task=5")
    own_slurm.wait(lambda: own_slurm.job(user, job).get("Reason") == "AssocGrpCpuLimit")
    own_slurm.run_as(user, ["scancel", str(job)])


def test_slurmctld_and_a_node_may_die_while_a_job_runs(own_slurm: OwnCluster) -> None:
    user = own_slurm.users[0]
    folder = own_slurm.project(user)
    job = own_slurm.sbatch(user, "touch up; until [ -e go ]; do sleep 0.1; done", "--nodelist=cpu02", cwd=folder)
    own_slurm.wait(lambda: (folder / "up").exists())
    own_slurm.kill_ctld()
    own_slurm.kill_slurmd("cpu02")
    assert own_slurm.run_as(user, ["scontrol", "ping"], expect=None).stdout.rstrip().endswith("DOWN")
    own_slurm.start_slurmd("cpu02")
    own_slurm.start_ctld()
    (folder / "go").touch()
    own_slurm.wait(lambda: own_slurm.job(user, job).get("JobState") == "COMPLETED")


def test_slurmctld_takes_another_configuration_for_a_while(own_slurm: OwnCluster) -> None:
    def most() -> str:
        return next(line.split()[-1] for line in own_slurm.scontrol("show", "config").splitlines() if "MaxArraySize" in line)

    with own_slurm.configured(SLURMCI_MAXARRAY="10"):
        assert most() == "10"
    assert most() == "20001"


def test_accounting_may_stop_and_come_back(own_slurm: OwnCluster) -> None:
    user = own_slurm.users[0]
    own_slurm.stop_dbd()
    assert own_slurm.run_as(user, ["sacct", "-n"], expect=None).returncode != 0
    job = own_slurm.sbatch(user, "exit 3")
    own_slurm.start_dbd()
    own_slurm.wait(lambda: own_slurm.sacct(user, job, "State", "ExitCode") == [{"State": "FAILED", "ExitCode": "3:0"}])


def test_slurmrestd_answers_by_token_and_by_socket(own_slurm: OwnCluster) -> None:
    user = own_slurm.users[0]
    places = own_slurm.rest_up(user)
    program = "import http.client, os, socket, sys\n" + SOCKET_CALL
    by_socket = own_slurm.run_as(user, [sys_python(), "-c", program, places.socket], expect=None)
    assert by_socket.stdout.split()[:1] == ["200"], by_socket.stderr
    token = own_slurm.run_as(user, ["scontrol", "token", "lifespan=60"]).stdout.strip().partition("=")[2]
    by_token = own_slurm.run_as(user, [sys_python(), "-c", TOKEN_CALL, places.url], env={"USER_TOKEN": token})
    assert by_token.stdout.split() == ["200"]


SOCKET_CALL = """
class Local(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(sys.argv[1])
connection = Local("localhost")
connection.request("GET", "/openapi/v3")
print(connection.getresponse().status)
"""
TOKEN_CALL = """
import os, sys, urllib.request
headers = {"X-SLURM-USER-NAME": os.environ["USER"], "X-SLURM-USER-TOKEN": os.environ["USER_TOKEN"]}
print(urllib.request.urlopen(urllib.request.Request(sys.argv[1] + "/openapi/v3", headers=headers)).status)
"""


def test_site_without_accounting_forgets(slurm_without_accounting: OwnCluster) -> None:
    slurm = slurm_without_accounting
    user = slurm.users[0]
    job = slurm.sbatch(user, "exit 3")
    slurm.wait(lambda: slurm.job(user, job).get("JobState") == "FAILED")
    assert slurm.run_as(user, ["sacct", "-n"], expect=None).returncode != 0
    slurm.wait(lambda: not slurm.job(user, job), "slurmctld has forgotten the job")


def test_lossi_is_installed_for_users(slurm: RealCluster) -> None:
    user = slurm.users[0]
    project = slurm.project(user)
    assert slurm.lossi(user, "project", "init", ".", project=project)
    assert slurm.lossi(user, "jobs", "list", project=project)["items"] == []
    where = slurm.run_as(user, [slurm.installation.python, "-c", "import lossi, papermill; print(lossi.__file__)"]).stdout
    if slurm.own:
        assert where.startswith(str(slurm.installation.root))


def sys_python() -> str:
    """An interpreter that every user may run."""
    return "/usr/bin/python3"


@pytest.mark.parametrize("end", ["returns", "is killed"])
def test_nothing_is_left_when_the_tests_end(own_slurm: OwnCluster, end: str) -> None:
    code = (
        "import os, signal, sys\n"
        "from real_cluster import throw_away\n"
        "with throw_away(accounting=False, SLURMCI_NGPU='1', SLURMCI_NCPU='1') as cluster:\n"
        "    job = cluster.sbatch(cluster.users[0], 'sleep 600')\n"
        "    cluster.wait(lambda: cluster.job(cluster.users[0], job).get('JobState') == 'RUNNING')\n"
        "    print(cluster.root, flush=True)\n"
        "    if sys.argv[1] == 'is killed':\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code, end], env=environment, capture_output=True, text=True, timeout=120)
    root = done.stdout.strip()
    assert root.startswith("/var/tmp/lossi-slurm-"), done.stderr
    own_slurm.wait(lambda: not Path(root).exists())
    assert processes_that_name(root) == []


def processes_that_name(text: str) -> list[str]:
    pids = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            content = place.joinpath("cmdline").read_bytes() + place.joinpath("environ").read_bytes()
        except OSError:
            continue
        if text.encode() in content:
            pids.append(place.name)
    return pids

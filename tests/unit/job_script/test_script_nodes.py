"""script.sh on several nodes: srun's part is played by tests/srun.py."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from script_runs import LEAVES_RECORD, NAME, exit_record, make, names, run, wait_for

STAND_IN = Path(__file__).parents[2] / "srun.py"

RANKED = """
import json, os, signal, sys, time
task, rank = (sys.argv[sys.argv.index(name) + 1] for name in ("--task", "--rank"))
name = "exit.json" if rank == "0" else f"exit.rank{rank}.json"
def end(state, code):
    open(f"tasks/{task}/{name}", "w").write(json.dumps({"task": int(task), "state": state, "exit_code": code}))
    os._exit(code)
signal.signal(signal.SIGTERM, lambda *_: end("cancelled", 143))
def until_ended():
    path = "tasks/0/ranks.jsonl"
    while not (os.path.exists(path) and '{"ended"' in open(path).read()): time.sleep(0.02)
json.dump(dict(os.environ), open(f"seen{rank}.part", "w"))
os.rename(f"seen{rank}.part", f"seen{rank}")
print("rank", rank, flush=True)
"""


@pytest.fixture
def srun(tmp_path: Path) -> Path:
    """A folder for PATH with something that behaves like srun."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "srun"
    program.write_text(f"#!{sys.executable}\n{STAND_IN.read_text()}")
    program.chmod(0o755)
    return folder


def run_on_nodes(shell: str, path: Path, srun: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    slurm = {"SLURM_JOB_ID": "31234", "SLURM_EXPORT_ENV": "NONE", "PATH": f"{srun}:{os.environ['PATH']}"}
    return subprocess.run(
        [shell, str(path)], env={**slurm, **environment}, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL
    )


def test_every_node_runs_the_runner_once(directory: Path, shell: str, srun: Path, tmp_path: Path) -> None:
    program = (
        RANKED
        + "if rank == '0':\n  while not all(os.path.exists(f'seen{n}') for n in '12'): time.sleep(0.02)\nend('succeeded', 0)"
    )
    path = make(directory, program, nodes=3, setup=["export FROM_SETUP=yes"], scratch=f"{tmp_path}/scratch")
    done = run_on_nodes(shell, path, srun, SLURM_ARRAY_TASK_ID="1", SLURM_JOB_NAME=f"{NAME}+1", SLURM_RESTART_COUNT="1")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    call = json.loads((directory / "srun.json").read_text())
    assert call["argv"] == ["/bin/sh", str(path)]
    expected = {"relative": "1", "nodes": "2", "ntasks": "2", "ntasks-per-node": "1", "kill-on-bad-exit": "0", "wait": "0"}
    assert call["options"] == expected
    assert names(directory / "tasks/2") == ["exit.json", "log", "log.rank1", "log.rank2"]
    assert (directory / "tasks/2/log.rank2").read_text() == "rank 2\n"
    for rank in range(3):
        variables = json.loads((directory / f"seen{rank}").read_text())
        assert (variables["LOSSI_NODE_RANK"], variables["LOSSI_NODES"], variables["LOSSI_TASK"]) == (str(rank), "3", "2")
        assert (variables["SLURM_PROCID"], variables["SLURM_NODEID"], variables["SLURM_NTASKS"]) == (str(rank), str(rank), "3")
        assert (variables["MASTER_ADDR"], variables["MASTER_PORT"]) == (os.uname().nodename, "21234")
        assert (variables["SLURM_EXPORT_ENV"], variables["FROM_SETUP"]) == ("ALL", "yes")
        assert variables["TMPDIR"].startswith(f"{tmp_path}/scratch/lossi-2.")
        assert "LOSSI_ROLE" not in variables
    assert not (tmp_path / "scratch").exists()


def test_exit_records_of_further_nodes_reach_the_first(directory: Path, shell: str, srun: Path) -> None:
    """Also of a runner that leaves none itself."""
    program = """
if rank == "1": end("succeeded", 0)
if rank == "2": os._exit(9)
until_ended()
os.rename("tasks/0/ranks.jsonl", "ranks")
end("failed", 1)
"""
    done = run_on_nodes(shell, make(directory, RANKED + program, nodes=3), srun)
    assert done.returncode == 1
    lines = [json.loads(line) for line in (directory / "ranks").read_text().splitlines() if line.startswith("{")]
    records_by_rank = {line["rank"]: line["exit"] for line in lines if "rank" in line}
    assert (
        records_by_rank[1]["state"],
        records_by_rank[2]["state"],
        records_by_rank[2]["exit_code"],
        records_by_rank[2]["written_by"],
    ) == (
        "succeeded",
        "failed",
        9,
        "script",
    )
    assert lines[-1] == {"ended": 9}
    assert names(directory / "tasks/0") == ["exit.json", "log", "log.rank1", "log.rank2"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_reaches_every_node(directory: Path, shell: str, srun: Path, number: signal.Signals) -> None:
    path = make(directory, RANKED + "while True: time.sleep(0.02)", nodes=3)
    environment = {"SLURM_JOB_ID": "5", "PATH": f"{srun}:{os.environ['PATH']}"}
    process = subprocess.Popen([shell, str(path)], env=environment, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        for rank in range(3):
            wait_for(directory / f"seen{rank}")
        process.send_signal(number)
        assert process.wait(300) == 143
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert exit_record(directory).state == "cancelled"
    assert names(directory / "tasks/0") == sorted(
        ["exit.json", "log", "log.rank1", "log.rank2", *(["ending.json"] if number == signal.SIGUSR1 else [])]
    )


def test_further_nodes_stop_when_the_first_ends(directory: Path, shell: str, srun: Path) -> None:
    program = """
while rank != "0": time.sleep(0.02)
while not os.path.exists("seen1"): time.sleep(0.02)
end("failed", 3)
"""
    assert run_on_nodes(shell, make(directory, RANKED + program, nodes=2), srun).returncode == 3


def test_several_nodes_without_slurm_are_refused(directory: Path, shell: str) -> None:
    done = run(shell, make(directory, LEAVES_RECORD, nodes=2))
    assert (done.returncode, names(directory)) == (2, ["script.sh"])
    assert "only Slurm" in done.stderr


def test_missing_srun_is_reported_to_the_runner(directory: Path, shell: str, tmp_path: Path) -> None:
    program = (
        RANKED
        + """
until_ended()
end("failed", 1)
"""
    )
    empty = tmp_path / "empty"
    empty.mkdir()
    path = make(directory, program, nodes=2)
    hidden = {"PATH": f"{empty}:/usr/bin:/bin", "SLURM_JOB_ID": "5"}
    text = path.read_text().replace("LOSSI_ROLE=rank srun", "LOSSI_ROLE=rank no-such-srun")
    path.write_text(text)
    assert subprocess.run([shell, str(path)], env=hidden, timeout=300, stdin=subprocess.DEVNULL).returncode == 1

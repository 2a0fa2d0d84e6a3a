"""Tasks of several nodes: the real runner on each, started by the real script.sh; srun's part is played by tests/srun.py."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from runner_jobs import Job, Run, artifacts, processes_of

from lossi.contract import records
from lossi.contract.records import Resources
from lossi.jobs.submit import script
from lossi.jobs.submit.script import Header
from lossi.runner import publish

STAND_IN = Path(__file__).parents[1] / "srun.py"
PLACEHOLDER = "01aryz6s41tsv4rrffq69g5fav"

MEET = """
import os, pathlib, socket, time
rank, nodes = int(os.environ["LOSSI_NODE_RANK"]), int(os.environ["LOSSI_NODES"])
place = (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
out = pathlib.Path(os.environ["LOSSI_OUTPUT_DIR"])
def meet():
    "All ranks report to rank 0."
    if rank == 0:
        with socket.create_server(place) as server:
            met = [server.accept()[0] for _ in range(nodes - 1)]
            return sorted(connection.recv(9).decode() for connection in met)
    while True:
        try:
            with socket.create_connection(place, 1) as connection:
                return connection.sendall(str(rank).encode())
        except OSError:
            time.sleep(0.02)
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Run]]:
    """Start a prepared job on several nodes."""
    started: list[Run] = []
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "srun"
    program.write_text(f"#!{sys.executable}\n{STAND_IN.read_text()}")
    program.chmod(0o755)

    def begin(job: Job, nodes: int = 2, **environment: str) -> Run:
        job.write_spec(resources=Resources(cpus=1, nodes=nodes))
        runner = [sys.executable, str(job.directory / records.RUNNER), "run", "--job", str(job.directory)]
        text = script.render(Header(PLACEHOLDER, job.directory, 1, runner, nodes=nodes)).replace(PLACEHOLDER, job.spec.id)
        (job.directory / records.SCRIPT).write_text(text)
        slurm = {"SLURM_JOB_ID": str(secrets.randbelow(20000)), "SLURM_EXPORT_ENV": "NONE"}
        variables = {**job.environment, **slurm, "PATH": f"{folder}:{os.environ['PATH']}", **environment}
        argv = ["/bin/sh", str(job.directory / records.SCRIPT)]
        process = subprocess.Popen(argv, env=variables, stdin=subprocess.DEVNULL, start_new_session=True)
        run = Run(process, job, 0)
        started.append(run)
        return run

    yield begin
    for run in started:
        if run.process.poll() is None:
            os.killpg(run.process.pid, signal.SIGKILL)
            run.process.wait()
        for pid in processes_of(run.job):
            os.kill(pid, signal.SIGKILL)


def test_a_program_that_logs_on_every_node_makes_one_run(prepare: Callable[..., Job], start: Callable[..., Run]) -> None:
    train = (
        MEET
        + """
import mlflow
mlflow.set_experiment("made here")
print("met", meet())
with mlflow.start_run() as run:
    mlflow.log_metric("rank", rank)
    mlflow.log_text("hi", "notes.txt")
    print("attempt", os.environ["LOSSI_ATTEMPT"], run.info.run_id)
pathlib.Path(f"file-of-{rank}").touch()
pathlib.Path(out, f"kept-of-{rank}").touch()
"""
    )
    run = start(prepare({"train.py": train.encode()}, kind="script"), 3).wait()
    assert run.exit.state == "succeeded", run.log
    assert "met ['1', '2']" in run.log
    (mlflow_run,) = run.runs()
    assert run.exit.run_ids == [mlflow_run.info.run_id]
    assert (mlflow_run.data.metrics, mlflow_run.info.status) == ({"rank": 0.0}, "FINISHED")
    assert {path.parent.parent.name for path in artifacts(run.job).rglob("notes.txt")} == {mlflow_run.info.run_id}
    files = {path.relative_to(run.folder / "out").as_posix() for path in (run.folder / "out").rglob("*") if path.is_file()}
    assert files == {"kept-of-0", "kept-of-1", "kept-of-2", "file-of-0", "rank1/file-of-1", "rank2/file-of-2"}
    names = {path.name for path in run.folder.iterdir()} - {path.name for _, path in publish.snapshots(run.folder)}
    assert names == {"exit.json", "log", "log.rank1", "log.rank2", "out", "progress.json", "use.jsonl"}
    assert "met None" in (run.folder / "log.rank1").read_text()
    assert (run.exit.attempt, run.exit.notes, run.exit.tracking_error) == (1, [], "")


FIRST_ENDS = """
    pid = pathlib.Path(out, "pid-0").read_text()
    while pathlib.Path("/proc", pid).exists():
        time.sleep(0.02)"""
FAILS = (
    MEET
    + """
import mlflow
mlflow.start_run()
pathlib.Path(out, f"pid-{rank}").write_text(str(os.getpid()))
meet()
if rank == 1:
    FAIL
time.sleep(TIME)
"""
)


@pytest.mark.parametrize("seconds", ["60", "0"])
def test_failed_rank_ends_the_task_and_is_named(prepare: Callable[..., Job], start: Callable[..., Run], seconds: str) -> None:
    """Whether the first still works, or has done its part already."""
    fail = "raise ValueError('boom')" if seconds == "60" else f"{FIRST_ENDS}\n    raise ValueError('boom')"
    text = FAILS.replace("FAIL", fail).replace("TIME", seconds)
    run = start(prepare({"train.py": text.encode()}, kind="script"), LOSSI_GRACE_S="2").wait()
    assert (run.exit.state, run.exit.reason) == ("failed", f"rank 1 on {os.uname().nodename}: ValueError: boom")
    assert run.exit.error is not None
    assert "raise ValueError" in run.exit.error.traceback
    assert (run.exit.exit_code, run.process.returncode) == (1, 1)
    if seconds == "60":  # the other has closed its run by itself
        assert [mlflow_run.info.status for mlflow_run in run.runs()] == ["FAILED"]
    assert processes_of(run.job) == []


def test_rank_with_a_killed_runner_is_named(prepare: Callable[..., Job], start: Callable[..., Run]) -> None:
    text = FAILS.replace("FAIL", "os.kill(os.getppid(), 9); time.sleep(60)").replace("TIME", "60")
    run = start(prepare({"train.py": text.encode()}, kind="script"), LOSSI_GRACE_S="1").wait()
    assert run.exit.state == "failed"
    assert run.exit.reason == f"rank 1 on {os.uname().nodename}: the runner was killed by signal 9"


def test_first_rank_that_fails_because_of_another_names_it(prepare: Callable[..., Job], start: Callable[..., Run]) -> None:
    fail = "print('boom', flush=True); raise SystemExit(7)"
    text = FAILS.replace("FAIL", fail).replace("time.sleep(TIME)", "raise ConnectionError('peer is gone')")
    run = start(prepare({"train.py": text.encode()}, kind="script")).wait()
    assert run.exit.state == "failed"
    # Which of the two ended first is a matter of milliseconds; in either case the other one is named.
    assert f"rank 1 on {os.uname().nodename}: exit code 7: boom" in [run.exit.reason, *run.exit.notes]


def test_a_signal_stops_the_program_on_every_node(prepare: Callable[..., Job], start: Callable[..., Run]) -> None:
    text = (
        MEET
        + """
import signal
def stop(*_):
    pathlib.Path(out, f"stopped-{rank}").touch()
    raise SystemExit(0)
signal.signal(signal.SIGTERM, stop)
meet()
pathlib.Path(out, f"ready-{rank}").touch()
time.sleep(60)
"""
    )
    run = start(prepare({"train.py": text.encode()}, kind="script"), 3)
    run.until(lambda run: all((run.folder / "out" / f"ready-{rank}").exists() for rank in range(3)))
    run.process.send_signal(signal.SIGUSR1)
    run.wait()
    assert (run.exit.state, run.exit.reason) == ("timed_out", "stopped shortly before its time limit")
    assert {path.name for path in (run.folder / "out").glob("stopped-*")} == {"stopped-0", "stopped-1", "stopped-2"}


def test_missing_srun_fails_with_a_reason(prepare: Callable[..., Job], start: Callable[..., Run]) -> None:
    job = prepare({"train.py": b"import time; time.sleep(60)"}, kind="script")
    run = start(job, PATH=os.environ["PATH"], LOSSI_GRACE_S="1").wait()
    assert run.exit.state == "failed"
    assert "left no exit record" in run.exit.reason

"""A task that is killed without warning and started again: one run, whose history holds what both attempts have published."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from runner_jobs import WAIT, Job, Run, notebook, processes_of, reached

from lossi.contract import records
from lossi.runner import publish

TRAIN = """
import mlflow, os, pathlib, time
attempt = int(os.environ["LOSSI_ATTEMPT"])
checkpoint = pathlib.Path(os.environ["LOSSI_OUTPUT_DIR"], "checkpoint")
step = int(checkpoint.read_text()) if checkpoint.exists() else 0
mlflow.set_experiment("made here")
with mlflow.start_run():
    mlflow.log_params({"lr": 0.1, "began": time.time(), f"only-{attempt}": attempt})
    while step < LAST:
        mlflow.log_metric("step", step, step=step)
        step += 1
        checkpoint.with_suffix(".part").write_text(str(step))
        checkpoint.with_suffix(".part").rename(checkpoint)
        time.sleep(0.005)
"""


def kill(run: Run) -> None:
    """End the whole tree as a node that loses power does."""
    run.process.send_signal(signal.SIGSTOP)
    for number in (run.process.pid, *processes_of(run.job)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)
    run.process.wait()
    for number in processes_of(run.job):
        os.kill(number, signal.SIGKILL)


def published(folder: Path) -> tuple[set[str], set[tuple[str, int]], dict[str, str]]:
    """Runs, (run, step) of all metrics, and params in the newest snapshot."""
    snapshots = publish.snapshots(folder)
    if not snapshots:
        return set(), set(), {}
    with sqlite3.connect(f"file:{snapshots[-1][1]}?mode=ro", uri=True) as connection:
        runs = {row[0] for row in connection.execute("SELECT run_uuid FROM runs")}
        steps = set(connection.execute("SELECT run_uuid, step FROM metrics WHERE key = 'step'"))
        params = dict(connection.execute("SELECT key, value FROM params"))
    connection.close()
    return runs, steps, params


def test_task_killed_at_any_time_continues_its_run(prepare: Callable[..., Job]) -> None:
    """Six times at moments that nobody chose, some of them while it starts or publishes."""
    chance = random.Random(7)
    job = prepare({"train.py": TRAIN.replace("LAST", "100000").encode()}, kind="script", tracking={"publish_interval_s": 0.1})
    runs: set[str] = set()
    steps: set[tuple[str, int]] = set()
    params: dict[str, str] = {}
    for attempt in range(1, 7):
        run = job.start(attempt=attempt)
        if attempt % 2:  # at least these get far enough to publish something
            before = len(steps)
            run.until(lambda run, before=before: len(published(run.folder)[1]) > before)
        time.sleep(chance.uniform(0.0, 1.2))
        kill(run)
        assert not (run.folder / records.EXIT).exists()
        now_runs, now_steps, now_params = published(run.folder)
        assert steps <= now_steps, "nothing that was published is lost"
        assert set(params) <= set(now_params)
        runs, steps, params = now_runs, now_steps, now_params
        assert len(runs) <= 1
    (run.folder / "out" / "checkpoint").write_text("99990")
    last = job.run(attempt=7)
    assert (last.exit.state, last.exit.attempt) == ("succeeded", 7), last.log
    (mlflow_run,) = last.runs()
    assert {mlflow_run.info.run_id} == runs == set(last.exit.run_ids)
    assert mlflow_run.info.status == "FINISHED"
    assert steps <= published(last.folder)[1]
    assert {(mlflow_run.info.run_id, step) for step in range(99990, 100000)} <= published(last.folder)[1]
    assert mlflow_run.data.params["lr"] == "0.1"
    assert {name for name in params if name.startswith("only-")} | {"only-7"} == {
        name for name in mlflow_run.data.params if name.startswith("only-")
    }
    assert mlflow_run.data.params["began"] != params["began"], "a value that differs between attempts is not refused"
    assert [path.name for path in last.folder.iterdir() if path.name.endswith(".part")] == []
    assert len(publish.snapshots(last.folder)) == 1
    assert "attempt 7 begins" in last.log


def test_requeued_notebook_restarts_in_the_same_run(prepare: Callable[..., Job]) -> None:
    train = """
import mlflow, os
mlflow.set_experiment("made here")
mlflow.start_run()
mlflow.log_metric("attempt", float(os.environ["LOSSI_ATTEMPT"]))
with mlflow.start_run(nested=True, run_name="open"):
    mlflow.log_param("inner", 1)
"""
    job = prepare({"a.ipynb": notebook(train, WAIT, "mlflow.end_run()")})
    run = job.start()
    run.until(reached)
    run.until(lambda run: len(published(run.folder)[0]) == 2)
    kill(run)
    (first,) = [mlflow_run for mlflow_run in run.runs() if "mlflow.parentRunId" not in mlflow_run.data.tags]
    (run.folder / "out" / "go").touch()
    again = job.run(attempt=2)
    assert again.exit.state == "succeeded", again.log
    assert again.exit.run_ids[0] == first.info.run_id
    own = [mlflow_run for mlflow_run in again.runs() if "mlflow.parentRunId" not in mlflow_run.data.tags]
    assert [mlflow_run.info.run_id for mlflow_run in own] == [first.info.run_id]
    history = again.client().get_metric_history(first.info.run_id, "attempt")
    assert [metric.value for metric in history] == [1.0, 2.0]
    assert {mlflow_run.info.status for mlflow_run in again.runs()} == {"FINISHED"}


def test_other_open_runs_of_the_task_are_ended(prepare: Callable[..., Job]) -> None:
    train = f"""
import mlflow, os
for name in ("one", "two"):
    mlflow.MlflowClient().create_run("1", run_name=f"{{name}} of {{os.environ['LOSSI_ATTEMPT']}}")
{WAIT}
"""
    job = prepare({"a.py": train.encode()}, kind="script")
    run = job.start()
    run.until(reached)
    run.until(lambda run: len(published(run.folder)[0]) == 2)
    kill(run)
    (run.folder / "out" / "go").touch()
    again = job.run(attempt=2)
    status = {mlflow_run.info.run_name: mlflow_run.info.status for mlflow_run in again.runs()}
    assert status["two of 1"] == "KILLED"
    assert "RUNNING" not in status.values()

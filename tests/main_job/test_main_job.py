"""The main job: a notebook as one run and as a sweep, tracked, compared, by command and by MLflow's own client."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .conftest import Lossi, cell, notebook

TRAIN = notebook(
    cell("lr: float = 0.1  # learning rate\ndepth: int = 2", "parameters"),
    cell(
        "import mlflow\nwith mlflow.start_run():\n    for step in range(5):\n        mlflow.log_metric('loss', lr / (step + 1), step=step)"
    ),
    cell("print('depth', depth)"),
)
LIGHT = notebook(
    cell("x: int = 0", "parameters"),
    cell("import os, pathlib\npathlib.Path(os.environ['LOSSI_OUTPUT_DIR'], 'x').write_text(str(x))"),
)


def waits_for(path: Path) -> str:
    """Return code that waits until a file exists."""
    return f"import os, time\nwhile not os.path.exists({str(path)!r}):\n    time.sleep(0.05)"


def client(lossi: Lossi):  # type: ignore[no-untyped-def]
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{lossi.root / '.lossi' / 'mlflow.db'}")


def test_one_run_is_tracked_and_seen_by_mlflow_itself(lossi: Lossi) -> None:
    (lossi.root / "train.ipynb").write_text(TRAIN)
    job = lossi.json("run", "train.ipynb", "-p", "lr=0.5")
    assert job["state"] == "succeeded"
    listing = lossi.json("runs", "list")
    [run_id] = listing["columns"]["run_id"]
    run = client(lossi).get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"lr": "0.5", "depth": "2"}, "what was given, and the default where nothing was"
    assert run.data.metrics == {"loss": pytest.approx(0.1)}
    assert run.data.tags["lossi.job_id"] == job["id"]
    assert [metric.value for metric in client(lossi).get_metric_history(run_id, "loss")] == pytest.approx(
        [0.5, 0.25, 0.5 / 3, 0.125, 0.1]
    )
    assert "output.ipynb" in [item.path for item in client(lossi).list_artifacts(run_id)]
    [experiment] = [item.name for item in client(lossi).search_experiments() if item.experiment_id == run.info.experiment_id]
    assert experiment == "train"


def test_sweep_is_one_submission_compared_at_the_end(lossi: Lossi) -> None:
    (lossi.root / "train.ipynb").write_text(TRAIN)
    done = lossi("sweep", "train.ipynb", "-g", "lr=0.1,0.2", "-g", "depth=1,2", "--order-by", "metrics.loss DESC")
    assert "equal in all" not in done.stdout or "lr" not in done.stdout.partition("equal in all")[2]
    [job] = lossi.json("jobs", "list")["items"]
    assert job["tasks"] == 4 and job["counts"]["succeeded"] == 4
    compared = lossi.json("runs", "compare", "--job", job["id"])
    assert len(compared["runs"]) == 4
    assert "params.lr" in compared["differing"] and "params.depth" in compared["differing"]
    folder = lossi.root / ".lossi" / "jobs" / job["id"]
    assert len([item for item in folder.iterdir() if item.is_file()]) <= 12


@pytest.mark.slow
def test_hundred_real_notebook_tasks_lose_nothing(lossi: Lossi) -> None:
    (lossi.root / "light.ipynb").write_text(LIGHT)
    values = ",".join(str(number) for number in range(100))
    job = lossi.json("sweep", "light.ipynb", "-g", f"x={values}")
    assert job["counts"]["succeeded"] == 100
    columns = lossi.json("runs", "list", "--limit", "1000")["columns"]
    assert sorted(int(value) for value in columns["params.x"]) == list(range(100))
    assert len(client(lossi).search_runs(["1"], max_results=1000)) == 100
    tasks = lossi.root / ".lossi" / "jobs" / job["id"] / "tasks"
    assert all((tasks / str(number) / "out" / "x").read_text() == str(number) for number in range(100))
    assert not list(tasks.glob("*/tracking-*.db")), "published snapshots are removed once ingested"


def test_job_survives_the_death_of_what_started_it(lossi: Lossi) -> None:
    (lossi.root / "slow.ipynb").write_text(
        notebook(cell(waits_for(lossi.root / "go")), cell("import pathlib\npathlib.Path('made').write_text('yes')"))
    )
    process = lossi.start("run", "slow.ipynb", start_new_session=True)
    end = time.monotonic() + 300
    while not lossi.json("jobs", "list")["items"]:
        assert time.monotonic() < end, "the job was not submitted"
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    (lossi.root / "go").touch()
    [job] = lossi.json("jobs", "list")["items"]
    assert lossi.until_ended(job["id"])["job"]["state"] == "succeeded"
    assert (lossi.root / ".lossi" / "jobs" / job["id"] / "tasks" / "0" / "out" / "made").read_text() == "yes"


def test_failure_says_what_where_and_keeps_what_was_done(lossi: Lossi) -> None:
    (lossi.root / "bad.ipynb").write_text(
        notebook(cell("print('first cell')"), cell("raise ValueError('the data has no labels')"), cell("print('never')"))
    )
    done = lossi("run", "bad.ipynb", expect=1)
    assert "ValueError" in done.stderr and "the data has no labels" in done.stderr and "cell 2" in done.stderr
    [job] = lossi.json("jobs", "list")["items"]
    assert job["state"] == "failed"
    output = json.loads((lossi.root / ".lossi/jobs" / job["id"] / "tasks/0/output.ipynb").read_text())
    assert "first cell" in json.dumps(output)
    assert "first cell" in lossi("logs", job["id"]).stdout
    [run_id] = lossi.json("runs", "list")["columns"]["run_id"]
    assert client(lossi).get_run(run_id).info.status == "FAILED"


def test_cancel_keeps_partial_output_and_ends_the_kernel(lossi: Lossi) -> None:
    (lossi.root / "long.ipynb").write_text(
        notebook(
            cell(
                "import os, pathlib\nprint('started', flush=True)\npathlib.Path(os.environ['LOSSI_OUTPUT_DIR'], 'pid').write_text(str(os.getpid()))"
            ),
            cell("import time\ntime.sleep(600)"),
        )
    )
    job = lossi.json("run", "long.ipynb", "--detach")["id"]
    pid_file = lossi.root / ".lossi/jobs" / job / "tasks/0/out/pid"
    lossi.until(job, lambda shown: (shown["tasks"]["items"][0].get("progress") or {}).get("cell") == 2)
    kernel = int(pid_file.read_text())
    lossi("cancel", job)
    shown = lossi.until_ended(job)
    assert shown["job"]["state"] == "cancelled"
    assert not Path(f"/proc/{kernel}").exists()
    assert "started" in (lossi.root / ".lossi/jobs" / job / "tasks/0/output.ipynb").read_text()
    [run_id] = lossi.json("runs", "list")["columns"]["run_id"]
    assert client(lossi).get_run(run_id).info.status == "KILLED"


def test_time_limit_is_named_as_the_reason(lossi: Lossi) -> None:
    (lossi.root / "long.ipynb").write_text(notebook(cell("import time\ntime.sleep(600)")))
    job = lossi.json("run", "long.ipynb", "-t", "0:05", "--detach")["id"]
    shown = lossi.until_ended(job)
    assert shown["job"]["state"] == "timed_out"
    assert "time" in shown["tasks"]["items"][0]["reason"]


def test_script_and_command_are_tracked_too(lossi: Lossi) -> None:
    (lossi.root / "train.py").write_text(
        "import argparse, mlflow\np = argparse.ArgumentParser(); p.add_argument('--lr', type=float); a = p.parse_args()\n"
        "with mlflow.start_run():\n    mlflow.log_metric('lr_seen', a.lr)\n"
    )
    script = lossi.json("run", "train.py", "-p", "lr=0.25")
    command = lossi.json("run", "--", "sh", "-c", "echo $((6*7))")
    assert script["state"] == command["state"] == "succeeded"
    assert "42" in lossi("logs", command["id"]).stdout
    columns = lossi.json("runs", "list")["columns"]
    assert len(columns["run_id"]) == 2
    assert 0.25 in columns["metrics.lr_seen"]


def test_live_metrics_are_seen_while_the_task_runs(lossi: Lossi) -> None:
    (lossi.root / "live.ipynb").write_text(
        notebook(
            cell("import mlflow, time\nrun = mlflow.start_run()\nmlflow.log_metric('loss', 0.5, step=0)"), cell("time.sleep(600)")
        )
    )
    job = lossi.json("run", "live.ipynb", "--detach")["id"]
    end = time.monotonic() + 300
    columns: dict[str, list[object]] = {}
    while not columns.get("metrics.loss"):
        assert time.monotonic() < end, columns
        columns = lossi.json("runs", "list")["columns"]
    assert columns["metrics.loss"] == [0.5]
    assert columns["status"] == ["RUNNING"]
    lossi("cancel", job)
    lossi.until_ended(job)


def test_converted_script_runs_as_a_job_with_the_same_metrics(lossi: Lossi) -> None:
    (lossi.root / "train.ipynb").write_text(TRAIN)
    lossi("notebook", "script", "train.ipynb", "-o", "train.py")
    lossi("run", "train.ipynb", "-p", "lr=0.3")
    lossi("run", "train.py", "-p", "lr=0.3")
    assert lossi.json("runs", "list")["columns"]["metrics.loss"] == pytest.approx([0.06, 0.06])


def test_progress_on_a_terminal_names_the_cell(lossi: Lossi) -> None:
    go = lossi.root / "go"
    (lossi.root / "long.ipynb").write_text(notebook(cell("1"), cell(f'wait = "[red]"\n{waits_for(go)}')))
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "lossi", "run", "long.ipynb"],
        cwd=lossi.root,
        env={**lossi.environment, "TERM": "xterm", "COLUMNS": "120"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    )
    os.close(theirs)
    output = b""
    with contextlib.suppress(OSError):  # EIO: the other side has closed
        while part := os.read(ours, 65536):
            output += part
            if b'cell 2 of 2: wait = "[red]"' in output:
                go.touch()
    os.close(ours)
    assert process.wait(timeout=300) == 0
    assert go.exists(), output


def test_commands_answer_help_and_unknown_words(lossi: Lossi) -> None:
    assert "sweep" in lossi("--help").stdout
    assert lossi("runn", expect=2).stderr

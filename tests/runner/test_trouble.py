"""Full filesystems, and an MLflow server instead of the embedded store."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from runner_jobs import Job, code, notebook

from lossi.contract import records
from lossi.runner import publish


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Callable[[str, int], Path]]:
    """Small filesystems of their own."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    mounted: list[Path] = []

    def make(name: str, kib: int) -> Path:
        path = tmp_path / name
        path.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(path)], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"no tmpfs can be mounted here: {done.stderr}")
        mounted.append(path)
        return path

    yield make
    for path in mounted:
        subprocess.run(["umount", "-l", str(path)], check=True)


FILL = """
import os
def fill(path):
    with open(path, "wb", buffering=0) as stream:
        try:
            while stream.write(bytes(4096)):
                pass
        except OSError:
            pass
"""


@pytest.mark.root
def test_a_full_node_ends_the_task_with_the_reason(prepare: Callable[..., Job], tiny: Callable[[str, int], Path]) -> None:
    node = tiny("node", 200)
    run = prepare({"a.py": b"print('ran')"}, kind="script").run(TMPDIR=str(node))
    assert run.exit.state == "failed"
    assert "the filesystem of" in run.exit.reason
    assert "is full" in run.exit.reason
    assert "ran" not in run.log
    assert "Traceback" not in run.log
    assert list(node.iterdir()) == []


@pytest.mark.root
def test_payload_that_fills_the_node_is_still_tracked(prepare: Callable[..., Job], tiny: Callable[[str, int], Path]) -> None:
    """Its temporary files are given up for the store."""
    node = tiny("node", 2048)
    script = FILL + "fill(os.path.join(os.environ['TMPDIR'], 'x'))\nraise OSError(28, 'no space for my data')"
    run = prepare({"a.py": script.encode()}, kind="script", parameters=[{}]).run(TMPDIR=str(node))
    assert run.exit.state == "failed"
    assert run.exit.tracking_error == "", run.log
    (mlflow_run,) = run.runs()
    assert (mlflow_run.info.status, [mlflow_run.info.run_id]) == ("FAILED", run.exit.run_ids)
    assert run.log.count("Traceback") == 1  # the script's


@pytest.mark.root
def test_full_shared_filesystem_is_in_the_exit_record(prepare: Callable[..., Job], tiny: Callable[[str, int], Path]) -> None:
    tasks = tiny("project/shared", 400)
    fill = FILL + "fill(os.path.join(os.environ['LOSSI_OUTPUT_DIR'], 'x'))\nprint('done')"
    job = prepare({"a.ipynb": notebook(fill)})
    (job.directory / records.TASK_FOLDER).symlink_to(tasks)
    run = job.run()
    assert run.exit.task == 0  # written: progress and samples were removed to make room
    assert "is full" in run.exit.tracking_error
    assert publish.snapshots(run.folder) == []
    assert "Traceback" not in run.log
    assert not [path for path in run.folder.iterdir() if path.name.endswith(".part")]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real MLflow server on a free port of the loopback."""
    folder = tmp_path_factory.mktemp("server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    argv = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    argv += ["--backend-store-uri", f"sqlite:///{folder}/server.db", "--artifacts-destination", str(folder / "artifacts")]
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log, cwd=folder, env=environment, start_new_session=True)
    uri = f"http://127.0.0.1:{port}"
    try:
        while True:
            assert process.poll() is None, (folder / "log").read_text()
            try:
                urllib.request.urlopen(f"{uri}/health", timeout=300)
                break
            except OSError:
                time.sleep(0.1)
        yield uri
    finally:
        os.killpg(process.pid, 15)
        process.wait(120)


def test_tasks_log_to_a_server(prepare: Callable[..., Job], server: str) -> None:
    import mlflow

    name = f"on a server {secrets.token_hex(3)}"
    train = """
import mlflow
with mlflow.start_run(run_name="mine"):
    mlflow.log_metric("m", 1.5)
    mlflow.log_param("lr", "mine")
mlflow.start_run(run_name="open")
1 / 0
"""
    parameters = [{"lr": 0.1, "seed": 3}]
    client = mlflow.MlflowClient(server)

    def job(cells: list[str | dict[str, object]]) -> Job:
        job = prepare({"a.ipynb": notebook(*cells)}, parameters=parameters, tags={"team": "blue"})
        job.write_spec(tracking=records.TrackingTarget(name, server_uri=server))
        return job

    tagged = code("lr = seed = 0", "parameters")
    started = job([tagged, train]).run()
    runs = {run.info.run_name: run for run in (client.get_run(run_id) for run_id in started.exit.run_ids)}
    assert set(runs) == {"mine", "open"}, started.log
    assert started.exit.tracking_error == ""
    assert runs["mine"].data.params == {"lr": "mine", "seed": "3"}
    assert {run.data.tags["lossi.job_id"] for run in runs.values()} == {started.job.spec.id}
    assert {run.data.tags["mlflow.source.name"] for run in runs.values()} == {"a.ipynb"}
    assert {run.data.tags["team"] for run in runs.values()} == {"blue"}
    assert {name: run.info.status for name, run in runs.items()} == {"mine": "FINISHED", "open": "FAILED"}
    assert [item.path for item in client.list_artifacts(started.exit.run_ids[0])] == ["output.ipynb"]
    assert publish.snapshots(started.folder) == []

    plain = job([tagged, "1"])
    quiet = plain.run()
    (run_id,) = quiet.exit.run_ids
    mlflow_run = client.get_run(run_id)
    assert (mlflow_run.info.status, mlflow_run.data.params) == ("FINISHED", {"lr": "0.1", "seed": "3"})
    assert client.get_experiment(mlflow_run.info.experiment_id).name == name
    again = plain.run(attempt=2)
    assert again.exit.run_ids == [run_id]
    ended = client.get_run(run_id).info
    assert (ended.status, ended.end_time > mlflow_run.info.end_time) == ("FINISHED", True)


def test_unavailable_server_fails_only_the_tracking(prepare: Callable[..., Job]) -> None:
    job = prepare({"a.ipynb": notebook("print('fine')")})
    job.write_spec(tracking=records.TrackingTarget("x", server_uri="http://127.0.0.1:9"))
    run = job.run()
    assert run.exit.state == "succeeded"
    assert run.exit.tracking_error.startswith("http://127.0.0.1:9: "), run.exit
    assert run.exit.run_ids == []

"""Runs as the unmodified MLflow client sees them in the published snapshots."""

from __future__ import annotations

import hashlib
import os
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path

from runner_jobs import WAIT, Job, Run, artifacts, code, notebook, processes_of, reached

from lossi.contract import records
from lossi.runner import publish

PARAMETERS = code("lr = 0.1\nseed = 1", "parameters")
JOIN_TAGS = {
    "lossi.job_name": "try",
    "lossi.environment": "here",
    "lossi.environment_variant": "local",
    "lossi.git_dirty": "true",
    "lossi.host": os.uname().nodename,
    "mlflow.source.git.commit": "c0ffee",
    "mlflow.source.type": "NOTEBOOK",
    "mlflow.user": "ada",
}


def dump(path: Path) -> str:
    """All rows of a store as text."""
    with sqlite3.connect(path) as connection:
        text = "\n".join(connection.iterdump())
    connection.close()
    return text


def test_a_notebook_without_a_run_gets_one(prepare: Callable[..., Job]) -> None:
    job = prepare({"a.ipynb": notebook(PARAMETERS, "1")}, parameters=[{"lr": 0.001, "seed": 7}, {}], tags={"team": "blue"})
    run = job.run()
    (mlflow_run,) = run.runs()
    assert [mlflow_run.info.run_id] == run.exit.run_ids
    assert mlflow_run.info.status == "FINISHED"
    assert mlflow_run.info.run_name == "try-0"
    assert mlflow_run.info.user_id == "ada"
    assert mlflow_run.info.experiment_id == "1"
    assert 0 < mlflow_run.info.end_time - mlflow_run.info.start_time < 60_000
    assert mlflow_run.data.params == {"lr": "0.001", "seed": "7"}
    assert JOIN_TAGS.items() <= mlflow_run.data.tags.items()
    assert mlflow_run.data.tags["lossi.job_id"] == job.spec.id
    assert mlflow_run.data.tags["lossi.task"] == "0"
    assert mlflow_run.data.tags["mlflow.source.name"] == "a.ipynb"
    assert mlflow_run.data.tags["team"] == "blue"
    assert mlflow_run.info.artifact_uri == str(artifacts(job) / "1" / mlflow_run.info.run_id / "artifacts")
    assert [item.path for item in run.client().list_artifacts(mlflow_run.info.run_id)] == ["output.ipynb"]
    assert run.exit.tracking_error == ""


def test_run_of_the_notebook_is_the_tasks(prepare: Callable[..., Job]) -> None:
    train = """
import mlflow
with mlflow.start_run(run_name="mine", tags={"team": "red"}) as run:
    mlflow.log_param("lr", "one tenth")
    for step in range(3):
        mlflow.log_metric("loss", 1 / (step + 1), step=step)
    mlflow.log_metric("odd", float("nan"))
    mlflow.log_text("hi", "notes/hi.txt")
print(run.info.run_id)
"""
    job = prepare({"a.ipynb": notebook(PARAMETERS, train)}, parameters=[{"lr": 0.1, "seed": 7}], tags={"team": "blue", "x": "1"})
    run = job.run()
    (adopted,) = run.runs()
    assert adopted.info.run_id in run.log
    assert run.exit.run_ids == [adopted.info.run_id]
    assert adopted.info.run_name == "mine"
    assert adopted.data.params == {"lr": "one tenth", "seed": "7"}
    assert adopted.data.metrics["loss"] == 1 / 3
    assert [metric.step for metric in run.client().get_metric_history(adopted.info.run_id, "loss")] == [0, 1, 2]
    assert JOIN_TAGS.items() <= adopted.data.tags.items()
    assert adopted.data.tags["team"] == "red"
    assert adopted.data.tags["x"] == "1"
    folder = artifacts(job) / "1" / adopted.info.run_id / "artifacts"
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == {
        "notes/hi.txt",
        "output.ipynb",
    }
    assert not [path for path in artifacts(job).iterdir() if path.name != "1"]  # nothing is left of the folder for strays


def test_several_runs_are_all_tagged_and_the_first_is_the_tasks(prepare: Callable[..., Job]) -> None:
    train = """
import mlflow
from mlflow import MlflowClient
for fold in range(3):
    with mlflow.start_run(run_name=f"fold {fold}"):
        mlflow.log_param("fold", fold)
        if fold == 0:
            for inner in range(2):
                with mlflow.start_run(run_name=f"inner {inner}", nested=True):
                    mlflow.log_metric("m", inner)
plain = MlflowClient().create_run("1", run_name="by client")  # gets no tags of its own, and is never ended
deleted = MlflowClient().create_run("1", run_name="deleted")
MlflowClient().delete_run(deleted.info.run_id)
"""
    run = prepare({"a.ipynb": notebook(PARAMETERS, train)}, parameters=[{"seed": 3}]).run()
    by_name = {mlflow_run.info.run_name: mlflow_run for mlflow_run in run.runs()}
    assert set(by_name) == {"fold 0", "fold 1", "fold 2", "inner 0", "inner 1", "by client"}, run.log
    assert run.exit.run_ids[0] == by_name["fold 0"].info.run_id
    assert set(run.exit.run_ids) == {mlflow_run.info.run_id for mlflow_run in by_name.values()}
    for mlflow_run in by_name.values():
        assert JOIN_TAGS.items() <= mlflow_run.data.tags.items()
        assert mlflow_run.data.tags["lossi.job_id"] == run.job.spec.id
        assert mlflow_run.info.status == "FINISHED"
    assert by_name["fold 1"].data.params == {"fold": "1", "seed": "3"}
    assert "seed" not in by_name["inner 0"].data.params
    notebooks = sorted(path.parent.parent.name for path in artifacts(run.job).rglob("output.ipynb"))
    assert notebooks == [by_name["fold 0"].info.run_id]


def test_run_that_is_open_when_a_cell_fails_is_failed(prepare: Callable[..., Job]) -> None:
    """MLflow itself ends it as FINISHED when the kernel shuts down."""
    train = "import mlflow\nwith mlflow.start_run(run_name='before'): pass\nmlflow.start_run(run_name='open')"
    run = prepare({"a.ipynb": notebook(train, "1 / 0")}).run()
    assert {mlflow_run.info.run_name: mlflow_run.info.status for mlflow_run in run.runs()} == {
        "before": "FINISHED",
        "open": "FAILED",
    }
    assert run.exit.state == "failed"


STRAY = """
import mlflow, numpy as np, os
mlflow.set_experiment("made here")
dataset = mlflow.data.from_numpy(np.arange(4.0), source=os.path.abspath("data.csv"), name="numbers")
class Double(mlflow.pyfunc.PythonModel):
    def predict(self, model_input: list[float]) -> list[float]:
        return [2 * value for value in model_input]
with mlflow.start_run() as run:
    mlflow.log_input(dataset, context="training")
    mlflow.log_text("hi", "hi.txt")
    info = mlflow.pyfunc.log_model(name="double", python_model=Double(), pip_requirements=[])
    mlflow.log_metric("m", 1.0, model_id=info.model_id, dataset=dataset)
print(mlflow.get_experiment_by_name("made here").artifact_location)
"""


def check_strays(run: Run) -> None:
    import mlflow

    assert run.exit.state == "succeeded", run.log
    assert run.exit.notes == []
    (mlflow_run,) = run.runs()
    assert mlflow_run.data.params == {"seed": "3"}
    assert mlflow_run.inputs.dataset_inputs[0].dataset.name == "numbers"
    project = run.job.spec.project
    assert f'"{project}/nb/data.csv"' in mlflow_run.inputs.dataset_inputs[0].dataset.source
    home = artifacts(run.job) / f"{run.job.spec.id}.0"
    assert mlflow_run.info.artifact_uri.startswith(f"{home}/")
    client = run.client()
    assert {item.path for item in client.list_artifacts(mlflow_run.info.run_id)} == {"hi.txt", "output.ipynb"}
    experiment = client.get_experiment(mlflow_run.info.experiment_id)
    assert experiment.name == "made here"
    assert Path(experiment.artifact_location).is_relative_to(home)
    (model,) = client.search_logged_models([experiment.experiment_id])
    assert Path(model.artifact_location).is_relative_to(home)
    assert mlflow.pyfunc.load_model(model.artifact_location).predict([1.5]) == [3.0]
    assert "/lossi-" not in dump(run.snapshot).replace(str(home), "")  # no place on the node in any row


def test_artifacts_of_a_new_experiment_reach_the_project(prepare: Callable[..., Job]) -> None:
    files = {"nb/a.ipynb": notebook(PARAMETERS, STRAY), "nb/data.csv": b"1,2\n"}
    run = prepare(files, parameters=[{"seed": 3}], working_directory="nb").run()
    check_strays(run)
    assert not (run.folder / "out").exists()


def test_artifacts_that_could_not_be_linked_are_moved(prepare: Callable[..., Job]) -> None:
    """The project has a folder of MLflow's name already."""
    files = {"nb/a.ipynb": notebook(PARAMETERS, STRAY), "nb/data.csv": b"1,2\n", "nb/mlruns/README": b"old runs\n"}
    check_strays(prepare(files, parameters=[{"seed": 3}], working_directory="nb").run())


def test_artifacts_in_other_folders_are_moved_if_on_the_node(prepare: Callable[..., Job], tmp_path: Path) -> None:
    train = f"""
import mlflow
mlflow.create_experiment("relative", artifact_location="./kept/here")
mlflow.create_experiment("shared", artifact_location={str(tmp_path / "elsewhere")!r})
for name in ("relative", "shared"):
    mlflow.set_experiment(name)
    with mlflow.start_run(run_name=name):
        mlflow.log_text(name, "it.txt")
"""
    run = prepare({"a.ipynb": notebook(train)}).run()
    uris = {mlflow_run.info.run_name: Path(mlflow_run.info.artifact_uri) for mlflow_run in run.runs()}
    assert uris["relative"].is_relative_to(artifacts(run.job) / f"{run.job.spec.id}.0")
    assert (uris["relative"] / "it.txt").read_text() == "relative"
    assert uris["shared"].is_relative_to(tmp_path / "elsewhere")
    assert (uris["shared"] / "it.txt").read_text() == "shared"


LIVE = f"""
import mlflow
mlflow.set_experiment("made here")
mlflow.start_run(run_name="long")
mlflow.log_metric("loss", 0.5, step=1)
{WAIT}
mlflow.log_metric("loss", 0.25, step=2)
"""


def uses(run: Run) -> int:
    """Return the number of samples."""
    path = run.folder / records.USE
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_live_snapshots_have_the_join_tags(prepare: Callable[..., Job]) -> None:
    job = prepare({"a.ipynb": notebook(PARAMETERS, "'nothing yet'", LIVE)}, parameters=[{"lr": 0.5}])
    run = job.start()
    run.until(reached)
    run.until(lambda run: publish.snapshots(run.folder))
    run.until(lambda run: run.runs()[0].data.metrics.get("loss") == 0.5)
    (live,) = run.runs()
    assert live.info.status == "RUNNING"
    assert JOIN_TAGS.items() <= live.data.tags.items()
    assert (live.data.tags["lossi.job_id"], live.data.tags["lossi.task"]) == (job.spec.id, "0")
    assert live.info.artifact_uri.startswith(str(artifacts(job)))
    assert live.data.params == {}  # the notebook may still log its own text for them
    quiet, samples = run.snapshot, uses(run)
    run.until(lambda run: uses(run) > samples + 1)  # at least one whole pause between two samples, which is many intervals
    assert run.snapshot == quiet
    assert quiet.name.endswith(f"-{hashlib.sha256(quiet.read_bytes()).hexdigest()[:16]}.db")
    (run.folder / "out" / "go").touch()
    run.wait()
    (final,) = run.runs()
    assert final.info.run_id == live.info.run_id
    assert final.data.metrics["loss"] == 0.25
    assert final.data.params == {"lr": "0.5"}
    assert len(publish.snapshots(run.folder)) == 1
    assert records.load(records.TaskExit, run.folder / records.EXIT).run_ids == [final.info.run_id]
    assert run.snapshot.stat().st_mtime_ns <= (run.folder / records.EXIT).stat().st_mtime_ns


def test_requeued_task_continues_its_run(prepare: Callable[..., Job]) -> None:
    again = """
import mlflow, os
first = "MLFLOW_RUN_ID" not in os.environ
with mlflow.start_run():
    mlflow.log_param("lr", f"{lr} as I write it")
    mlflow.log_metric("attempt", 1 if first else 2, step=1 if first else 2)
    mlflow.log_text("x", "first.txt" if first else "second.txt")
    if first:
        WAIT
""".replace("        WAIT", "\n".join("        " + line for line in WAIT.strip().splitlines()))
    job = prepare({"a.ipynb": notebook(PARAMETERS, again)}, parameters=[{"lr": 0.5}])
    run = job.start()
    run.until(reached)
    run.until(lambda run: publish.snapshots(run.folder) and run.runs()[0].data.metrics.get("attempt") == 1.0)
    # The node dies: nothing can say goodbye.
    for pid in [*processes_of(job), run.process.pid]:
        if pid != os.getpid():
            os.kill(pid, signal.SIGKILL)
    run.process.wait()
    assert not (run.folder / records.EXIT).exists()
    (before,) = run.runs()
    second = job.run(attempt=2)
    (after,) = second.runs()
    assert after.info.run_id == before.info.run_id, second.log
    assert (after.info.status, second.exit.attempt) == ("FINISHED", 2)
    client = second.client()
    assert [metric.value for metric in client.get_metric_history(after.info.run_id, "attempt")] == [1.0, 2.0]
    assert {item.path for item in client.list_artifacts(after.info.run_id)} == {"first.txt", "second.txt", "output.ipynb"}
    assert after.data.params == {"lr": "0.5 as I write it"}


def test_stopped_and_requeued_task_continues_its_run(prepare: Callable[..., Job]) -> None:
    """Its last snapshot is complete: ended, with the task's parameters. The notebook must still be able to log its own."""
    train = "import mlflow, os\nwith mlflow.start_run():\n    mlflow.log_param('seed', f'seed {seed}')"
    job = prepare({"a.ipynb": notebook(PARAMETERS, WAIT, train)}, parameters=[{"seed": 3}])
    run = job.start()
    run.until(reached)
    run.process.send_signal(signal.SIGTERM)
    run.wait()
    (before,) = run.runs()
    assert (before.info.status, before.data.params) == ("KILLED", {"seed": "3"})
    (run.folder / "out").mkdir(exist_ok=True)
    (run.folder / "out" / "go").touch()
    second = job.run(attempt=2)
    (after,) = second.runs()
    assert (after.info.run_id, after.info.status) == (before.info.run_id, "FINISHED"), second.log
    assert after.data.params == {"seed": "seed 3"}


def test_a_store_in_wal_mode_is_published_whole(prepare: Callable[..., Job]) -> None:
    train = """
import mlflow, os, sqlite3
path = os.environ["MLFLOW_TRACKING_URI"].removeprefix("sqlite:///")
sqlite3.connect(path).execute("PRAGMA journal_mode=WAL")
with mlflow.start_run():
    mlflow.log_metric("m", 1.0)
"""
    run = prepare({"a.ipynb": notebook(train)}).run()
    (mlflow_run,) = run.runs()
    assert mlflow_run.data.metrics == {"m": 1.0}
    assert run.snapshot.read_bytes()[18:20] == b"\x01\x01"  # a rollback journal: readers need no other file


def test_unknown_schema_is_published_unchanged_and_reported(prepare: Callable[..., Job]) -> None:
    job = prepare({"a.ipynb": notebook("1")}, digests={})
    with sqlite3.connect(job.directory / records.TEMPLATE) as connection:
        connection.execute("ALTER TABLE runs RENAME COLUMN start_time TO began")
    connection.close()
    run = job.run()
    assert run.exit.state == "succeeded"
    assert "runs.start_time" in run.exit.tracking_error
    assert run.exit.run_ids == []
    assert run.snapshot.exists()


def test_tables_and_columns_are_those_of_mlflow(template: Path) -> None:
    """The contract with the pinned release: every table and column that is written by name."""
    from lossi.runner import store
    from lossi.runner.relocation import URI_COLUMNS

    with sqlite3.connect(template) as connection:
        store.check(connection)
        for table, names in URI_COLUMNS.items():
            assert set(names) <= store.columns(connection, table), table
        assert "dataset_source" in store.columns(connection, "datasets")
        filled = {
            "runs": {"source_type", "source_name", "entry_point_name", "source_version"},
            "experiments": {"creation_time", "last_update_time", "workspace"},
        }
        for table, names in filled.items():
            assert names <= store.columns(connection, table)
    connection.close()


def test_created_run_equals_one_of_mlflow(prepare: Callable[..., Job]) -> None:
    """Column by column: what is created with sqlite3 for a task equals what the client creates."""
    run = prepare({"a.ipynb": notebook("from mlflow import MlflowClient\nMlflowClient().create_run('1', run_name='x')")}).run()
    other = prepare({"a.ipynb": notebook("1")}).run()
    rows = []
    for path in (run.snapshot, other.snapshot):
        with sqlite3.connect(path) as connection:
            connection.row_factory = sqlite3.Row
            row = dict(connection.execute("SELECT * FROM runs").fetchone())
        connection.close()
        rows.append(row)
    theirs, ours = rows
    assert theirs.keys() == ours.keys()
    vary = {"run_uuid", "name", "user_id", "start_time", "end_time", "artifact_uri"}
    assert {k: v for k, v in theirs.items() if k not in vary} == {k: v for k, v in ours.items() if k not in vary}
    assert all(type(theirs[key]) is type(ours[key]) for key in vary)
    assert theirs["artifact_uri"].replace(theirs["run_uuid"], "X") == ours["artifact_uri"].replace(ours["run_uuid"], "X")

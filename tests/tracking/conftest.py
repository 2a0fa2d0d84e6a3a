"""Tasks that log with the unmodified MLflow client, and a project whose store the same client opens."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient

from lossi.contract import records
from lossi.projects import Project, stores
from lossi.runner import publish


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty store, created by the MLflow of this interpreter."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        return stores.template([sys.executable], "tests", {"PATH": os.environ["PATH"]})


@dataclass
class MlflowTask:
    """A task whose notebook uses MLflow's client on its own store."""

    folder: Path
    store: Path
    number: int
    seq: int = 0
    client: MlflowClient = field(init=False)

    def __post_init__(self) -> None:
        self.client = MlflowClient(self.uri)

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.store}"

    def publish(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.seq += 1
        publish.publish(self.store, self.folder, self.seq)

    def finish(self, *run_ids: str) -> None:
        self.publish()
        record = records.TaskExit(task=self.number, state="succeeded", run_ids=list(run_ids))
        (self.folder / records.EXIT).write_bytes(records.dump(record))


@dataclass
class MlflowWorld:
    """A project and its jobs."""

    project: Project
    template: Path
    node: Path

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.project.store}"

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(self.uri)

    def job(self, number: int, tasks: int, experiment: str = "tuning") -> list[MlflowTask]:
        """Create a job as submission does, and its tasks."""
        job_id = f"01job{number:021d}"
        folder = self.project.jobs / job_id
        (folder / records.TASK_FOLDER).mkdir(parents=True)
        stores.task_template(
            self.project, self.template, stores.ensure_experiment(self.project, experiment), folder / records.TEMPLATE
        )
        spec = records.PreparedJob(
            id=job_id,
            name="job",
            kind="notebook",
            project=str(self.project.root),
            user="ada",
            created="2024-01-01T00:00:00Z",
            tasks=tasks,
        )
        (folder / records.SPEC).write_bytes(records.dump(spec))
        created = []
        for task in range(tasks):
            store = self.node / f"{number}-{task}" / "tracking.db"
            store.parent.mkdir(parents=True)
            shutil.copy(folder / records.TEMPLATE, store)
            created.append(MlflowTask(folder / records.TASK_FOLDER / str(task), store, task))
        return created


@pytest.fixture
def mlflow_world(home: Path, tmp_path: Path, template: Path) -> Iterator[MlflowWorld]:
    """A project with an empty store."""
    root = tmp_path / "project"
    root.mkdir()
    project = Project(root)
    stores.ensure(project, template)
    before = mlflow.get_tracking_uri()
    yield MlflowWorld(project, template, tmp_path / "node")
    mlflow.set_tracking_uri(before)

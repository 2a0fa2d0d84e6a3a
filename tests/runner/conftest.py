"""Real job directories, run by the real runner: papermill, kernels and MLflow as they are."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from runner_jobs import Job, processes_of, tar

from lossi.contract import records
from lossi.contract.records import CodeSnapshot, PreparedJob, ResolvedEnvironment, Resources, TrackingTarget
from lossi.runner import archive

MAKE_STORE = """
import sys
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
SqlAlchemyStore("sqlite:///" + sys.argv[1], "/nowhere").engine.dispose()
"""


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty store made by MLflow itself."""
    path = tmp_path_factory.mktemp("template") / "empty.db"
    subprocess.run([sys.executable, "-c", MAKE_STORE, str(path)], check=True, capture_output=True, cwd=path.parent)
    with sqlite3.connect(path, isolation_level=None) as connection:
        connection.execute("PRAGMA page_size=1024")
        connection.execute("VACUUM")
    connection.close()
    return path


@pytest.fixture(scope="session")
def runner_archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runner") / records.RUNNER
    archive.build(path)
    return path


@pytest.fixture
def prepare(tmp_path: Path, template: Path, runner_archive: Path) -> Iterator[Callable[..., Job]]:
    """Make job directories as jobs/ makes them."""
    jobs: list[Job] = []
    temporary = Path(tempfile.mkdtemp(prefix="lossi-"))  # a short path: kernels have sockets below it

    def make(
        files: Mapping[str, bytes],
        *,
        source: str | None = None,
        kind: str = "notebook",
        parameters: Sequence[Mapping[str, Any]] = ({},),
        digests: Mapping[str, str] | None = None,
        tracking: Mapping[str, Any] | None = None,
        variables: Mapping[str, str] | None = None,
        snapshot: Mapping[str, Any] | None = None,
        **changes: Any,
    ) -> Job:
        number = len(jobs)
        project = tmp_path / "project"
        artifacts = project / ".lossi" / "artifacts"
        directory = project / ".lossi" / "jobs" / f"01job{number}{secrets.token_hex(4)}"
        directory.mkdir(parents=True)
        (artifacts / "1").mkdir(parents=True, exist_ok=True)
        (directory / records.RUNNER).write_bytes(runner_archive.read_bytes())
        (directory / records.TASKS).write_text("".join(json.dumps(values) + "\n" for values in parameters))
        (directory / records.CODE).write_bytes(tar(files))
        store = directory / records.TEMPLATE
        store.write_bytes(template.read_bytes())
        with sqlite3.connect(store) as connection:
            connection.execute("UPDATE experiments SET artifact_location = ?", (str(artifacts / "0"),))
            connection.execute(
                "INSERT INTO experiments (experiment_id, name, artifact_location, lifecycle_stage) VALUES (1, 'digits', ?, 'active')",
                (str(artifacts / "1"),),
            )
        connection.close()
        names = (records.TASKS, records.CODE, records.TEMPLATE)
        computed = {name: hashlib.sha256((directory / name).read_bytes()).hexdigest() for name in names}
        home = tmp_path / "home"
        home.mkdir(exist_ok=True)
        spec = PreparedJob(
            id=directory.name,
            name="try",
            kind=kind,
            project=str(project),
            user="ada",
            created="2026-01-01T00:00:00Z",
            source=source or (next(iter(files)) if kind != "command" else None),
            kernel="python3" if kind == "notebook" else None,
            tasks=len(parameters),
            environment=ResolvedEnvironment("here", "local", sys.executable, variant="local", variables=dict(variables or {})),
            resources=Resources(cpus=1),
            code=CodeSnapshot(commit="c0ffee", dirty=True, **(snapshot or {})),
            tracking=TrackingTarget("digits", "1", str(artifacts / "1"), **{"publish_interval_s": 0.3, **(tracking or {})}),
            digests=computed if digests is None else dict(digests),
            **changes,
        )
        environment = {"HOME": str(home), "PATH": os.environ["PATH"], "LANG": "C.UTF-8", "TMPDIR": str(temporary), "USER": "ada"}
        job = Job(directory, spec, environment)
        job.write_spec()
        jobs.append(job)
        return job

    yield make
    for job in jobs:
        for run in job.started:
            if run.process.poll() is None:
                run.process.kill()
                run.process.wait()
        for pid in processes_of(job):
            os.kill(pid, signal.SIGKILL)
    left = list(temporary.iterdir())
    shutil.rmtree(temporary, ignore_errors=True)
    killed = any(run.process.returncode == -signal.SIGKILL for job in jobs for run in job.started)
    assert killed or not left, f"node-local files are left: {left}"

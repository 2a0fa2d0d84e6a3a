"""Helpers of the runner's tests: notebooks, archives and started runners."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lossi.contract import records
from lossi.contract.records import PreparedJob, Progress, TaskExit
from lossi.runner import publish

WAIT = """
import pathlib, time, os
pathlib.Path(os.environ["LOSSI_OUTPUT_DIR"], "reached").touch()
while not pathlib.Path(os.environ["LOSSI_OUTPUT_DIR"], "go").exists():
    time.sleep(0.02)
"""


def code(source: str, *tags: str) -> dict[str, Any]:
    return {"cell_type": "code", "metadata": {"tags": list(tags)}, "source": source, "outputs": [], "execution_count": None}


def notebook(*cells: str | dict[str, Any], kernel: str = "python3", language: str = "python") -> bytes:
    """A notebook of these code cells."""
    code_cells = [code(cell) if isinstance(cell, str) else cell for cell in cells]
    metadata = {"kernelspec": {"name": kernel, "language": language, "display_name": kernel}, "language_info": {"name": language}}
    return json.dumps({"cells": code_cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 4}).encode()


def tar(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(data), 0o644
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


@dataclass
class Run:
    """A started runner."""

    process: subprocess.Popen[bytes]
    job: Job
    task: int

    @property
    def folder(self) -> Path:
        return self.job.directory / records.TASK_FOLDER / str(self.task)

    @property
    def log(self) -> str:
        return (self.folder / records.LOG).read_text(errors="replace")

    @property
    def exit(self) -> TaskExit:
        return records.load(TaskExit, self.folder / records.EXIT)

    @property
    def progress(self) -> Progress | None:
        return records.load_optional(Progress, self.folder / records.PROGRESS)

    @property
    def output(self) -> dict[str, Any]:
        result: dict[str, Any] = json.loads((self.folder / records.OUTPUT_NOTEBOOK).read_text())
        return result

    @property
    def snapshot(self) -> Path:
        """The newest published store."""
        return publish.snapshots(self.folder)[-1][1]

    def wait(self, timeout: float = 1500) -> Run:
        self.process.wait(timeout)
        return self

    def until(self, condition: Callable[[Run], Any], timeout: float = 300) -> Any:
        """Wait until something is the case; fail with the log when the task ends before."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            result = condition(self)
            if result:
                return result
            assert self.process.poll() is None, self.log
            time.sleep(0.02)
        raise AssertionError(f"waited {timeout} s in vain:\n{self.log}")

    def client(self) -> Any:
        """An unmodified MLflow client on a copy of the newest snapshot (it would write its own lock files next to it)."""
        import mlflow

        copy = self.job.directory.parent / f"seen-{self.task}-{time.monotonic_ns()}.db"
        copy.write_bytes(self.snapshot.read_bytes())
        return mlflow.MlflowClient(f"sqlite:///{copy}")

    def runs(self) -> list[Any]:
        """All runs in the snapshot, oldest first."""
        client = self.client()
        ids = [experiment.experiment_id for experiment in client.search_experiments()]
        return sorted(client.search_runs(ids), key=lambda run: run.info.start_time)


@dataclass
class Job:
    """A prepared job directory."""

    directory: Path
    spec: PreparedJob
    environment: dict[str, str]
    started: list[Run] = field(default_factory=list)

    def start(self, task: int = 0, *, attempt: int = 1, **variables: str) -> Run:
        folder = self.directory / records.TASK_FOLDER / str(task)
        folder.mkdir(parents=True, exist_ok=True)
        environment = {**self.environment, "LOSSI_JOB_ID": self.spec.id, "LOSSI_TASK": str(task), **variables}
        argv = [sys.executable, str(self.directory / records.RUNNER), "run", "--job", str(self.directory), "--task", str(task)]
        with (folder / records.LOG).open("ab") as log:
            process = subprocess.Popen(
                [*argv, "--attempt", str(attempt)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
        run = Run(process, self, task)
        self.started.append(run)
        return run

    def run(self, task: int = 0, *, attempt: int = 1, **variables: str) -> Run:
        return self.start(task, attempt=attempt, **variables).wait()

    def write_spec(self, **changes: Any) -> None:
        self.spec = replace(self.spec, **changes)
        (self.directory / records.SPEC).write_bytes(records.dump(self.spec))


def reached(run: Run) -> bool:
    return (run.folder / records.OUTPUT_FOLDER / "reached").exists()


def artifacts(job: Job) -> Path:
    return Path(job.spec.project) / ".lossi" / "artifacts"


def processes_of(job: Job) -> list[int]:
    """Return the living processes of a job."""
    pids = []
    mark = f"LOSSI_JOB_ID={job.spec.id}".encode()
    project = f"LOSSI_PROJECT={job.spec.project}".encode()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                variables = (folder / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if mark in variables and project in variables:
                pids.append(int(folder.name))
    return pids

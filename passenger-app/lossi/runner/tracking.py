"""Tracks a task from start to end: in its own store on the node, or on an MLflow server."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

from ..contract import records, run_status
from ..contract.records import PreparedJob
from . import payload_environment, store, task_runs
from .errors import explained
from .paths import TaskPaths
from .publish import Publisher, restore
from .relocation import Relocation
from .task_runs import RunFacts, TaskEnd
from .unpacking import check_digest
from .writing import copy

Gpu = Tuple[Optional[str], Optional[str]]

ATTEMPT_SEQ = 1_000_000
"""Each attempt numbers its snapshots from a multiple of this: those of an attempt on an abandoned node are always older."""
CHILD_TIMEOUT_S = 120.0
"""Seconds for one call of the MLflow client, including its import."""


class Tracking:
    """Base class. Trouble with tracking never fails a task; it is kept in ``problem``."""

    def __init__(self, job: PreparedJob, task: int, paths: TaskPaths, attempt: int, parameters: Mapping[str, Any]) -> None:
        self.job = job
        self.attempt = attempt
        self.task = task
        self.paths = paths
        # With the notebook's defaults, so that a run without -p can be compared with one that has it.
        self.parameters: Mapping[str, Any] = {**job.defaults, **parameters}
        self.run_id: Optional[str] = None
        """The run of an earlier attempt that this one continues."""
        self.problem = ""
        self.notes: List[str] = []

    def environment(self, python: str) -> Dict[str, str]:
        """Return the payload's environment."""
        return self._environment(python)

    def _environment(self, python: str, uri: Optional[str] = None) -> Dict[str, str]:
        return payload_environment.payload_environment(
            os.environ,
            self.job,
            self.task,
            self.paths,
            python=python,
            tags=self.tags((None, None)),
            run_id=self.run_id,
            attempt=self.attempt,
            uri=uri,
        )

    def tags(self, gpu: Gpu) -> Dict[str, str]:
        """Return the join tags of the task's runs."""
        return task_runs.join_tags(self.job, self.task, os.uname().nodename, os.environ, gpu)

    def run_name(self) -> str:
        """Return the name of a run created for the task."""
        return self.job.name if self.job.tasks == 1 else f"{self.job.name}-{self.task}"

    def link_default_folders(self, working_directory: Path) -> None:
        """Prepare the working directory for artifacts that MLflow writes there."""

    def begin(self, gpu: Callable[[], Gpu]) -> None:
        """Start tracking the running payload; ``gpu`` returns type and driver once they are known."""

    def poll(self) -> None:
        """Publish if it is due; returns at once."""

    def finish(self, state: str, started_s: float, failed_s: Optional[float], gpu: Optional[Gpu]) -> List[str]:
        """Complete the runs of a task whose payload has ended; return their ids, its own first.

        Parameters
        ----------
        state
            The task's end state.
        started_s, failed_s
            Seconds since the epoch.
        gpu
            Type and driver version; None if they were not read.
        """
        raise NotImplementedError

    def _add_problem(self, text: str) -> None:
        self.problem = f"{self.problem}; {text}" if self.problem else text


class Embedded(Tracking):
    """The task's own SQLite store on node-local disk, published to the task's folder."""

    def __init__(self, job: PreparedJob, task: int, paths: TaskPaths, attempt: int, parameters: Mapping[str, Any]) -> None:
        super().__init__(job, task, paths, attempt, parameters)
        root = store.local_path(job.tracking.artifact_location) if job.tracking.artifact_location else None
        artifacts = root.parent if root is not None else Path(job.project) / ".lossi" / "artifacts"
        self.relocation = Relocation(paths.work, paths.code, Path(job.project), artifacts / f"{job.id}.{task}")
        self.location = job.tracking.artifact_location or store.location_of(artifacts / job.tracking.experiment_id)
        self.publisher: Optional[Publisher] = None
        self._gpu: Callable[[], Gpu] = lambda: (None, None)
        template = paths.job / records.TEMPLATE
        self._earlier: Mapping[str, Mapping[str, str]] = {}
        """Params logged by an earlier attempt, by run. This one may replace them."""
        if attempt == 1 or not restore(paths.task, paths.store):
            check_digest(template, job.digests.get(records.TEMPLATE))
            shutil.copyfile(template, paths.store)
            return
        try:
            with store.opened(paths.store) as connection:
                self.run_id, self._earlier = task_runs.resume(connection, int(time.time() * 1000))
        except (sqlite3.Error, store.StoreError) as error:
            self._add_problem(f"cannot continue the run of the earlier attempt: {error}")

    def link_default_folders(self, working_directory: Path) -> None:
        """Link MLflow's default folders to where artifacts belong."""
        self.relocation.link(working_directory)

    def begin(self, gpu: Callable[[], Gpu]) -> None:
        """Start publishing the store."""
        self._gpu = gpu
        self.publisher = Publisher(
            self.paths.store,
            self.paths.task,
            interval_s=self.job.tracking.publish_interval_s,
            first_seq=(self.attempt - 1) * ATTEMPT_SEQ,
            amend=lambda connection: task_runs.amend_live(connection, self._run_facts(self._gpu())),
        )

    def poll(self) -> None:
        """Publish if it is due."""
        if self.publisher is not None:
            self.publisher.poll()

    def finish(self, state: str, started_s: float, failed_s: Optional[float], gpu: Optional[Gpu]) -> List[str]:
        """Complete the runs, publish the last snapshot, keep the notebook as an artifact."""
        if self.publisher is None:
            self.begin(self._gpu)
        assert self.publisher is not None
        self.publisher.wait()
        ended = TaskEnd(state, int(started_s * 1000), int(time.time() * 1000), None if failed_s is None else int(failed_s * 1000))
        facts = self._run_facts(gpu or self._gpu())
        runs = self._finalised(facts, ended)
        self.publisher.finish()
        if self.publisher.problem:
            self._add_problem(self.publisher.problem)
        if runs and self.paths.notebook.exists():
            self._keep_notebook(runs[0])
        self.relocation.tidy()
        return [run.id for run in runs]

    def _finalised(self, facts: RunFacts, ended: TaskEnd) -> List[store.Run]:
        problem = ""
        for _ in range(2):
            try:
                with store.opened(self.paths.store) as connection:
                    self.notes += self.relocation.move(connection)
                    return task_runs.finalise(connection, facts, ended)
            except store.StoreError as error:
                problem = str(error)
                break
            except OSError as error:
                problem = explained(error)
            except sqlite3.Error as error:
                problem = f"the task's store: {error}"
            # On a full disk: the payload has ended, so its temporary files can go.
            shutil.rmtree(self.paths.temporary, ignore_errors=True)
        self._add_problem(f"cannot complete the runs: {problem}")
        return []

    def _keep_notebook(self, run: store.Run) -> None:
        folder = store.local_path(run.artifact_uri)
        if folder is None:
            problem = _client(
                {"do": "artifact", "run_id": run.id, "path": str(self.paths.notebook)}, self.environment(sys.executable)
            )[1]
            if problem:
                self._add_problem(f"cannot store the output notebook as an artifact: {problem}")
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            copy(self.paths.notebook, folder / records.OUTPUT_NOTEBOOK)
        except OSError as error:
            self._add_problem(f"cannot store the output notebook as an artifact: {explained(error)}")

    def _run_facts(self, gpu: Gpu) -> RunFacts:
        return RunFacts(
            tags=self.tags(gpu),
            user_tags=self.job.tags,
            params=self.parameters,
            run_name=self.run_name(),
            user=self.job.user,
            experiment=self.job.tracking.experiment,
            artifact_location=self.location,
            relocation=self.relocation,
            earlier_params=self._earlier,
        )


class Throwaway(Tracking):
    """The store of a process on another node than the first, removed with the node's folder: the first one logs the same.

    So a program that logs on every node neither makes a run per node nor fails for lack of a store.
    """

    def __init__(self, job: PreparedJob, task: int, paths: TaskPaths, attempt: int, parameters: Mapping[str, Any]) -> None:
        super().__init__(job, task, paths, attempt, parameters)
        template = paths.job / records.TEMPLATE
        check_digest(template, job.digests.get(records.TEMPLATE))
        shutil.copyfile(template, paths.store)
        try:
            with store.opened(paths.store) as connection:
                store.keep_artifacts_below(connection, paths.work / "artifacts")
        except sqlite3.Error as error:
            self._add_problem(f"the store of rank {paths.rank}: {error}")

    def environment(self, python: str) -> Dict[str, str]:
        """Return the payload's environment, with the throwaway store."""
        return self._environment(python, f"sqlite:///{self.paths.store}")

    def link_default_folders(self, working_directory: Path) -> None:
        """Link MLflow's default folders to where they are removed with the store."""
        work = self.paths.work
        Relocation(work, self.paths.code, Path(self.job.project), work / "artifacts").link(working_directory)

    def finish(self, state: str, started_s: float, failed_s: Optional[float], gpu: Optional[Gpu]) -> List[str]:
        """Return no ids: no run is kept."""
        return []


class Server(Tracking):
    """An MLflow server: the payload logs there itself; a child with the image's MLflow client does the rest."""

    def __init__(self, job: PreparedJob, task: int, paths: TaskPaths, attempt: int, parameters: Mapping[str, Any]) -> None:
        super().__init__(job, task, paths, attempt, parameters)
        if attempt > 1:
            answer, problem = _client({"do": "resume", **self._identity()}, self.environment(sys.executable))
            self.run_id = next(iter(answer.get("run_ids", ())), None)
            if problem:
                self._add_problem(f"cannot continue the run of the earlier attempt: {problem}")

    def finish(self, state: str, started_s: float, failed_s: Optional[float], gpu: Optional[Gpu]) -> List[str]:
        """Let the client complete the runs."""
        order = {
            "do": "finish",
            **self._identity(),
            "experiment": self.job.tracking.experiment,
            "run_name": self.run_name(),
            "tags": {**self.job.tags, **self.tags(gpu or (None, None))},
            "params": {key: store.param_text(value) for key, value in self.parameters.items()},
            "status": run_status.of_state(state),
            "started_ms": int(started_s * 1000),
            "ended_ms": int(time.time() * 1000),
            "failed_ms": None if failed_s is None else int(failed_s * 1000),
            "artifact": str(self.paths.notebook) if self.paths.notebook.exists() else None,
        }
        answer, problem = _client(order, self.environment(sys.executable))
        if problem:
            self._add_problem(f"{payload_environment.server_uri(self.job)}: {problem}")
        return [str(run_id) for run_id in answer.get("run_ids", ())]

    def _identity(self) -> Dict[str, str]:
        return {"job_id": self.job.id, "task": str(self.task)}


def open_for(job: PreparedJob, task: int, paths: TaskPaths, attempt: int, parameters: Mapping[str, Any]) -> Tracking:
    """Prepare the task's tracking.

    Raises
    ------
    TaskFailure
        When the prepared store changed since submission.
    OSError
        When it cannot be copied to the node.
    """
    if paths.rank:
        return Throwaway(job, task, paths, attempt, parameters)
    kind = Embedded if payload_environment.server_uri(job) is None else Server
    return kind(job, task, paths, attempt, parameters)


def _client(order: Dict[str, Any], environment: Dict[str, str]) -> Tuple[Dict[str, Any], str]:
    """Run the environment's MLflow client on an order; return its answer and the problem, if any."""
    settings = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
    kept = {name: value for name, value in environment.items() if name not in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME")}
    try:
        done = subprocess.run(
            [*payload_environment.own_command(), "client"],
            input=json.dumps(order).encode(),
            stdout=subprocess.PIPE,
            env={**settings, **kept},
            timeout=CHILD_TIMEOUT_S,
        )
        answer = json.loads(done.stdout.decode("utf-8").splitlines()[-1])
    except subprocess.TimeoutExpired:
        return {}, f"MLflow's client did not answer within {CHILD_TIMEOUT_S:g} s"
    except (OSError, ValueError, IndexError) as error:
        return {}, f"MLflow's client failed ({error}); see the log"
    return answer, str(answer.get("problem", ""))

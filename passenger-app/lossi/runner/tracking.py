"""A task's tracking from its start to its end: its own store on the node, or an MLflow server."""

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
from . import adoption, store, strays, variables
from .adoption import Belonging, Ended
from .places import Places
from .publish import Publisher, restore
from .unpacking import check_digest
from .writing import copy, explained

Gpu = Tuple[Optional[str], Optional[str]]

ATTEMPT_SEQ = 1_000_000
"""Each attempt numbers its snapshots from here on: one that still runs on a node that was given up is always the older."""
CHILD_TIMEOUT_S = 120.0
"""Seconds for one call of the MLflow client, its import included."""


class Tracking:
    """What both ways have in common. Trouble with tracking never fails a task: it is kept in ``problem``."""

    def __init__(self, job: PreparedJob, task: int, places: Places, attempt: int, parameters: Mapping[str, Any]) -> None:
        self.job = job
        self.attempt = attempt
        self.task = task
        self.places = places
        # With the notebook's own defaults, so that a run without -p can be compared with one that has it.
        self.parameters: Mapping[str, Any] = {**job.defaults, **parameters}
        self.run_id: Optional[str] = None
        """The run that an earlier attempt has left and this one goes on with."""
        self.problem = ""
        self.notes: List[str] = []

    def environment(self, python: str) -> Dict[str, str]:
        """Return the payload's environment."""
        return self._environment(python)

    def _environment(self, python: str, uri: Optional[str] = None) -> Dict[str, str]:
        return variables.payload_environment(
            os.environ,
            self.job,
            self.task,
            self.places,
            python=python,
            tags=self.tags((None, None)),
            run_id=self.run_id,
            attempt=self.attempt,
            uri=uri,
        )

    def tags(self, gpu: Gpu) -> Dict[str, str]:
        """Return the join tags of the task's runs."""
        return adoption.join_tags(self.job, self.task, os.uname().nodename, os.environ, gpu)

    def run_name(self) -> str:
        """Return the name of a run that is made for the task."""
        return self.job.name if self.job.tasks == 1 else f"{self.job.name}-{self.task}"

    def link_strays(self, working_directory: Path) -> None:
        """Prepare the working directory for artifacts that MLflow puts there."""

    def begin(self, gpu: Callable[[], Gpu]) -> None:
        """The payload has started; ``gpu`` tells type and driver as far as they are known."""

    def poll(self) -> None:
        """Do what is due while the payload runs; returns at once."""

    def finish(self, state: str, started_s: float, failed_s: Optional[float], gpu: Optional[Gpu]) -> List[str]:
        """Complete the task's runs and return their ids, its own first. The payload has ended.

        Parameters
        ----------
        state
            The task's end state.
        started_s, failed_s
            Seconds since the epoch.
        gpu
            Type and driver version, where they were looked for.
        """
        raise NotImplementedError

    def _add_problem(self, text: str) -> None:
        self.problem = f"{self.problem}; {text}" if self.problem else text


class Embedded(Tracking):
    """The task's own SQLite store on node-local disk, published to the task's folder."""

    def __init__(self, job: PreparedJob, task: int, places: Places, attempt: int, parameters: Mapping[str, Any]) -> None:
        super().__init__(job, task, places, attempt, parameters)
        root = store.local_path(job.tracking.artifact_location) if job.tracking.artifact_location else None
        artifacts = root.parent if root is not None else Path(job.project) / ".lossi" / "artifacts"
        self.relocation = strays.Relocation(places.work, places.code, Path(job.project), artifacts / f"{job.id}.{task}")
        self.location = job.tracking.artifact_location or store.location_of(artifacts / job.tracking.experiment_id)
        self.publisher: Optional[Publisher] = None
        self._gpu: Callable[[], Gpu] = lambda: (None, None)
        template = places.job / records.TEMPLATE
        self._earlier: Mapping[str, Mapping[str, str]] = {}
        """Params that an earlier attempt has logged, by run: this one may log others, and keeps those that it does not."""
        if attempt == 1 or not restore(places.task, places.store):
            check_digest(template, job.digests.get(records.TEMPLATE))
            shutil.copyfile(template, places.store)
            return
        try:
            with store.opened(places.store) as connection:
                self.run_id, self._earlier = adoption.resume(connection, int(time.time() * 1000))
        except (sqlite3.Error, store.StoreError) as error:
            self._add_problem(f"the run of the earlier attempt could not be continued: {error}")

    def link_strays(self, working_directory: Path) -> None:
        """Let MLflow's default folder be a link to where artifacts belong."""
        self.relocation.link(working_directory)

    def begin(self, gpu: Callable[[], Gpu]) -> None:
        """Watch the store from now on."""
        self._gpu = gpu
        self.publisher = Publisher(
            self.places.store,
            self.places.task,
            interval_s=self.job.tracking.publish_interval_s,
            first_seq=(self.attempt - 1) * ATTEMPT_SEQ,
            amend=lambda connection: adoption.amend_live(connection, self._belonging(self._gpu())),
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
        ended = Ended(state, int(started_s * 1000), int(time.time() * 1000), None if failed_s is None else int(failed_s * 1000))
        belonging = self._belonging(gpu or self._gpu())
        runs = self._finalised(belonging, ended)
        self.publisher.finish()
        if self.publisher.problem:
            self._add_problem(self.publisher.problem)
        if runs and self.places.notebook.exists():
            self._keep_notebook(runs[0])
        self.relocation.tidy()
        return [run.id for run in runs]

    def _finalised(self, belonging: Belonging, ended: Ended) -> List[store.Run]:
        problem = ""
        for _ in range(2):
            try:
                with store.opened(self.places.store) as connection:
                    self.notes += self.relocation.move(connection)
                    return adoption.finalise(connection, belonging, ended)
            except store.StoreError as error:
                problem = str(error)
                break
            except OSError as error:
                problem = explained(error)
            except sqlite3.Error as error:
                problem = f"the task's store: {error}"
            # A full node: the payload has ended, and nobody needs its temporary files any more.
            shutil.rmtree(self.places.temporary, ignore_errors=True)
        self._add_problem(f"the runs could not be completed: {problem}")
        return []

    def _keep_notebook(self, run: store.Run) -> None:
        folder = store.local_path(run.artifact_uri)
        if folder is None:
            problem = _client(
                {"do": "artifact", "run_id": run.id, "path": str(self.places.notebook)}, self.environment(sys.executable)
            )[1]
            if problem:
                self._add_problem(f"the output notebook is not among the artifacts: {problem}")
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            copy(self.places.notebook, folder / records.OUTPUT_NOTEBOOK)
        except OSError as error:
            self._add_problem(f"the output notebook is not among the artifacts: {explained(error)}")

    def _belonging(self, gpu: Gpu) -> Belonging:
        return Belonging(
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
    """The store of a process beyond the first of a task: what it logs, the first one logs too, and it goes with the node's folder.

    So a program that logs on every node neither makes a run per node nor fails for the want of a store.
    """

    def __init__(self, job: PreparedJob, task: int, places: Places, attempt: int, parameters: Mapping[str, Any]) -> None:
        super().__init__(job, task, places, attempt, parameters)
        template = places.job / records.TEMPLATE
        check_digest(template, job.digests.get(records.TEMPLATE))
        shutil.copyfile(template, places.store)
        try:
            with store.opened(places.store) as connection:
                store.keep_artifacts_below(connection, places.work / "artifacts")
        except sqlite3.Error as error:
            self._add_problem(f"the store of rank {places.rank}: {error}")

    def environment(self, python: str) -> Dict[str, str]:
        """Return the payload's environment, with the throwaway store."""
        return self._environment(python, f"sqlite:///{self.places.store}")

    def link_strays(self, working_directory: Path) -> None:
        """Let MLflow's default folder go with the store."""
        work, code = self.places.work, self.places.code
        strays.Relocation(work, code, Path(self.job.project), work / "artifacts").link(working_directory)

    def finish(self, state: str, started_s: float, failed_s: Optional[float], gpu: Optional[Gpu]) -> List[str]:
        """Return nothing: no run is kept."""
        return []


class Server(Tracking):
    """An MLflow server: the payload logs there by itself; the rest is done by the image's MLflow client in a child."""

    def __init__(self, job: PreparedJob, task: int, places: Places, attempt: int, parameters: Mapping[str, Any]) -> None:
        super().__init__(job, task, places, attempt, parameters)
        if attempt > 1:
            answer, problem = _client({"do": "resume", **self._identity()}, self.environment(sys.executable))
            self.run_id = next(iter(answer.get("run_ids", ())), None)
            if problem:
                self._add_problem(f"the run of the earlier attempt could not be continued: {problem}")

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
            "artifact": str(self.places.notebook) if self.places.notebook.exists() else None,
        }
        answer, problem = _client(order, self.environment(sys.executable))
        if problem:
            self._add_problem(f"{variables.server_uri(self.job)}: {problem}")
        return [str(run_id) for run_id in answer.get("run_ids", ())]

    def _identity(self) -> Dict[str, str]:
        return {"job_id": self.job.id, "task": str(self.task)}


def open_for(job: PreparedJob, task: int, places: Places, attempt: int, parameters: Mapping[str, Any]) -> Tracking:
    """Make the task's tracking ready.

    Raises
    ------
    TaskFailure
        When the prepared store is not what was submitted.
    OSError
        When it cannot be brought to the node.
    """
    if places.rank:
        return Throwaway(job, task, places, attempt, parameters)
    kind = Embedded if variables.server_uri(job) is None else Server
    return kind(job, task, places, attempt, parameters)


def _client(order: Dict[str, Any], environment: Dict[str, str]) -> Tuple[Dict[str, Any], str]:
    """Run the environment's MLflow client on an order; return its answer, and what went wrong."""
    settings = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
    kept = {name: value for name, value in environment.items() if name not in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_NAME")}
    try:
        done = subprocess.run(
            [*variables.own_command(), "client"],
            input=json.dumps(order).encode(),
            stdout=subprocess.PIPE,
            env={**settings, **kept},
            timeout=CHILD_TIMEOUT_S,
        )
        answer = json.loads(done.stdout.decode("utf-8").splitlines()[-1])
    except subprocess.TimeoutExpired:
        return {}, f"MLflow's client did not answer within {CHILD_TIMEOUT_S:g} s"
    except (OSError, ValueError, IndexError) as error:
        return {}, f"MLflow's client failed ({error}); the log says why"
    return answer, str(answer.get("problem", ""))

"""Marks MLflow runs as a task's: join tags, parameters, status and end.

A notebook may start any number of runs. Without one, a run is created for the task. All get the tags, and the first is the
task's own. Works on a connection to a store and touches no other file.
"""

from __future__ import annotations

import platform
import sqlite3
from dataclasses import dataclass, field
from typing import Any, Dict, List, Mapping, Optional, Tuple

from ..contract import records, run_status
from . import store
from .relocation import Relocation


@dataclass(frozen=True)
class RunFacts:
    """What every run of a task gets."""

    tags: Mapping[str, str]
    """Join tags. They replace what the client wrote, which knows only the copy on the node."""
    user_tags: Mapping[str, str] = field(default_factory=dict)
    """Tags that the user set for the job; the notebook's own win."""
    params: Mapping[str, Any] = field(default_factory=dict)
    run_name: str = ""
    user: str = ""
    experiment: str = "Default"
    artifact_location: str = ""
    relocation: Optional[Relocation] = None
    earlier_params: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Params logged by an earlier attempt, by run; kept if this one logs no other value under the same key."""


@dataclass(frozen=True)
class TaskEnd:
    """How a task ended. Times in milliseconds since the epoch."""

    state: str
    started_ms: int
    ended_ms: int
    failed_ms: Optional[int] = None
    """When it failed. MLflow closes open runs as FINISHED when the process exits: a run that was still open at this time did
    not finish."""


def amend_live(connection: sqlite3.Connection, facts: RunFacts) -> None:
    """Mark the runs in a copy that is published while the task runs.

    Parameters are not added yet: the client may still log its own text for them.

    Raises
    ------
    StoreError
        When the store cannot be written.
    """
    store.check(connection)
    if facts.relocation is not None:
        facts.relocation.rewrite(connection)
    for run in store.runs(connection):
        _mark(connection, run, facts)
        store.add_params(connection, run.id, facts.earlier_params.get(run.id, {}))


def finalise(connection: sqlite3.Connection, facts: RunFacts, end: TaskEnd) -> List[store.Run]:
    """Write how the task ended and return its runs, its own first. Repeating it changes nothing more.

    Raises
    ------
    StoreError
        When the store cannot be written.
    """
    store.check(connection)
    with store.transaction(connection):
        if facts.relocation is not None:
            facts.relocation.rewrite(connection)
        for run in store.runs(connection) or [_create(connection, facts, end)]:
            _mark(connection, run, facts)
            store.add_params(connection, run.id, facts.earlier_params.get(run.id, {}))
            if not run.nested:
                store.add_params(connection, run.id, facts.params)
            status, end_ms = status_at_end(run, end)
            if (status, end_ms) != (run.status, run.end_ms):
                store.end_run(connection, run.id, status, end_ms)
        return store.runs(connection)


def resume(connection: sqlite3.Connection, now_ms: int) -> Tuple[Optional[str], Dict[str, Dict[str, str]]]:
    """Continue the task's own run of an earlier attempt; return its id (None if there is none) and all runs' params.

    The params are removed from the store, because MLflow refuses another value for an existing key; they come back through
    `RunFacts.earlier_params`. Other open runs of the earlier attempt are ended, since nothing will continue them.

    Raises
    ------
    StoreError
        When the store cannot be written.
    """
    store.check(connection)
    runs = store.runs(connection)
    own = runs[0].id if runs and not runs[0].nested else None
    with store.transaction(connection):
        params = {run.id: store.take_params(connection, run.id) for run in runs}
        for run in runs:
            if run.id == own:
                store.revive(connection, run.id)
            elif run.end_ms is None:
                store.end_run(connection, run.id, run_status.KILLED, now_ms)
    return own, params


def status_at_end(run: store.Run, end: TaskEnd) -> Tuple[str, int]:
    """Return status and end of a run of an ended task."""
    status = run_status.of_state(end.state)
    if run.status not in (run_status.FINISHED, run_status.FAILED, run_status.KILLED) or run.end_ms is None:
        return status, end.ended_ms
    open_when_it_failed = end.failed_ms is not None and run.end_ms >= end.failed_ms
    if run.status == run_status.FINISHED and status != run_status.FINISHED and open_when_it_failed:
        return status, run.end_ms
    return run.status, run.end_ms


def _mark(connection: sqlite3.Connection, run: store.Run, facts: RunFacts) -> None:
    store.set_tags(connection, run.id, facts.tags)
    store.set_tags(connection, run.id, facts.user_tags, replace=False)


def _create(connection: sqlite3.Connection, facts: RunFacts, end: TaskEnd) -> store.Run:
    number, location = store.experiment(connection, facts.experiment, facts.artifact_location)
    return store.create_run(
        connection,
        number,
        location,
        name=facts.run_name,
        user=facts.user,
        status=run_status.of_state(end.state),
        start_ms=end.started_ms,
        end_ms=end.ended_ms,
    )


def join_tags(
    job: records.PreparedJob, task: int, host: str, environment: Mapping[str, str], gpu: Tuple[Optional[str], Optional[str]]
) -> Dict[str, str]:
    """Return the tags that join runs with jobs, environments, code and nodes.

    Parameters
    ----------
    job, task, host
        The job, the task's number, and its node.
    environment
        The runner's environment variables; those of Slurm are read.
    gpu
        Type and driver version; None if unknown.
    """
    resolved = job.environment
    array = environment.get("SLURM_ARRAY_JOB_ID")
    tags = {
        "lossi.job_id": job.id,
        "lossi.task": str(task),
        "lossi.job_name": job.name,
        "lossi.environment": resolved.name,
        "lossi.environment_variant": resolved.variant,
        "lossi.image_digest": resolved.digest,
        "lossi.packages_sha256": resolved.packages_sha256,
        "lossi.host": host,
        "lossi.architecture": platform.machine(),
        "lossi.gpu_type": gpu[0],
        "lossi.gpu_driver": gpu[1],
        "lossi.git_dirty": "true" if job.code.dirty else "false",
        "mlflow.source.git.commit": job.code.commit,
        "mlflow.source.name": job.source or (job.command[0] if job.command else None),
        "mlflow.source.type": "NOTEBOOK" if job.kind == "notebook" else "LOCAL",
        "mlflow.user": job.user,
        "slurm.job_id": array or environment.get("SLURM_JOB_ID"),
        "slurm.array_task_id": environment.get("SLURM_ARRAY_TASK_ID") if array else None,
        "slurm.cluster": environment.get("SLURM_CLUSTER_NAME"),
    }
    return {key: value for key, value in tags.items() if value}

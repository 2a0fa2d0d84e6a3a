"""Which MLflow runs are a task's, and what makes them so: join tags, parameters, how they ended.

A notebook may start no run, one or many. None: one is made for the task. One: it is the task's. Several: all get the tags and
the first is the task's own. Works on a connection to a store; touches no other file.
"""

from __future__ import annotations

import platform
import sqlite3
from dataclasses import dataclass, field
from typing import Any, Dict, List, Mapping, Optional, Tuple

from ..contract import records, run_status
from . import store
from .strays import Relocation


@dataclass(frozen=True)
class Belonging:
    """What every run of one task gets."""

    tags: Mapping[str, str]
    """Join tags: they replace what the client wrote, which knows only of a copy on the node."""
    user_tags: Mapping[str, str] = field(default_factory=dict)
    """Tags the user asked for: the notebook's own win."""
    params: Mapping[str, Any] = field(default_factory=dict)
    run_name: str = ""
    user: str = ""
    experiment: str = "Default"
    artifact_location: str = ""
    relocation: Optional[Relocation] = None
    earlier_params: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """What an earlier attempt has logged, by run: kept where this one logs nothing else under the same key."""


@dataclass(frozen=True)
class Ended:
    """How a task ended, as far as its runs are concerned. Times in milliseconds since the epoch."""

    state: str
    started_ms: int
    ended_ms: int
    failed_ms: Optional[int] = None
    """When things went wrong: a run that was still open then and was closed as FINISHED only because its process ended
    (MLflow does that at exit) did not finish."""


def amend_live(connection: sqlite3.Connection, belonging: Belonging) -> None:
    """Mark the runs in a copy that is published while the task runs, so that live curves can be told apart.

    Parameters are not added yet: the client may still log its own text for them.

    Raises
    ------
    StoreError
        When the store is not one that can be written.
    """
    store.check(connection)
    if belonging.relocation is not None:
        belonging.relocation.rewrite(connection)
    for run in store.runs(connection):
        _mark(connection, run, belonging)
        store.add_params(connection, run.id, belonging.earlier_params.get(run.id, {}))


def finalise(connection: sqlite3.Connection, belonging: Belonging, ended: Ended) -> List[store.Run]:
    """Make the store say how the task ended and return its runs, the task's own first. Repeating it changes nothing more.

    Raises
    ------
    StoreError
        When the store is not one that can be written.
    """
    store.check(connection)
    with store.transaction(connection):
        if belonging.relocation is not None:
            belonging.relocation.rewrite(connection)
        found = store.runs(connection)
        if not found:
            found = [_create(connection, belonging, ended)]
        for run in found:
            _mark(connection, run, belonging)
            store.add_params(connection, run.id, belonging.earlier_params.get(run.id, {}))
            if not run.nested:
                store.add_params(connection, run.id, belonging.params)
            status, end_ms = status_at_end(run, ended)
            if (status, end_ms) != (run.status, run.end_ms):
                store.end_run(connection, run.id, status, end_ms)
        return store.runs(connection)


def resume(connection: sqlite3.Connection, now_ms: int) -> Tuple[Optional[str], Dict[str, Dict[str, str]]]:
    """Let the task's own run of an earlier attempt go on; return its id (None when there is none) and all runs' params.

    The params are taken out of the store, because MLflow refuses to log another value for a key that is there; they go back
    for `Belonging.earlier_params`. Other runs that the earlier attempt had open are ended: nobody will go on with them.

    Raises
    ------
    StoreError
        When the store is not one that can be written.
    """
    store.check(connection)
    found = store.runs(connection)
    own = found[0].id if found and not found[0].nested else None
    with store.transaction(connection):
        params = {run.id: store.take_params(connection, run.id) for run in found}
        for run in found:
            if run.id == own:
                store.revive(connection, run.id)
            elif run.end_ms is None:
                store.end_run(connection, run.id, run_status.KILLED, now_ms)
    return own, params


def status_at_end(run: store.Run, ended: Ended) -> Tuple[str, int]:
    """Return status and end that a run has when its task has ended so."""
    status = run_status.of_state(ended.state)
    if run.status not in (run_status.FINISHED, run_status.FAILED, run_status.KILLED) or run.end_ms is None:
        return status, ended.ended_ms
    open_when_it_failed = ended.failed_ms is not None and run.end_ms >= ended.failed_ms
    if run.status == run_status.FINISHED and status != run_status.FINISHED and open_when_it_failed:
        return status, run.end_ms
    return run.status, run.end_ms


def _mark(connection: sqlite3.Connection, run: store.Run, belonging: Belonging) -> None:
    store.set_tags(connection, run.id, belonging.tags)
    store.set_tags(connection, run.id, belonging.user_tags, replace=False)


def _create(connection: sqlite3.Connection, belonging: Belonging, ended: Ended) -> store.Run:
    number, location = store.experiment(connection, belonging.experiment, belonging.artifact_location)
    return store.create_run(
        connection,
        number,
        location,
        name=belonging.run_name,
        user=belonging.user,
        status=run_status.of_state(ended.state),
        start_ms=ended.started_ms,
        end_ms=ended.ended_ms,
    )


def join_tags(
    job: records.PreparedJob, task: int, host: str, environment: Mapping[str, str], gpu: Tuple[Optional[str], Optional[str]]
) -> Dict[str, str]:
    """Return the tags by which runs are joined with jobs, environments, code and nodes.

    Parameters
    ----------
    job, task, host
        Whose runs, which task of it, on which node.
    environment
        The runner's environment variables, for those of Slurm.
    gpu
        Type and driver version, None where unknown.
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

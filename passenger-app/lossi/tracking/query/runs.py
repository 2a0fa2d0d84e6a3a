"""One run in full, the experiments, and short ids of runs."""

# ruff: noqa: S608  (statements contain only names from this package; values are always bound)
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lossi.errors import InvalidInput, NotFound
from lossi.projects import Project
from lossi.projects.facts import FACTS
from lossi.tracking.query.conditions import CONTEXT_TAG, job_column
from lossi.tracking.query.models import DatasetInput, Experiment, Experiments, LoggedModel, RunDetail
from lossi.tracking.query.store import Store, read
from lossi.tracking.query.summaries import summaries
from lossi.tracking.query.values import cell, is_storable, milliseconds, text

SHORTEST_PREFIX = 4


def run(project: Project, run_id: str) -> RunDetail:
    """Return everything known about one run, which may be deleted.

    Raises
    ------
    NotFound
        If the store has no such run.
    Forbidden, Unavailable
        If the store cannot be read.
    """
    return read(project, lambda store: _detail(store, project, run_id), with_jobs=True)


def list_experiments(project: Project) -> Experiments:
    """Return the experiments that are not deleted, newest first.

    Raises
    ------
    Forbidden, Unavailable
        If the store cannot be read.
    """
    return read(project, _experiments)


def resolve(project: Project, texts: Sequence[str]) -> list[str]:
    """Return the ids of runs given by their whole ids or at least their first four characters.

    Raises
    ------
    NotFound
        With every text that matches no run.
    InvalidInput
        If one matches several runs.
    """
    return read(project, lambda store: _resolved(store, project, texts))


def missing_runs(project: Project, run_ids: Sequence[str]) -> NotFound:
    """Return the error for runs that do not exist."""
    shown = ", ".join(run_ids[:10]) + (f" and {len(run_ids) - 10} more" if len(run_ids) > 10 else "")
    return NotFound(
        f"no run {shown} in project {project.name!r}",
        hint="`lossi runs list` shows the ids; a run of a task appears a few seconds after the task started",
        run_ids=list(run_ids[:1000]),
    )


def _resolved(store: Store, project: Project, texts: Sequence[str]) -> list[str]:
    result: list[str] = []
    unknown: list[str] = []
    table = store.relations["runs"]
    for prefix in texts:
        run_ids: list[str] = []
        if is_storable(prefix):
            rows = store.rows(f"SELECT run_uuid FROM {table} WHERE run_uuid = ?", [prefix])
            if not rows and len(prefix) >= SHORTEST_PREFIX:
                upper = prefix + "\U0010ffff"
                sql = f"SELECT run_uuid FROM {table} WHERE run_uuid >= ? AND run_uuid < ? ORDER BY run_uuid LIMIT 3"
                rows = store.rows(sql, [prefix, upper])
            run_ids = [str(row[0]) for row in rows]
        if len(run_ids) > 1:
            raise InvalidInput(f"{prefix!r} matches several runs: {', '.join(run_ids)}…", hint="give more characters of the id")
        if run_ids:
            result.append(run_ids[0])
        else:
            unknown.append(prefix)
    if unknown:
        raise missing_runs(project, unknown)
    return result


def _detail(store: Store, project: Project, run_id: str) -> RunDetail:
    relations = store.relations
    rows = (
        store.rows(
            f"SELECT r.name, r.experiment_id, r.status, r.start_time, r.end_time, r.user_id, r.lifecycle_stage, r.artifact_uri, x.name "
            f"FROM {relations['runs']} r LEFT JOIN {relations['experiments']} x ON x.experiment_id = r.experiment_id WHERE r.run_uuid = ?",
            [run_id],
        )
        if is_storable(run_id)
        else []
    )
    if not rows:
        raise missing_runs(project, [run_id])
    name, experiment_id, status, start, end, user, stage, uri, experiment = rows[0]
    return RunDetail(
        run_id=run_id,
        run_name=text(name),
        experiment_id=text(experiment_id),
        experiment=text(experiment),
        status=text(status),
        start_time=milliseconds(start),
        end_time=milliseconds(end),
        user_id=text(user),
        lifecycle_stage=text(stage),
        artifact_uri=text(uri),
        params=_pairs(store, "params", run_id),
        tags=_pairs(store, "tags", run_id),
        metrics=summaries(store, [run_id]).get(run_id, {}),
        datasets=_datasets(store, run_id),
        models=_models(store, run_id),
        job=_job(store, run_id),
        **store.marks,
    )


def _pairs(store: Store, table: str, run_id: str) -> dict[str, str | None]:
    sql = f"SELECT key, value FROM {store.relations[table]} WHERE run_uuid = ? ORDER BY key"
    return {str(key): text(value) for key, value in store.rows(sql, [run_id])}


def _datasets(store: Store, run_id: str) -> list[DatasetInput]:
    relations = store.relations
    sql = (
        f"SELECT d.name, d.digest, c.value, d.dataset_source_type FROM {relations['inputs']} i "
        f"JOIN {relations['datasets']} d ON d.dataset_uuid = i.source_id "
        f"LEFT JOIN {relations['input_tags']} c ON c.input_uuid = i.input_uuid AND c.name = ? "
        "WHERE i.destination_id = ? ORDER BY d.name, d.digest, c.value"
    )
    return [
        DatasetInput(name=str(name), digest=str(digest), context=text(context), source_type=text(kind))
        for name, digest, context, kind in store.rows(sql, [CONTEXT_TAG, run_id])
    ]


def _models(store: Store, run_id: str) -> list[LoggedModel]:
    sql = (
        f"SELECT model_id, name, model_type FROM {store.relations['logged_models']} "
        "WHERE source_run_id = ? AND lifecycle_stage = 'active' ORDER BY creation_timestamp_ms, model_id"
    )
    return [LoggedModel(model_id=str(i), name=str(name), model_type=text(kind)) for i, name, kind in store.rows(sql, [run_id])]


def _job(store: Store, run_id: str) -> dict[str, Any] | None:
    if not store.job_join:
        return None
    columns = list(FACTS)
    sql = f"SELECT {', '.join(job_column(c) for c in columns)} FROM {store.relations['runs']} r {store.job_join} WHERE r.run_uuid = ?"
    [values] = store.rows(sql, [run_id])
    facts = {column: cell(value) for column, value in zip(columns, values, strict=True)}
    return facts if facts["job_id"] is not None else None


def _experiments(store: Store) -> Experiments:
    relations = store.relations
    tags: dict[int, dict[str, str | None]] = {}
    for identifier, key, value in store.rows(
        f"SELECT experiment_id, key, value FROM {relations['experiment_tags']} ORDER BY key"
    ):
        tags.setdefault(identifier, {})[str(key)] = text(value)
    sql = f"""
        SELECT x.experiment_id, x.name, x.artifact_location, x.lifecycle_stage, x.creation_time, x.last_update_time, n.runs
        FROM {relations["experiments"]} x
        LEFT JOIN (
            SELECT r.experiment_id AS id, count(*) AS runs FROM {relations["runs"]} r WHERE r.lifecycle_stage = 'active' GROUP BY 1
        ) n ON n.id = x.experiment_id
        WHERE x.lifecycle_stage = 'active'
        ORDER BY x.creation_time DESC, x.experiment_id DESC
    """
    items = [
        Experiment(
            experiment_id=str(identifier),
            name=str(name),
            artifact_location=text(location),
            lifecycle_stage=str(stage),
            creation_time=milliseconds(created),
            last_update_time=milliseconds(updated),
            tags=tags.get(identifier, {}),
            runs=runs or 0,
        )
        for identifier, name, location, stage, created, updated, runs in store.rows(sql)
    ]
    return Experiments(items=items, **store.marks)

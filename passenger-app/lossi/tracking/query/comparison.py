"""Compare runs: what differs, what is equal, and what other than the parameters may explain different results."""

# ruff: noqa: S608  (statements contain only names from this package; values are always bound)
from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from lossi.errors import InvalidInput
from lossi.projects import Project
from lossi.projects.facts import shown_in
from lossi.tracking.query.models import ComparedMetric, ComparedRun, Comparison, MetricSummary, Warning
from lossi.tracking.query.runs import missing_runs
from lossi.tracking.query.store import Store, read
from lossi.tracking.query.summaries import summaries
from lossi.tracking.query.values import Cell, cell, milliseconds, text

FACTS = {
    "source": "mlflow.source.name",
    "commit": "mlflow.source.git.commit",
    "dirty": "lossi.git_dirty",
    "environment": "lossi.environment",
    "variant": "lossi.environment_variant",
    "image_digest": "lossi.image_digest",
    "packages_sha256": "lossi.packages_sha256",
    "architecture": "lossi.architecture",
    "gpu_type": "lossi.gpu_type",
    "gpu_driver": "lossi.gpu_driver",
    "host": "lossi.host",
    "user": "mlflow.user",
}
"""Name of a fact → its tag."""
DATA_TAG = "lossi.dataset."
"""Prefix of tags with the revision of a dataset."""
SYSTEM_TAGS = ("mlflow.", "lossi.", "slurm.")

JOB_FACTS = shown_in("compared", "brief")
"""Facts of the tasks in a comparison."""
TASK_FACTS = ("gpu_type", "gpu_driver", "host")
"""Facts that the task has if the run has not logged them."""

Code = Literal["environment", "gpu_type", "gpu_driver", "architecture", "code"]
WARNED: dict[Code, tuple[tuple[str, ...], str]] = {
    "environment": (("environment", "variant", "image_digest", "packages_sha256"), "the software that the runs used differs"),
    "gpu_type": (("gpu_type",), "the runs used different GPUs"),
    "gpu_driver": (("gpu_driver",), "the GPU drivers differ"),
    "architecture": (("architecture",), "the runs used processors of different architectures"),
    "code": (("commit", "dirty"), "the code of the runs differs"),
}
"""Code of a warning → the facts it checks, and its message if one of them differs."""

Facts = dict[str, dict[str, Cell]]
"""Column → run id → value; runs without a value are left out."""


def compare(project: Project, run_ids: Sequence[str]) -> Comparison:
    """Compare any number of runs.

    Parameters
    ----------
    project
        The runs' project.
    run_ids
        Whole ids; the answer keeps their order and drops repeated ones.

    Raises
    ------
    InvalidInput
        If there is none.
    NotFound
        With the ids (`run_ids`) that the store does not have.
    Forbidden, Unavailable
        If the store cannot be read.
    """
    unique = list(dict.fromkeys(run_ids))
    if not unique:
        raise InvalidInput("no run to compare", hint="pass at least one run id; `lossi runs list` shows them")
    return read(project, lambda store: _compare(store, project, unique), with_jobs=True)


def _compare(store: Store, project: Project, run_ids: list[str]) -> Comparison:
    ids = json.dumps(run_ids)
    runs = _runs(store, project, run_ids, ids)
    task_facts = _task_facts(store, ids)
    facts = _facts(store, ids, task_facts)
    differing: dict[str, list[Cell]] = {}
    equal: dict[str, Cell] = {}
    for name, by_run in facts.items():
        values = [by_run.get(run_id) for run_id in run_ids]
        if len(set(values)) > 1:
            differing[name] = values
        else:
            equal[name] = values[0]
    return Comparison(
        runs=runs,
        differing=differing,
        equal=equal,
        metrics=_metrics(summaries(store, run_ids), run_ids),
        job=_job(task_facts, run_ids),
        warnings=_warnings(runs, differing, equal),
        **store.marks,
    )


def _runs(store: Store, project: Project, run_ids: list[str], ids: str) -> list[ComparedRun]:
    task = "l.job_id, l.task" if store.job_join else "NULL, NULL"
    sql = (
        f"SELECT r.run_uuid, r.name, x.name, r.status, r.start_time, r.end_time, {task} FROM {store.relations['runs']} r {store.job_join} "
        f"LEFT JOIN {store.relations['experiments']} x ON x.experiment_id = r.experiment_id "
        "WHERE r.run_uuid IN (SELECT value FROM json_each(?))"
    )
    by_id = {row[0]: row for row in store.rows(sql, [ids])}
    unknown = [run_id for run_id in run_ids if run_id not in by_id]
    if unknown:
        raise missing_runs(project, unknown)
    return [
        ComparedRun(
            run_id=run_id,
            run_name=text(name),
            experiment=text(experiment),
            status=text(status),
            start_time=milliseconds(start),
            end_time=milliseconds(end),
            job_id=job_id,
            task=number,
        )
        for run_id, name, experiment, status, start, end, job_id, number in (by_id[run_id] for run_id in run_ids)
    ]


def _facts(store: Store, ids: str, task_facts: Facts) -> Facts:
    """Return every comparable column, in the order of the answer: facts, params, data, tags."""
    relations = store.relations
    facts: Facts = {name: {} for name in FACTS}
    params: Facts = {}
    data: Facts = {}
    tags: Facts = {}
    fact_of_tag = {tag: name for name, tag in FACTS.items()}
    of_runs = "WHERE run_uuid IN (SELECT value FROM json_each(?)) ORDER BY key"
    for run_id, key, value in store.rows(f"SELECT run_uuid, key, value FROM {relations['params']} {of_runs}", [ids]):
        params.setdefault(f"params.{key}", {})[run_id] = text(value)
    for run_id, key, value in store.rows(f"SELECT run_uuid, key, value FROM {relations['tags']} {of_runs}", [ids]):
        if key in fact_of_tag:
            facts[fact_of_tag[key]][run_id] = text(value)
        elif str(key).startswith(DATA_TAG):
            data.setdefault(f"data.{str(key)[len(DATA_TAG) :]}", {})[run_id] = text(value)
        elif not str(key).startswith(SYSTEM_TAGS):
            tags.setdefault(f"tags.{key}", {})[run_id] = text(value)
    for name in TASK_FACTS:
        for run_id, value in task_facts.get(name, {}).items():
            if value is not None:
                facts[name].setdefault(run_id, value)
    _add_architecture(facts)
    data.update(_datasets(store, ids))
    return {name: by_run for name, by_run in {**facts, **params, **data, **tags}.items() if by_run}


def _task_facts(store: Store, ids: str) -> Facts:
    """Return the facts of the runs' tasks."""
    if not store.job_join:
        return {}
    names = list(dict.fromkeys((*JOB_FACTS, *TASK_FACTS)))
    sql = (
        f"SELECT r.run_uuid, {', '.join(f't.{name}' for name in names)} FROM {store.relations['runs']} r {store.job_join} "
        "WHERE r.run_uuid IN (SELECT value FROM json_each(?))"
    )
    rows = store.rows(sql, [ids])
    return {name: {row[0]: cell(row[place]) for row in rows} for place, name in enumerate(names, 1)}


def _job(task_facts: Facts, run_ids: list[str]) -> dict[str, list[Cell]]:
    """Return the facts of the tasks that at least one run has."""
    columns = {name: [by_run.get(run_id) for run_id in run_ids] for name, by_run in task_facts.items() if name in JOB_FACTS}
    return {name: values for name, values in columns.items() if any(value not in (None, "") for value in values)}


def _add_architecture(facts: Facts) -> None:
    # A variant of an image is named <architecture>-<accelerator>.
    for run_id, variant in facts["variant"].items():
        architecture, dash, _ = str(variant).rpartition("-")
        if dash:
            facts["architecture"].setdefault(run_id, architecture)


def _datasets(store: Store, ids: str) -> Facts:
    sql = (
        f"SELECT DISTINCT i.destination_id, d.name, d.digest FROM {store.relations['inputs']} i "
        f"JOIN {store.relations['datasets']} d ON d.dataset_uuid = i.source_id "
        "WHERE i.destination_id IN (SELECT value FROM json_each(?)) ORDER BY d.name, d.digest"
    )
    datasets: Facts = {}
    for run_id, name, digest in store.rows(sql, [ids]):
        digests = datasets.setdefault(f"datasets.{name}", {})
        digests[run_id] = f"{digests[run_id]}, {digest}" if run_id in digests else str(digest)
    return datasets


def _metrics(by_run: dict[str, dict[str, MetricSummary]], run_ids: list[str]) -> dict[str, ComparedMetric]:
    none = MetricSummary()
    result: dict[str, ComparedMetric] = {}
    for key in sorted({key for by_key in by_run.values() for key in by_key}):
        values = [by_run.get(run_id, {}).get(key, none) for run_id in run_ids]
        result[key] = ComparedMetric(
            last=[value.last for value in values],
            last_step=[value.last_step for value in values],
            min=[value.min for value in values],
            min_step=[value.min_step for value in values],
            max=[value.max for value in values],
            max_step=[value.max_step for value in values],
            differs=len({value.last for value in values}) > 1,
        )
    return result


def _warnings(runs: list[ComparedRun], differing: dict[str, list[Cell]], equal: dict[str, Cell]) -> list[Warning]:
    result: list[Warning] = []
    for code, (names, message) in WARNED.items():
        facts = [name for name in names if name in differing]
        if facts:
            result.append(Warning(code=code, message=f"{message}: {_count_values(facts[0], differing[facts[0]])}", facts=facts))
    if (
        not any(warning.code == "code" for warning in result)
        and equal.get("dirty") == "true"
        and len({run.job_id for run in runs}) > 1
    ):
        message = "all runs had uncommitted changes, which may not be the same in different jobs"
        result.append(Warning(code="code", message=message, facts=["dirty"]))
    return result


def _count_values(name: str, values: list[Cell]) -> str:
    """Return for example ``environment sklearn (3 runs), pytorch (1 run)``."""
    counts = Counter("not recorded" if value is None else str(value) for value in values).most_common()
    shown = [f"{value} ({number} run{'s' if number > 1 else ''})" for value, number in counts[:5]]
    more = f" and {len(counts) - 5} more" if len(counts) > 5 else ""
    return f"{name.replace('_', ' ')} {', '.join(shown)}{more}"

"""Merge snapshots into the project's store: the order of steps inside one transaction.

The connection has the store as ``main`` and the project's index attached as ``lossi``; the caller begins and commits. Every step
may be repeated, with the same, an older or a newer snapshot of the same task.
"""

from __future__ import annotations

from collections.abc import Sequence

from lossi.tracking.ingest import merge_entities, merge_runs
from lossi.tracking.ingest.incoming import IncomingSnapshot
from lossi.tracking.ingest.ledger import Ledger
from lossi.tracking.ingest.merge_experiments import StoreExperiments
from lossi.tracking.ingest.merge_registry import merge_registries
from lossi.tracking.ingest.template import EXPERIMENT_TABLES, REGISTRY_TABLES
from lossi.tracking.ingest.writer import Writer

TABLES = frozenset((*EXPERIMENT_TABLES, *REGISTRY_TABLES, *merge_runs.TABLES, *merge_entities.TABLES))
"""Every table that is merged."""
DERIVED = frozenset(
    (
        "alembic_version",
        "workspaces",
        "sql_trace_metric_daily_rollups",
        "sql_span_cost_daily_rollups",
        "sql_assessment_daily_rollups",
        "sql_trace_rollup_rebuild_queue",
        "scheduler_leases",
        "job_locks",
    )
)
"""Tables of MLflow's own housekeeping: every store makes its own."""
EXPERIMENT_USERS = (
    ("runs", "run_uuid"),
    ("logged_models", "model_id"),
    ("trace_info", "request_id"),
    ("scorers", "scorer_id"),
    ("issues", "issue_id"),
    ("label_schemas", "schema_id"),
    ("review_queues", "queue_id"),
)
"""Tables with experiment ids whose rows keep an experiment alive: (table, id column)."""


def merge(writer: Writer, ledger: Ledger, snapshots: Sequence[IncomingSnapshot]) -> None:
    """Merge snapshots inside the transaction that the caller began."""
    experiments = StoreExperiments(writer, ledger)
    merge_registries(writer, ledger, snapshots)
    for snapshot in snapshots:
        _merge_one(writer, ledger, experiments, snapshot)


def _merge_one(writer: Writer, ledger: Ledger, experiments: StoreExperiments, snapshot: IncomingSnapshot) -> None:
    job_id, task = snapshot.task.job_id, snapshot.task.task
    stored, ingested = merge_runs.find_removed(writer, ledger, snapshot)
    entities = merge_entities.find_removed(writer, snapshot)
    experiments.merge(snapshot, lambda: _used_experiments(snapshot))
    merge_runs.merge(writer, ledger, snapshot, stored, ingested)
    merge_entities.merge(writer, snapshot, entities)
    snapshot.unmerged.update(set(snapshot.contents.others) - DERIVED)
    ledger.store_base(job_id, task, snapshot.base, final=snapshot.final)
    ledger.assign_runs(job_id, task, _runs_in_order(snapshot))
    merge_runs.merge_metrics(writer, snapshot)
    ledger.record_snapshot(job_id, task, snapshot.file.seq, snapshot.file.digest, final=snapshot.final)


def _used_experiments(snapshot: IncomingSnapshot) -> set[int]:
    """Return the experiments, by their id in the snapshot, of everything that was not removed for good."""
    return {
        experiment
        for table, column in EXPERIMENT_USERS
        for own, experiment in snapshot.contents.rows(table, column, "experiment_id")
        if own not in snapshot.removed_from(table)
    }


def _runs_in_order(snapshot: IncomingSnapshot) -> list[str]:
    """Return the runs of a task, those in its exit record first."""
    merged = set(snapshot.runs)
    recorded = [run_id for run_id in snapshot.task.run_ids() if run_id in merged] if snapshot.task.final else []
    return list(dict.fromkeys([*recorded, *snapshot.runs]))

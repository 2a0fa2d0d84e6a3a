"""Merging snapshots into the project's store: the order of things, inside one transaction.

Room: tracking. Works on a connection on which the store is ``main`` and the project's index is attached as ``lossi``; the caller
begins and commits. Everything here may be repeated: the same snapshot, an older or a newer one of the same task.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence

from lossi.tracking.ingest import merge_entities, merge_runs
from lossi.tracking.ingest.delivery import Delivery
from lossi.tracking.ingest.ledger import Ledger
from lossi.tracking.ingest.merge_registry import Registry
from lossi.tracking.ingest.merge_shared import Experiments
from lossi.tracking.ingest.seed import EXPERIMENT_TABLES, REGISTRY_TABLES
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


class Merger:
    """Merges snapshots through one connection.

    Parameters
    ----------
    step
        Called between portions of many rows; may commit and begin anew.
    """

    def __init__(self, connection: sqlite3.Connection, step: Callable[[], None]) -> None:
        self.ledger = Ledger(connection, "lossi")
        self._writer = Writer(connection, step)

    def merge(self, deliveries: Sequence[Delivery]) -> None:
        """Merge snapshots, inside the transaction that the caller began."""
        experiments = Experiments(self._writer, self.ledger)
        Registry(self._writer, self.ledger).merge(deliveries)
        for delivery in deliveries:
            self._merge_one(experiments, delivery)

    def _merge_one(self, experiments: Experiments, delivery: Delivery) -> None:
        writer, ledger, found = self._writer, self.ledger, delivery.found
        stored, taken = merge_runs.find_dead(writer, ledger, delivery)
        entities = merge_entities.find_dead(writer, delivery)
        experiments.merge(delivery, lambda: _used_experiments(delivery))
        merge_runs.merge(writer, ledger, delivery, stored, taken)
        merge_entities.merge(writer, delivery, entities)
        delivery.unmerged.update(set(delivery.contents.others) - DERIVED)
        ledger.keep(found.job_id, found.task, delivery.base, final=delivery.final)
        ledger.place_runs(found.job_id, found.task, _placed(delivery))
        merge_runs.merge_metrics(writer, delivery)
        ledger.taken(found.job_id, found.task, delivery.file.seq, delivery.file.digest, final=delivery.final)


def _used_experiments(delivery: Delivery) -> set[int]:
    """Return the experiments, by their id in the snapshot, of everything that is not removed for good."""
    return {
        experiment
        for table, column in EXPERIMENT_USERS
        for own, experiment in delivery.contents.rows(table, column, "experiment_id")
        if own not in delivery.gone(table)
    }


def _placed(delivery: Delivery) -> list[str]:
    """Return the runs of a task, those first that its exit record names."""
    named = [run for run in (delivery.found.run_ids() if delivery.found.final else []) if run in set(delivery.runs)]
    return list(dict.fromkeys([*named, *delivery.runs]))

"""Merge everything else that a run may log: models, traces, evaluation datasets, scorers, reviews.

Ids are kept, those of experiments replaced by the store's. What was removed from the store while its task was running does not
return. A row that cannot be merged, because the store has another of the same name, is reported.
"""

# ruff: noqa: S608  (names of tables and columns are constants of this package; values are bound)
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lossi.tracking.ingest.incoming import IncomingSnapshot
from lossi.tracking.ingest.merge_runs import merge_tags
from lossi.tracking.ingest.snapshots import Row, quoted
from lossi.tracking.ingest.writer import OnConflict, Writer, insertion


@dataclass(frozen=True)
class MergedTable:
    """A table of mlflow/store/tracking/dbmodels/models.py.

    Attributes
    ----------
    id
        Column of the rows' id, if they have one.
    changed
        Column with the time of the last change: the newer side wins. Without it the snapshot wins.
    parents
        (column, table): what the rows belong to.
    """

    table: str
    id: str = ""
    changed: str | None = None
    parents: tuple[tuple[str, str], ...] = ()
    on_conflict: OnConflict = OnConflict.REPLACE


@dataclass(frozen=True)
class Tags:
    """A table of tags, which people may edit as well."""

    table: str
    owner: tuple[str, str]
    key: str = "key"
    value: str = "value"


TRACE = ("request_id", "trace_info")
SPAN = ("trace_id", "trace_info")
MODEL = ("model_id", "logged_models")
DATASET = ("dataset_id", "evaluation_datasets")
SCORER = ("scorer_id", "scorers")
QUEUE = ("queue_id", "review_queues")

COPIED = (
    MergedTable("logged_models", "model_id", "last_updated_timestamp_ms"),
    MergedTable("trace_info", "request_id"),
    MergedTable("assessments", "assessment_id", "last_updated_timestamp", (SPAN,)),
    MergedTable("logged_model_params", parents=(MODEL,), on_conflict=OnConflict.KEEP),
    MergedTable("logged_model_metrics", parents=(MODEL, ("run_id", "runs")), on_conflict=OnConflict.KEEP),
    MergedTable("trace_request_metadata", parents=(TRACE,)),
    MergedTable("trace_metrics", parents=(TRACE,)),
    MergedTable("spans", parents=(SPAN,)),
    MergedTable("span_metrics", parents=(SPAN,)),
)
TAGS = (
    Tags("logged_model_tags", MODEL, "tag_key", "tag_value"),
    Tags("trace_tags", TRACE),
)
ROLLUPS = {
    "trace_metric": "sql_trace_metric_daily_rollups",
    "span_cost": "sql_span_cost_daily_rollups",
    "assessment": "sql_assessment_daily_rollups",
}
"""Family → table of MLflow's daily sums (mlflow/store/tracking/utils/sql_trace_rollups.py), which late traces invalidate."""

NAMED = (
    MergedTable("evaluation_datasets", "dataset_id", "last_update_time"),
    MergedTable("evaluation_dataset_records", "dataset_record_id", "last_update_time", (DATASET,)),
    MergedTable("evaluation_dataset_tags", parents=(DATASET,)),
    MergedTable("scorers", "scorer_id"),
    MergedTable("scorer_versions", parents=(SCORER,)),
    MergedTable("online_scoring_configs", "online_scoring_config_id", parents=(SCORER,)),
    MergedTable("issues", "issue_id", "last_updated_timestamp"),
    MergedTable("label_schemas", "schema_id", "last_update_time"),
    MergedTable("review_queues", "queue_id", "last_update_time_ms"),
    MergedTable("review_queue_users", parents=(QUEUE,)),
    MergedTable("review_queue_items", "", "last_update_time_ms", (QUEUE,)),
    MergedTable("review_queue_label_schemas", parents=(QUEUE, ("schema_id", "label_schemas"))),
)
"""Tables whose rows are added one by one, parents first, because the store may have another row of the same name."""

TABLES = ("entity_associations", *(item.table for item in (*COPIED, *TAGS, *NAMED)))


def find_removed(writer: Writer, snapshot: IncomingSnapshot) -> dict[str, set[str]]:
    """Note what was removed from the store since this task was last ingested; return what the store has, by table."""
    stored: dict[str, set[str]] = {}
    for merged in (*COPIED, *NAMED):
        if merged.id and merged.table in snapshot.contents.tables:
            ids = [str(own) for (own,) in snapshot.contents.rows(merged.table, merged.id)]
            stored[merged.table] = writer.present(merged.table, merged.id, ids)
            removed = {own for own in ids if own not in stored[merged.table] and snapshot.base.has(merged.table, own)}
            snapshot.removed[merged.table] = removed
            for own in ids:
                snapshot.base.remember(merged.table, own)
    return stored


def merge(writer: Writer, snapshot: IncomingSnapshot, stored: dict[str, set[str]]) -> None:
    """Merge all of these tables."""
    for merged in COPIED:
        parents = [(merged.id, merged.table), *merged.parents] if merged.id else merged.parents
        deleted = _deleted(writer, stored.get(merged.table, set())) if merged.table == "logged_models" else []
        snapshot.copy(writer, merged.table, merged.on_conflict, parents=parents, unless_newer=merged.changed)
        writer.sql.executemany("UPDATE main.logged_models SET lifecycle_stage = 'deleted' WHERE model_id = ?", deleted)
    for tags in TAGS:
        _merge_tags(writer, snapshot, tags, stored)
    _merge_associations(writer, snapshot)
    if "trace_info" in snapshot.contents.tables:
        _rebuild_rollups(writer, snapshot)
    for merged in NAMED:
        _merge_named(writer, snapshot, merged)


def _deleted(writer: Writer, models: set[str]) -> list[tuple[str]]:
    """Return the models that were deleted in the store and stay deleted."""
    sql = "SELECT model_id FROM main.logged_models WHERE model_id = ? AND lifecycle_stage = 'deleted'"
    return [(model,) for model in models if writer.rows(sql, model)]


def _merge_tags(writer: Writer, snapshot: IncomingSnapshot, tags: Tags, stored: dict[str, set[str]]) -> None:
    column, table = tags.owner
    if table not in snapshot.contents.tables:
        return
    experiments: dict[str, int] = dict(snapshot.contents.rows(table, column, "experiment_id"))
    owners = [owner for owner in experiments if owner not in snapshot.removed_from(table)]
    further = None
    if "experiment_id" in writer.columns.get(tags.table, []):
        further = {owner: {"experiment_id": snapshot.experiments.get(experiments[owner])} for owner in owners}
    if owners:
        merge_tags(writer, snapshot, tags.table, column, owners, stored.get(table, set()), tags.key, tags.value, further)


def _merge_associations(writer: Writer, snapshot: IncomingSnapshot) -> None:
    """Merge links between traces, runs, experiments, datasets and prompts (mlflow/entities/entity_type.py)."""
    source = snapshot.contents.tables.get("entity_associations")
    if source is None:
        return
    columns = writer.shared_columns("entity_associations", source.columns)
    rows: list[Row] = []
    for record in source.records():
        for side in ("source", "destination"):
            record[f"{side}_id"] = _association_id(snapshot, record[f"{side}_type"], record[f"{side}_id"])
        if record["source_id"] is not None and record["destination_id"] is not None:
            rows.append(tuple(record[column] for column in columns))
    writer.write("entity_associations", columns, rows)


def _association_id(snapshot: IncomingSnapshot, kind: str, own: str) -> str | None:
    """Return the id of one side of a link in the store, None if it must not return."""
    tables = {"run": "runs", "trace": "trace_info", "model": "logged_models", "evaluation_dataset": "evaluation_datasets"}
    if kind in tables:
        return None if own in snapshot.removed_from(tables[kind]) else own
    if kind == "experiment" and own.isdigit():
        number = snapshot.experiments.get(int(own))
        return None if number is None else str(number)
    if kind == "prompt_version":
        name, _, version = own.rpartition("/")
        number = snapshot.versions.get((name, version), -1)
        return own if number == -1 else None if number is None else f"{name}/{number}"
    return own


def _rebuild_rollups(writer: Writer, snapshot: IncomingSnapshot) -> None:
    """Let MLflow rebuild the daily sums of the experiments that got traces."""
    experiments = {snapshot.experiments.get(own) for (own,) in snapshot.contents.rows("trace_info", "experiment_id")}
    for family, table in ROLLUPS.items():
        if table not in writer.columns:
            continue
        for experiment in experiments:
            writer.sql.execute(
                "INSERT INTO main.sql_trace_rollup_rebuild_queue (experiment_id, rollup_day, rollup_family)"
                f" SELECT DISTINCT experiment_id, rollup_day, ? FROM main.{table} WHERE experiment_id = ? ON CONFLICT DO NOTHING",
                (family, experiment),
            )


def _merge_named(writer: Writer, snapshot: IncomingSnapshot, merged: MergedTable) -> None:
    """Add rows one by one; report a row if the store has another of its name, or of its parent's name."""
    source = snapshot.contents.tables.get(merged.table)
    if source is None:
        return
    columns = writer.shared_columns(merged.table, source.columns)
    key = writer.key(merged.table)
    if not columns or not key:
        snapshot.unmerged.add(merged.table)
        return
    for record in source.records():
        if any(record[column] in snapshot.removed_from(parent) for column, parent in merged.parents):
            continue
        if merged.id and record[merged.id] in snapshot.removed_from(merged.table):
            continue
        if "experiment_id" in record:
            record["experiment_id"] = snapshot.experiment_id(record["experiment_id"])
        writer.sql.execute(f"{insertion(merged.table, columns)} ON CONFLICT DO NOTHING", [record[column] for column in columns])
        condition = " AND ".join(f"{quoted(column)} = ?" for column in key)
        own = [record[column] for column in key]
        if not writer.rows(f"SELECT 1 FROM main.{merged.table} WHERE {condition}", *own):
            snapshot.unmerged.add(merged.table)
            if merged.id:
                snapshot.removed[merged.table].add(str(record[merged.id]))
                snapshot.base.following.pop((merged.table, str(record[merged.id])), None)
        elif merged.changed is not None:
            _update_if_older(writer, merged, columns, record, condition, own)


def _update_if_older(
    writer: Writer, merged: MergedTable, columns: Sequence[str], record: dict[str, object], condition: str, own: list[object]
) -> None:
    settings = ", ".join(f"{quoted(column)} = ?" for column in columns)
    stamp = quoted(str(merged.changed))
    writer.sql.execute(
        f"UPDATE main.{merged.table} SET {settings} WHERE {condition} AND {stamp} < ?",
        [*(record[column] for column in columns), *own, record[str(merged.changed)]],
    )

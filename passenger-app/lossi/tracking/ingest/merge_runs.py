"""Merge runs with their tags, parameters and metrics, and the datasets and models that are their inputs and outputs.

Run ids are kept. What a person did to a run in the store wins: a removed run never returns, a deleted one stays deleted, an
edited name or tag stays edited.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lossi.tracking.ingest.incoming import VERSION_TAGS, IncomingSnapshot
from lossi.tracking.ingest.ledger import Ledger, Values, chunks
from lossi.tracking.ingest.snapshots import Row, quoted
from lossi.tracking.ingest.three_way import StoredValues, changes, merge_run
from lossi.tracking.ingest.writer import OnConflict, Writer

FACTS = ("name", "status", "end_time", "lifecycle_stage", "deleted_time")
"""Columns of a run that can be changed in the store as well."""
TABLES = ("runs", "tags", "params", "metrics", "latest_metrics", "datasets", "inputs", "input_tags")


def find_removed(writer: Writer, ledger: Ledger, snapshot: IncomingSnapshot) -> tuple[dict[str, Values], dict[str, Values]]:
    """Note the runs that were removed from the store; return the facts of the others in the store and in the ledger."""
    ids = [run_id for (run_id,) in snapshot.contents.rows("runs", "run_uuid")]
    stored: dict[str, Values] = {}
    for marks, part in chunks(ids):
        sql = f"SELECT run_uuid, {', '.join(FACTS)} FROM main.runs WHERE run_uuid IN ({marks})"  # noqa: S608
        for run_id, *facts in writer.sql.execute(sql, part):
            stored[run_id] = dict(zip(FACTS, facts, strict=True))
    ingested = ledger.runs(ids)
    snapshot.removed["runs"] = {run_id for run_id in ids if run_id in ingested and run_id not in stored}
    return stored, ingested


def merge(
    writer: Writer, ledger: Ledger, snapshot: IncomingSnapshot, stored: Mapping[str, Values], ingested: Mapping[str, Values]
) -> None:
    """Merge the runs of a snapshot and everything that belongs to them, but the points of metrics."""
    records = [r for r in snapshot.contents.records("runs") if r["run_uuid"] not in snapshot.removed_from("runs")]
    snapshot.runs = [r["run_uuid"] for r in sorted(records, key=lambda r: (r["start_time"] or 0, r["run_uuid"]))]
    _merge_runs(writer, snapshot, records, stored, ingested)
    ledger.record_runs([(r["run_uuid"], r["name"], r["status"], r["end_time"], r["lifecycle_stage"]) for r in records])
    merge_tags(writer, snapshot, "tags", "run_uuid", [r["run_uuid"] for r in records], set(stored))
    parents = [("run_uuid", "runs")]
    snapshot.copy(writer, "params", parents=parents)
    snapshot.copy(writer, "latest_metrics", OnConflict.KEEP_LATEST, parents=parents)
    _merge_datasets(writer, snapshot)
    _merge_inputs(writer, snapshot)
    if not snapshot.final:
        snapshot.base.remember_metrics_mark(snapshot.contents.mark)


def merge_metrics(writer: Writer, snapshot: IncomingSnapshot) -> None:
    """Merge the points of metrics; last, because there may be millions and others get a turn in between."""
    snapshot.copy(writer, "metrics", parents=[("run_uuid", "runs")])


def _merge_runs(
    writer: Writer,
    snapshot: IncomingSnapshot,
    records: Iterable[dict[str, Any]],
    stored: Mapping[str, Values],
    ingested: Mapping[str, Values],
) -> None:
    source = snapshot.contents.tables.get("runs")
    columns = writer.shared_columns("runs", source.columns) if source else []
    rows = []
    for record in records:
        row = {**record, "experiment_id": snapshot.experiment_id(record["experiment_id"])}
        ours = stored.get(record["run_uuid"])
        if ours is not None:
            row.update(merge_run(record, ingested.get(record["run_uuid"]), ours))
        rows.append(tuple(row[column] for column in columns))
    if rows:
        writer.write("runs", columns, rows, OnConflict.REPLACE, kept=("experiment_id",))


def merge_tags(
    writer: Writer,
    snapshot: IncomingSnapshot,
    table: str,
    owner_column: str,
    owners: Iterable[str],
    existing: set[str],
    key: str = "key",
    value: str = "value",
    further: Mapping[str, Mapping[str, object]] | None = None,
) -> None:
    """Merge tags of owners that belong to one task: all of a new owner's, the changed ones of an existing one.

    Parameters
    ----------
    writer, snapshot
        To where and from where.
    table, owner_column, key, value
        The table of tags and its columns.
    owners, existing
        Owners to merge, and those of them that the store had before.
    further
        Owner → further columns of its rows.
    """
    tags: dict[str, Values] = {owner: {} for owner in owners}
    for owner, name, text in snapshot.contents.rows(table, owner_column, key, value):
        if owner in tags:
            tags[owner][name] = snapshot.renumbered(text) if name in VERSION_TAGS else text
    rows: list[Row] = []
    for owner, values in tags.items():
        where = {owner_column: owner, **(further or {}).get(owner, {})}
        if owner in existing:
            stored = StoredValues(table, where, key, value)
            for name, text in changes(values, snapshot.base.of(table, owner), stored.read(writer) or {}).items():
                stored.write(writer, name, text)
        else:
            rows += [(*where.values(), name, text) for name, text in values.items()]
        if not snapshot.final:
            snapshot.base.remember(table, owner, values)
    if rows:
        columns = [owner_column, *next(iter((further or {"": {}}).values())), key, value]
        writer.write(table, columns, rows)


def _merge_datasets(writer: Writer, snapshot: IncomingSnapshot) -> None:
    """Merge datasets: one row for each (experiment, name, digest), whatever its id in each task."""
    snapshot.copy(writer, "datasets")
    for own, experiment, name, digest in snapshot.contents.rows("datasets", "dataset_uuid", "experiment_id", "name", "digest"):
        stored = writer.rows(
            "SELECT dataset_uuid FROM main.datasets WHERE experiment_id = ? AND name = ? AND digest = ?",
            snapshot.experiments.get(experiment),
            name,
            digest,
        )
        if stored and stored[0][0] != own:
            snapshot.datasets[own] = stored[0][0]


def _merge_inputs(writer: Writer, snapshot: IncomingSnapshot) -> None:
    """Merge inputs and outputs of runs and models; a row that the store has keeps its id and gets the tags."""
    source = snapshot.contents.tables.get("inputs")
    if source is None:
        return
    columns = writer.shared_columns("inputs", source.columns)
    key = writer.key("inputs")
    removed = snapshot.removed_from("runs") | snapshot.removed_from("logged_models")
    ids: dict[str, str] = {}
    for record in source.records():
        if record["source_id"] in removed or record["destination_id"] in removed:
            continue
        own = record["input_uuid"]
        for column in ("source_id", "destination_id"):
            record[column] = snapshot.datasets.get(record[column], record[column])
        writer.write("inputs", columns, [tuple(record[column] for column in columns)])
        condition = " AND ".join(f"{quoted(column)} = ?" for column in key)
        sql = f"SELECT input_uuid FROM main.inputs WHERE {condition}"  # noqa: S608
        ids[own] = writer.rows(sql, *(record[column] for column in key))[0][0]
    rows = [
        (ids[own], name, text)
        for own, name, text in snapshot.contents.rows("input_tags", "input_uuid", "name", "value")
        if ids.get(own)
    ]
    if rows:
        writer.write("input_tags", ["input_uuid", "name", "value"], rows)

"""Merging runs with their tags, parameters and metrics, and the datasets and models that they name as inputs and outputs.

Room: tracking. Run ids are kept. What a person did to a run in the store wins: a run that was removed never returns, a deleted
one stays deleted, an edited name or tag stays edited.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lossi.tracking.ingest.delivery import VERSION_TAGS, Delivery
from lossi.tracking.ingest.ledger import Ledger, Values, chunks, mark_to_values
from lossi.tracking.ingest.merge_shared import Place
from lossi.tracking.ingest.settle import settled, settled_run
from lossi.tracking.ingest.snapshots import Row, quoted
from lossi.tracking.ingest.writer import How, Writer

FACTS = ("name", "status", "end_time", "lifecycle_stage", "deleted_time")
"""Columns of a run that can be changed in the store as well."""
TABLES = ("runs", "tags", "params", "metrics", "latest_metrics", "datasets", "inputs", "input_tags")


def find_dead(writer: Writer, ledger: Ledger, delivery: Delivery) -> tuple[dict[str, Values], dict[str, Values]]:
    """Note the runs that were removed from the store; return what the store and the ledger have of the others."""
    ids = [run_id for (run_id,) in delivery.contents.rows("runs", "run_uuid")]
    stored: dict[str, Values] = {}
    for marks, part in chunks(ids):
        sql = f"SELECT run_uuid, {', '.join(FACTS)} FROM main.runs WHERE run_uuid IN ({marks})"  # noqa: S608
        for run_id, *facts in writer.sql.execute(sql, part):
            stored[run_id] = dict(zip(FACTS, facts, strict=True))
    taken = ledger.runs(ids)
    delivery.dead["runs"] = {run_id for run_id in ids if run_id in taken and run_id not in stored}
    return stored, taken


def merge(writer: Writer, ledger: Ledger, delivery: Delivery, stored: Mapping[str, Values], taken: Mapping[str, Values]) -> None:
    """Merge the runs of a snapshot and everything that hangs on them."""
    records = [r for r in delivery.contents.records("runs") if r["run_uuid"] not in delivery.gone("runs")]
    delivery.runs = [r["run_uuid"] for r in sorted(records, key=lambda r: (r["start_time"] or 0, r["run_uuid"]))]
    _merge_runs(writer, delivery, records, stored, taken)
    ledger.took_runs([(r["run_uuid"], r["name"], r["status"], r["end_time"], r["lifecycle_stage"]) for r in records])
    merge_tags(writer, delivery, "tags", "run_uuid", [r["run_uuid"] for r in records], set(stored))
    parents = [("run_uuid", "runs")]
    delivery.copy(writer, "params", parents=parents)
    delivery.copy(writer, "latest_metrics", How.LATEST, parents=parents)
    _merge_datasets(writer, delivery)
    _merge_inputs(writer, delivery)
    if not delivery.final:
        delivery.base.remember("metrics", "", mark_to_values(delivery.contents.mark))


def merge_metrics(writer: Writer, delivery: Delivery) -> None:
    """Merge the points of metrics; last, because there may be millions and others get a turn in between."""
    delivery.copy(writer, "metrics", parents=[("run_uuid", "runs")])


def _merge_runs(
    writer: Writer,
    delivery: Delivery,
    records: Iterable[dict[str, Any]],
    stored: Mapping[str, Values],
    taken: Mapping[str, Values],
) -> None:
    source = delivery.contents.tables.get("runs")
    columns = writer.shared_columns("runs", source.columns) if source else []
    rows = []
    for record in records:
        row = {**record, "experiment_id": delivery.experiments.get(record["experiment_id"], record["experiment_id"])}
        ours = stored.get(record["run_uuid"])
        if ours is not None:
            row.update(settled_run(record, taken.get(record["run_uuid"]), ours))
        rows.append(tuple(row[column] for column in columns))
    if rows:
        writer.write("runs", columns, rows, How.REPLACE, kept=("experiment_id",))


def merge_tags(
    writer: Writer,
    delivery: Delivery,
    table: str,
    owner_column: str,
    owners: Iterable[str],
    existing: set[str],
    key: str = "key",
    value: str = "value",
    further: Mapping[str, Mapping[str, object]] | None = None,
) -> None:
    """Merge tags of things that belong to one task: all of a new owner's, the changed ones of one that is there.

    Parameters
    ----------
    writer, delivery
        Where to and where from.
    table, owner_column, key, value
        The table of tags and its columns.
    owners
        Those whose tags are wanted.
    existing
        Those of them that the store had before.
    further
        Further columns of each owner's rows.
    """
    tags: dict[str, Values] = {owner: {} for owner in owners}
    for owner, name, text in delivery.contents.rows(table, owner_column, key, value):
        if owner in tags:
            tags[owner][name] = delivery.renumbered(text) if name in VERSION_TAGS else text
    rows: list[Row] = []
    for owner, values in tags.items():
        where = {owner_column: owner, **(further or {}).get(owner, {})}
        if owner in existing:
            place = Place(table, where, key, value)
            for name, text in settled(values, delivery.base.of(table, owner), place.read(writer) or {}).items():
                place.write(writer, name, text)
        else:
            rows += [(*where.values(), name, text) for name, text in values.items()]
        if not delivery.final:
            delivery.base.remember(table, owner, values)
    if rows:
        columns = [owner_column, *next(iter((further or {"": {}}).values())), key, value]
        writer.write(table, columns, rows)


def _merge_datasets(writer: Writer, delivery: Delivery) -> None:
    """Merge datasets: one row for each (experiment, name, digest), whatever id it had in each task."""
    delivery.copy(writer, "datasets")
    for own, experiment, name, digest in delivery.contents.rows("datasets", "dataset_uuid", "experiment_id", "name", "digest"):
        found = writer.rows(
            "SELECT dataset_uuid FROM main.datasets WHERE experiment_id = ? AND name = ? AND digest = ?",
            delivery.experiments.get(experiment),
            name,
            digest,
        )
        if found and found[0][0] != own:
            delivery.datasets[own] = found[0][0]


def _merge_inputs(writer: Writer, delivery: Delivery) -> None:
    """Merge what runs and models use and make; the row that is there already keeps its id, and gets the tags."""
    source = delivery.contents.tables.get("inputs")
    if source is None:
        return
    columns = writer.shared_columns("inputs", source.columns)
    key = writer.key("inputs")
    gone = delivery.gone("runs") | delivery.gone("logged_models")
    names: dict[str, str] = {}
    for record in source.records():
        if record["source_id"] in gone or record["destination_id"] in gone:
            names[record["input_uuid"]] = ""
            continue
        for column in ("source_id", "destination_id"):
            record[column] = delivery.datasets.get(record[column], record[column])
        writer.write("inputs", columns, [tuple(record[column] for column in columns)])
        condition = " AND ".join(f"{quoted(column)} = ?" for column in key)
        sql = f"SELECT input_uuid FROM main.inputs WHERE {condition}"  # noqa: S608
        names[record["input_uuid"]] = writer.rows(sql, *(record[column] for column in key))[0][0]
    rows = [
        (names[own], name, text)
        for own, name, text in delivery.contents.rows("input_tags", "input_uuid", "name", "value")
        if names.get(own)
    ]
    if rows:
        writer.write("input_tags", ["input_uuid", "name", "value"], rows)

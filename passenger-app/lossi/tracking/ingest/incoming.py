"""A snapshot that is being merged: its contents, and what its ids are in the store."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from lossi.tracking.ingest.ledger import Base
from lossi.tracking.ingest.scan import PendingTask, SnapshotFile
from lossi.tracking.ingest.snapshots import Contents, Row
from lossi.tracking.ingest.template import Template
from lossi.tracking.ingest.writer import OnConflict, Writer

VERSION_TAGS = frozenset(("mlflow.modelVersions", "mlflow.linkedPrompts"))
"""Tags whose value is a JSON list of objects with the name and version of a registered model or prompt (MLflow 3.17)."""


@dataclass
class IncomingSnapshot:
    """A snapshot and the state of its merge.

    Attributes
    ----------
    final
        The task has ended: no snapshot follows.
    experiments
        Experiment id in the snapshot → in the store; None for one that the store no longer has.
    datasets
        Dataset id in the snapshot → in the store, if they differ.
    versions
        (registered model, version in the snapshot) → version in the store; None for one that the store no longer has.
    removed
        Table → ids that were removed from the store for good and must not return.
    unmerged
        Tables with rows that could not be merged.
    runs
        Merged runs, by start time.
    """

    task: PendingTask
    file: SnapshotFile
    contents: Contents
    final: bool
    base: Base = field(init=False)
    template: Template = field(init=False)
    experiments: dict[int, int | None] = field(init=False)
    datasets: dict[str, str] = field(init=False)
    versions: dict[tuple[str, str], int | None] = field(init=False)
    removed: dict[str, set[str]] = field(init=False)
    unmerged: set[str] = field(init=False)
    runs: list[str] = field(init=False)

    def start(self, base: Base, template: Template) -> None:
        """Start (or restart) the merge."""
        self.base, self.template = base, template
        base.seed = template.values
        self.experiments, self.datasets, self.versions = {}, {}, {}
        self.removed, self.unmerged, self.runs = {}, set(), []

    def removed_from(self, table: str) -> set[str]:
        """Return the ids of a table that must not return."""
        return self.removed.get(table, set())

    def experiment_id(self, own: int) -> int | None:
        """Return the id of an experiment in the store; its own if it has no other there."""
        return self.experiments.get(own, own)

    def renumbered(self, text: object) -> object:
        """Return the value of one of `VERSION_TAGS` with the versions of the store."""
        if not isinstance(text, str) or all(
            version is not None and str(version) == own for (_, own), version in self.versions.items()
        ):
            return text
        try:
            entries = json.loads(text)
            for entry in entries:
                version = self.versions.get((entry["name"], str(entry["version"])))
                if version is not None:
                    entry["version"] = type(entry["version"])(version)
        except (ValueError, TypeError, KeyError):
            return text
        return json.dumps(entries)

    def copy(
        self,
        writer: Writer,
        table: str,
        on_conflict: OnConflict = OnConflict.KEEP,
        *,
        parents: Iterable[tuple[str, str]] = (),
        unless_newer: str | None = None,
    ) -> None:
        """Copy the rows of a table, with the store's ids of experiments and datasets.

        Parameters
        ----------
        writer, table, on_conflict, unless_newer
            See `Writer.write`.
        parents
            (column, table): rows whose column has an id that was removed from that table are left out.
        """
        source = self.contents.tables.get(table)
        if source is None:
            return
        columns = writer.shared_columns(table, source.columns)
        if not columns:
            self.unmerged.add(table)
            return
        rows = source.select(columns)
        left_out: list[tuple[int, set[Any]]] = [
            (columns.index(column), self.removed_from(parent)) for column, parent in parents if self.removed_from(parent)
        ]
        lost = {own for own, number in self.experiments.items() if number is None}
        if lost and "experiment_id" in columns:
            left_out.append((columns.index("experiment_id"), lost))
        new_ids = self._new_ids(columns)
        if left_out or new_ids:
            rows = (_replaced(row, new_ids) for row in rows if not any(row[place] in ids for place, ids in left_out))
            if not self.contents.large:
                rows = list(rows)
        writer.write(table, columns, rows, on_conflict, unless_newer=unless_newer)

    def _new_ids(self, columns: list[str]) -> list[tuple[int, dict[Any, Any]]]:
        """Return (position of a column, id in the snapshot → id in the store) for ids that differ."""
        new_ids: list[tuple[int, dict[Any, Any]]] = []
        if "experiment_id" in columns and any(own != number for own, number in self.experiments.items()):
            new_ids.append((columns.index("experiment_id"), self.experiments))
        if "dataset_uuid" in columns and self.datasets:
            new_ids.append((columns.index("dataset_uuid"), self.datasets))
        return new_ids


def _replaced(row: Row, new_ids: list[tuple[int, dict[Any, Any]]]) -> Row:
    if not new_ids:
        return row
    values = list(row)
    for place, ids in new_ids:
        values[place] = ids.get(values[place], values[place])
    return tuple(values)

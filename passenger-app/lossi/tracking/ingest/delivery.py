"""One snapshot on its way into the store: its contents, and how its ids are called there.

Room: tracking.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from lossi.tracking.ingest.job_folders import Found, SnapshotFile
from lossi.tracking.ingest.ledger import Base
from lossi.tracking.ingest.seed import Seed
from lossi.tracking.ingest.snapshots import Contents, Row
from lossi.tracking.ingest.writer import How, Writer

VERSION_TAGS = frozenset(("mlflow.modelVersions", "mlflow.linkedPrompts"))
"""Tags whose value is a JSON list of objects with the name and version of a registered model or prompt (MLflow 3.17)."""


@dataclass
class Delivery:
    """A snapshot that is being merged.

    Attributes
    ----------
    experiments
        Experiment id in the snapshot → in the store; None for one that is in the store no more.
    datasets
        Dataset id in the snapshot → in the store, where they differ.
    versions
        (registered model, version in the snapshot) → version in the store; None for one that is in the store no more.
    dead
        Ids, by table, of what was removed from the store for good and must not return.
    unmerged
        Tables with rows that were not merged.
    """

    found: Found
    file: SnapshotFile
    contents: Contents
    final: bool
    base: Base
    seed: Seed
    experiments: dict[int, int | None] = field(default_factory=dict)
    datasets: dict[str, str] = field(default_factory=dict)
    versions: dict[tuple[str, str], int | None] = field(default_factory=dict)
    dead: dict[str, set[str]] = field(default_factory=dict)
    unmerged: set[str] = field(default_factory=set)
    runs: list[str] = field(default_factory=list)

    def gone(self, table: str) -> set[str]:
        """Return the ids of a table that must not return."""
        return self.dead.get(table, set())

    def renumbered(self, text: object) -> object:
        """Return the value of one of `VERSION_TAGS` with the versions as the store numbers them."""
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
        how: How = How.ADD,
        *,
        parents: Iterable[tuple[str, str]] = (),
        unless_newer: str | None = None,
        kept: tuple[str, ...] = (),
    ) -> None:
        """Copy the rows of a table, with the ids of experiments and datasets as the store has them.

        Parameters
        ----------
        writer, table, how, unless_newer, kept
            As in `Writer.write`.
        parents
            (column, table): rows whose column names something of that table that must not return are left out.
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
            (columns.index(c), self.gone(parent)) for c, parent in parents if self.gone(parent)
        ]
        lost = {own for own, number in self.experiments.items() if number is None}
        if lost and "experiment_id" in columns:
            left_out.append((columns.index("experiment_id"), lost))
        maps = self._maps(columns)
        if left_out or maps:
            rows = (_mapped(row, maps) for row in rows if not any(row[place] in gone for place, gone in left_out))
            if not self.contents.large:
                rows = list(rows)
        writer.write(table, columns, rows, how, unless_newer=unless_newer, kept=kept)

    def _maps(self, columns: list[str]) -> list[tuple[int, dict[Any, Any]]]:
        maps: list[tuple[int, dict[Any, Any]]] = []
        if "experiment_id" in columns and any(own != id_ for own, id_ in self.experiments.items()):
            maps.append((columns.index("experiment_id"), self.experiments))
        if "dataset_uuid" in columns and self.datasets:
            maps.append((columns.index("dataset_uuid"), self.datasets))
        return maps


def _mapped(row: Row, maps: list[tuple[int, dict[Any, Any]]]) -> Row:
    if not maps:
        return row
    values = list(row)
    for place, names in maps:
        values[place] = names.get(values[place], values[place])
    return tuple(values)

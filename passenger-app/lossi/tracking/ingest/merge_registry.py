"""Merge the model registry: versions that tasks created get numbers of the store, in the order of their creation.

Each task started with a copy of the project's registry, so versions created by two tasks have the same numbers there. Source,
run and everything else of a version stay; aliases and tags follow the new number.
"""

# ruff: noqa: S608  (names of tables and columns are constants of this package; values are bound)
from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from lossi.tracking.ingest import template
from lossi.tracking.ingest.incoming import IncomingSnapshot
from lossi.tracking.ingest.ledger import Ledger
from lossi.tracking.ingest.three_way import StoredValues, merge_shared
from lossi.tracking.ingest.writer import Writer, insertion

VERSIONS = "version_numbers"
"""Kind of the ledger's values that map a task's version to its number in the store."""
VERSION_SOURCE = re.compile(r"models:/(?P<name>[^/@]+)/(?P<version>[0-9]+)")
TAG_TABLES = {
    "registered_model_tags": ("registered_models", "key", "value"),
    "registered_model_aliases": ("registered_models", "alias", "version"),
    "model_version_tags": ("model_versions", "key", "value"),
}
"""Table → (table of the owners, column of the key, column of the value)."""

Record = Mapping[str, Any]


def merge_registries(writer: Writer, ledger: Ledger, snapshots: Iterable[IncomingSnapshot]) -> None:
    """Give every new version its number, then merge what the tasks changed."""
    changed = [s for s in snapshots if not s.template.matches(s.contents, template.REGISTRY_TABLES) or s.base.values]
    _RegistryMerge(writer, ledger).merge(changed)


class _RegistryMerge:
    """Merges the registries of all snapshots of one transaction."""

    def __init__(self, writer: Writer, ledger: Ledger) -> None:
        self.writer = writer
        self.ledger = ledger
        self.created: set[tuple[str, str]] = set()
        """(table, owner) of what was added to the store in this transaction."""

    def merge(self, snapshots: list[IncomingSnapshot]) -> None:
        new_versions = [(snapshot, record) for snapshot in snapshots for record in self._new_versions(snapshot)]
        for snapshot in snapshots:
            self._add_models(snapshot, {str(record["name"]) for owner, record in new_versions if owner is snapshot})
        for snapshot, record in sorted(new_versions, key=_creation_order):
            self._add_version(snapshot, record)
        for snapshot in snapshots:
            self._merge_changes(snapshot)

    def _new_versions(self, snapshot: IncomingSnapshot) -> list[Record]:
        """Return the versions that need a number, and note the numbers of the others."""
        new: list[Record] = []
        for record in snapshot.contents.records("model_versions"):
            name, own = str(record["name"]), str(record["version"])
            number = self._known_number(snapshot, record)
            if number is None:
                new.append(record)
            else:
                snapshot.versions[name, own] = number if self._exists(name, number) else None
        return new

    def _known_number(self, snapshot: IncomingSnapshot, record: Record) -> int | None:
        name, own = str(record["name"]), str(record["version"])
        number = snapshot.base.of(VERSIONS, name).get(own)
        if number is not None:
            return int(str(number))
        in_template = snapshot.template.values.get(("model_versions", f"{name}/{own}"))
        if in_template is not None and in_template["creation_time"] == str(record["creation_time"]):
            return int(own)
        # If the ledger or template was lost: the same version has the same time, run and source.
        rows = self.writer.rows(
            "SELECT version FROM main.model_versions WHERE name = ? AND creation_time IS ? AND run_id IS ? AND source IS ?",
            name,
            record["creation_time"],
            record["run_id"],
            record["source"],
        )
        return int(rows[0][0]) if rows else None

    def _exists(self, name: str, number: int) -> bool:
        return bool(self.writer.rows("SELECT 1 FROM main.model_versions WHERE name = ? AND version = ?", name, number))

    def _insert(self, table: str, record: Record, owner: str) -> None:
        columns = self.writer.shared_columns(table, record)
        self.writer.sql.execute(insertion(table, columns), [record[column] for column in columns])
        self.created.add((table, owner))

    def _add_models(self, snapshot: IncomingSnapshot, with_new_versions: set[str]) -> None:
        """Add registered models that the task made; one that was removed from the store returns only with a new version."""
        for record in snapshot.contents.records("registered_models"):
            name = str(record["name"])
            if snapshot.base.has("registered_models", name) and name not in with_new_versions:
                continue
            if not self.writer.rows("SELECT 1 FROM main.registered_models WHERE name = ?", name):
                self._insert("registered_models", record, name)

    def _add_version(self, snapshot: IncomingSnapshot, record: Record) -> None:
        name, own = str(record["name"]), str(record["version"])
        number = self._known_number(snapshot, record)  # two snapshots of one task in this transaction
        if number is None:
            sql = "SELECT coalesce(max(version), 0) + 1 FROM main.model_versions WHERE name = ?"
            number = int(self.writer.rows(sql, name)[0][0])
            source = self._renumbered_source(snapshot, record["source"])
            self._insert("model_versions", {**record, "version": number, "source": source}, f"{name}/{number}")
        snapshot.versions[name, own] = number

    def _renumbered_source(self, snapshot: IncomingSnapshot, source: object) -> object:
        """Return the source of a version; one that is another version gets that version's number in the store."""
        match = VERSION_SOURCE.fullmatch(source) if isinstance(source, str) else None
        number = snapshot.versions.get((match["name"], match["version"])) if match else None
        return source if match is None or number is None else f"models:/{match['name']}/{number}"

    def _merge_changes(self, snapshot: IncomingSnapshot) -> None:
        numbers: dict[str, dict[str, object]] = {}
        for (name, own), number in snapshot.versions.items():
            last = snapshot.base.of(VERSIONS, name).get(own)
            if ("model_versions", f"{name}/{own}") not in snapshot.template.values or last:
                numbers.setdefault(name, {})[own] = str(number or last or own)
        for name, own_numbers in numbers.items():
            snapshot.base.remember(VERSIONS, name, own_numbers)
        owned = template.registry(snapshot.contents, lambda name, version: _number(snapshot, name, version))
        touched = {self._merge_owner(snapshot, table, owner, owned) for table, owner in _owners(owned)}
        touched |= {
            name for (name, _), number in snapshot.versions.items() if ("model_versions", f"{name}/{number}") in self.created
        }
        updated: dict[str | None, Any] = dict(snapshot.contents.rows("registered_models", "name", "last_updated_time"))
        for touched_name in touched - {None}:
            self.writer.sql.execute(
                "UPDATE main.registered_models SET last_updated_time = max(coalesce(last_updated_time, 0), ?) WHERE name = ?",
                (int(updated.get(touched_name) or 0), touched_name),
            )

    def _merge_owner(self, snapshot: IncomingSnapshot, table: str, owner: str, owned: template.Owned) -> str | None:
        """Merge one owner's values; return the registered model's name if anything changed."""
        parent, key, value = TAG_TABLES.get(table, (table, "", ""))
        name, _, number = owner.rpartition("/") if parent == "model_versions" else (owner, "", "")
        theirs = owned.get((table, owner), {})
        if table == "model_versions":
            theirs = {**theirs, "source": self._renumbered_source(snapshot, theirs["source"])}
        where: dict[str, object] = {"workspace": "default"} if "workspace" in self.writer.columns[table] else {}
        where["name"] = name
        if number:
            where["version"] = int(number)
        if not self.writer.rows(f"SELECT 1 FROM main.{parent} WHERE name = ?", name):
            snapshot.base.remember(table, owner, theirs)
            return None
        changed = merge_shared(
            self.writer,
            self.ledger,
            snapshot,
            StoredValues(table, where, key, value),
            owner,
            theirs,
            new=(parent, owner) in self.created,
            prefer=lambda new, now: self._is_later(name, new, now) if table == "registered_model_aliases" else True,
        )
        return name if changed else None

    def _is_later(self, name: str, new: object, now: object) -> bool:
        """Return whether one version was created after another: an alias that two tasks set goes to the later version."""
        sql = "SELECT coalesce(max(creation_time), 0) FROM main.model_versions WHERE name = ? AND version = ?"
        times = [self.writer.rows(sql, name, int(str(version)))[0][0] for version in (new, now)]
        return bool(times[0] > times[1])


def _creation_order(version: tuple[IncomingSnapshot, Record]) -> tuple[object, ...]:
    snapshot, record = version
    return (record["creation_time"] or 0, snapshot.task.job_id, snapshot.task.task, record["version"])


def _owners(owned: template.Owned) -> list[tuple[str, str]]:
    """Return everything that may have values, including what has none because the task removed them."""
    owners = set(owned)
    for table, owner in owned:
        owners.update((tags, owner) for tags, (parent, _, _) in TAG_TABLES.items() if parent == table)
    return sorted(owners)


def _number(snapshot: IncomingSnapshot, name: str, version: object) -> str | None:
    number = snapshot.versions.get((name, str(version)))
    return None if number is None else str(number)

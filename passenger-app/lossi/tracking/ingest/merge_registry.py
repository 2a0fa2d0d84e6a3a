"""Merging the model registry: versions that tasks created get numbers of the store's own, in the order of their creation.

Room: tracking. Each task started with a copy of the project's registry, so the versions that two tasks create have the same
numbers there. Source, run and all else of a version stay as they are; aliases and tags follow the new number.
"""

# ruff: noqa: S608  (names of tables and columns are constants of this package; values are bound)
from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lossi.tracking.ingest import seed
from lossi.tracking.ingest.delivery import Delivery
from lossi.tracking.ingest.ledger import Ledger
from lossi.tracking.ingest.merge_shared import Place, settle_shared
from lossi.tracking.ingest.writer import Writer, insertion

VERSIONS = "version_numbers"
"""Kind of the ledger's values that keep which number a task's version has in the store."""
VERSION_SOURCE = re.compile(r"models:/(?P<name>[^/@]+)/(?P<version>[0-9]+)")


@dataclass
class _New:
    """A version that a task created."""

    delivery: Delivery
    record: Mapping[str, Any]

    @property
    def order(self) -> tuple[object, ...]:
        found = self.delivery.found
        return (self.record["creation_time"] or 0, found.job_id, found.task, self.record["version"])


@dataclass
class Registry:
    """Merges the registries of all snapshots of one transaction."""

    writer: Writer
    ledger: Ledger
    created: set[tuple[str, str]] = field(default_factory=set)
    """(table, owner) of what came into the store in this transaction."""

    def merge(self, deliveries: Iterable[Delivery]) -> None:
        """Give every version its number, then settle what the tasks changed."""
        changed = [d for d in deliveries if not d.seed.same(d.contents, seed.REGISTRY_TABLES) or d.base.values]
        versions = [_New(delivery, record) for delivery in changed for record in self._new_versions(delivery)]
        for delivery in changed:
            self._add_models(delivery, {str(new.record["name"]) for new in versions if new.delivery is delivery})
        for new in sorted(versions, key=lambda item: item.order):
            self._add_version(new)
        for delivery in changed:
            self._settle(delivery)

    def _new_versions(self, delivery: Delivery) -> list[Mapping[str, Any]]:
        """Return the versions that need a number, and note the numbers of the others."""
        new: list[Mapping[str, Any]] = []
        for record in delivery.contents.records("model_versions"):
            name, own = str(record["name"]), str(record["version"])
            number = self._known_number(delivery, name, own, record)
            if number is None:
                new.append(record)
            else:
                delivery.versions[name, own] = number if self._exists(name, number) else None
        return new

    def _known_number(self, delivery: Delivery, name: str, own: str, record: Mapping[str, Any]) -> int | None:
        taken = delivery.base.of(VERSIONS, name).get(own)
        if taken is not None:
            return int(str(taken))
        given = delivery.seed.values.get(("model_versions", f"{name}/{own}"))
        if given is not None and given["creation_time"] == str(record["creation_time"]):
            return int(own)
        # A ledger or template that was lost: the same version has the same time, run and source.
        found = self.writer.rows(
            "SELECT version FROM main.model_versions WHERE name = ? AND creation_time IS ? AND run_id IS ? AND source IS ?",
            name,
            record["creation_time"],
            record["run_id"],
            record["source"],
        )
        return int(found[0][0]) if found else None

    def _exists(self, name: str, number: int) -> bool:
        return bool(self.writer.rows("SELECT 1 FROM main.model_versions WHERE name = ? AND version = ?", name, number))

    def _add_models(self, delivery: Delivery, with_new_versions: set[str]) -> None:
        """Add registered models that the task made; one that was removed from the store returns only with a new version."""
        for record in delivery.contents.records("registered_models"):
            name = str(record["name"])
            if delivery.base.has("registered_models", name) and name not in with_new_versions:
                continue
            if self.writer.rows("SELECT 1 FROM main.registered_models WHERE name = ?", name):
                continue
            columns = self.writer.shared_columns("registered_models", record)
            self.writer.sql.execute(insertion("registered_models", columns), [record[column] for column in columns])
            self.created.add(("registered_models", name))

    def _add_version(self, new: _New) -> None:
        name, own = str(new.record["name"]), str(new.record["version"])
        again = self._known_number(new.delivery, name, own, new.record)  # two snapshots of one task in this transaction
        if again is None:
            number = int(
                self.writer.rows("SELECT coalesce(max(version), 0) + 1 FROM main.model_versions WHERE name = ?", name)[0][0]
            )
            record = {**new.record, "version": number, "source": self._source(new.delivery, new.record["source"])}
            columns = self.writer.shared_columns("model_versions", record)
            self.writer.sql.execute(insertion("model_versions", columns), [record[column] for column in columns])
            self.created.add(("model_versions", f"{name}/{number}"))
        new.delivery.versions[name, own] = number if again is None else again

    def _source(self, delivery: Delivery, source: object) -> object:
        """Return the source of a version; one that names another version by its number in the task is renumbered."""
        match = VERSION_SOURCE.fullmatch(source) if isinstance(source, str) else None
        number = delivery.versions.get((match["name"], match["version"])) if match else None
        return source if match is None or number is None else f"models:/{match['name']}/{number}"

    def _settle(self, delivery: Delivery) -> None:
        numbers: dict[str, dict[str, object]] = {}
        for (name, own), number in delivery.versions.items():
            if ("model_versions", f"{name}/{own}") not in delivery.seed.values or delivery.base.of(VERSIONS, name).get(own):
                numbers.setdefault(name, {})[own] = str(number or delivery.base.of(VERSIONS, name).get(own, own))
        for name, taken in numbers.items():
            delivery.base.remember(VERSIONS, name, taken)
        owned = seed.registry(delivery.contents, lambda name, version: _number(delivery, name, version))
        touched: set[str | None] = {self._settle_one(delivery, table, owner, owned) for table, owner in self._owners(owned)}
        touched |= {
            name for (name, _), number in delivery.versions.items() if ("model_versions", f"{name}/{number}") in self.created
        }
        for changed in touched - {None}:
            self.writer.sql.execute(
                "UPDATE main.registered_models SET last_updated_time = max(coalesce(last_updated_time, 0), ?) WHERE name = ?",
                (_updated(delivery, str(changed)), changed),
            )

    def _owners(self, owned: seed.Owned) -> list[tuple[str, str]]:
        """Return everything that may have values, also what has none now because the task removed them."""
        owners = dict.fromkeys(owned)
        for table, owner in list(owned):
            if table == "registered_models":
                owners.update({("registered_model_tags", owner): None, ("registered_model_aliases", owner): None})
            elif table == "model_versions":
                owners[("model_version_tags", owner)] = None
        return sorted(owners)

    def _settle_one(self, delivery: Delivery, table: str, owner: str, owned: seed.Owned) -> str | None:
        """Settle one owner's values; return the registered model's name when something changed."""
        name, _, number = owner.rpartition("/") if table in ("model_versions", "model_version_tags") else (owner, "", "")
        theirs = owned.get((table, owner), {})
        if table == "model_versions":
            theirs = {**theirs, "source": self._source(delivery, theirs["source"])}
        where: dict[str, object] = {"workspace": "default"} if "workspace" in self.writer.columns[table] else {}
        where["name"] = name
        if number:
            where["version"] = int(number)
        key, value = {
            "registered_model_tags": ("key", "value"),
            "model_version_tags": ("key", "value"),
            "registered_model_aliases": ("alias", "version"),
        }.get(table, ("", ""))
        parent = {"registered_model_tags": "registered_models", "registered_model_aliases": "registered_models"}.get(
            table, "model_versions" if table == "model_version_tags" else table
        )
        if not self.writer.rows(f"SELECT 1 FROM main.{parent} WHERE name = ?", name):
            delivery.base.remember(table, owner, theirs)
            return None
        changed = settle_shared(
            self.writer,
            self.ledger,
            delivery,
            Place(table, where, key, value),
            owner,
            theirs,
            new=(parent, owner) in self.created,
            prefer=lambda new, now: self._is_later(name, new, now) if table == "registered_model_aliases" else True,
        )
        return name if changed else None

    def _is_later(self, name: str, new: object, now: object) -> bool:
        """Whether one version of a model was created after another: the alias that two tasks set goes to the later one."""
        sql = "SELECT coalesce(max(creation_time), 0) FROM main.model_versions WHERE name = ? AND version = ?"
        times = [self.writer.rows(sql, name, int(str(version)))[0][0] for version in (new, now)]
        return bool(times[0] > times[1])


def _number(delivery: Delivery, name: str, version: object) -> str | None:
    number = delivery.versions.get((name, str(version)))
    return None if number is None else str(number)


def _updated(delivery: Delivery, name: str) -> int:
    """Return when the task changed a registered model last, in milliseconds since the epoch."""
    for own, time in delivery.contents.rows("registered_models", "name", "last_updated_time"):
        if own == name:
            return int(time or 0)
    return 0

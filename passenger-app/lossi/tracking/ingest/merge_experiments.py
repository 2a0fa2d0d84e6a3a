"""Merge experiments and their tags, which tasks share with each other and with people.

Each change that a task made is merged with what the store has (see `three_way`). Deleting a whole experiment in a task is not
followed: others may use it.
"""

# ruff: noqa: S608  (names of tables and columns are constants of this package; values are bound)
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lossi.tracking.ingest import template
from lossi.tracking.ingest.incoming import IncomingSnapshot
from lossi.tracking.ingest.ledger import Ledger, Values
from lossi.tracking.ingest.three_way import StoredValues, merge_shared
from lossi.tracking.ingest.writer import Writer, insertion


@dataclass(frozen=True)
class StoreExperiment:
    """An experiment of the store."""

    id: int
    name: str
    workspace: str
    location: str | None
    created: int | None


class StoreExperiments:
    """The experiments of the store during one transaction."""

    def __init__(self, writer: Writer, ledger: Ledger) -> None:
        self._writer = writer
        self._ledger = ledger
        self._by_id: dict[int, StoreExperiment] = {}
        self._by_name: dict[tuple[str, str], StoreExperiment] = {}
        workspace = "workspace" if "workspace" in writer.columns.get("experiments", []) else "'default'"
        for row in writer.rows(
            f"SELECT experiment_id, name, {workspace}, artifact_location, creation_time FROM main.experiments"
        ):
            self._add(StoreExperiment(*row))

    def _add(self, experiment: StoreExperiment) -> None:
        self._by_id[experiment.id] = experiment
        self._by_name[experiment.workspace, experiment.name] = experiment

    def merge(self, snapshot: IncomingSnapshot, find_used: Callable[[], set[int]]) -> None:
        """Find or create the experiments of a snapshot and merge what its task changed of them.

        ``find_used`` returns the experiments that have rows in the snapshot, other than rows that must not return.
        """
        records = snapshot.contents.records("experiments")
        for record in records:
            experiment = self._find(snapshot, record)
            snapshot.experiments[record["experiment_id"]] = experiment.id if experiment else None
        missing = [record for record in records if snapshot.experiments[record["experiment_id"]] is None]
        used = find_used() if missing else set()
        created: set[int] = set()
        for record in missing:
            own = str(record["experiment_id"])
            new = not snapshot.base.has("experiments", own) and not snapshot.base.has("experiment_ids", own)
            if new or record["experiment_id"] in used:
                created.add(self._create(snapshot, record))
        self._merge_changes(snapshot, created)

    def _find(self, snapshot: IncomingSnapshot, record: Mapping[str, Any]) -> StoreExperiment | None:
        """Return the store's experiment: the one it was merged into before, the one of the template, or the one of its name."""
        last = snapshot.base.of("experiment_ids", str(record["experiment_id"]))
        if last:
            stored = self._by_id.get(int(str(last["id"])))
            if stored is not None and str(stored.created) == last["created"]:
                return stored
        stored = self._by_id.get(record["experiment_id"])
        if (
            stored is not None
            and stored.created == record["creation_time"]
            and (stored.name == record["name"] or stored.location == record["artifact_location"])
        ):
            return stored
        return self._by_name.get((record.get("workspace", "default"), record["name"]))

    def _create(self, snapshot: IncomingSnapshot, record: Mapping[str, Any]) -> int:
        """Add an experiment with the id that MLflow would give it: the greatest plus 1."""
        columns = self._writer.shared_columns("experiments", [column for column in record if column != "experiment_id"])
        cursor = self._writer.sql.execute(insertion("experiments", columns), [record[column] for column in columns])
        number = int(cursor.lastrowid or 0)
        self._add(
            StoreExperiment(
                number, record["name"], record.get("workspace", "default"), record["artifact_location"], record["creation_time"]
            )
        )
        snapshot.experiments[record["experiment_id"]] = number
        return number

    def _merge_changes(self, snapshot: IncomingSnapshot, created: set[int]) -> None:
        if snapshot.template.matches(snapshot.contents, template.EXPERIMENT_TABLES) and not snapshot.base.values:
            return
        for (table, own), theirs in _with_tags(template.experiments(snapshot.contents)):
            number = snapshot.experiments.get(int(own))
            if number is None:
                snapshot.base.remember(table, own, theirs)
                continue
            where = {"experiment_id": number}
            if table == "experiment_tags":
                stored = StoredValues(table, where, "key", "value")
                new = number in created
                merge_shared(self._writer, self._ledger, snapshot, stored, own, theirs, new=new, shared_owner=str(number))
                continue
            experiment = self._by_id[number]
            if (table, own) not in snapshot.template.values:
                snapshot.base.remember("experiment_ids", own, {"id": str(number), "created": str(experiment.created)})
            self._merge_columns(snapshot, experiment, own, theirs)

    def _merge_columns(self, snapshot: IncomingSnapshot, experiment: StoreExperiment, own: str, theirs: Values) -> None:
        """Merge name, lifecycle and location; the first of two tasks that created an experiment of the same name wins."""
        name = str(theirs["name"])
        holder = self._by_name.get((experiment.workspace, name))
        if holder is not None and holder.id != experiment.id:
            theirs = {**theirs, "name": experiment.name}
        stored = StoredValues("experiments", {"experiment_id": experiment.id})
        merge_shared(
            self._writer,
            self._ledger,
            snapshot,
            stored,
            own,
            theirs,
            shared_owner=str(experiment.id),
            prefer=lambda new, now: False,
        )
        self._by_name.setdefault((experiment.workspace, name), experiment)


def _with_tags(owned: template.Owned) -> Sequence[tuple[tuple[str, str], Values]]:
    """Add the empty tags of experiments without any, so that removed tags are noticed."""
    for table, own in list(owned):
        if table == "experiments":
            owned.setdefault(("experiment_tags", own), {})
    return sorted(owned.items(), key=lambda item: item[0])

"""Merging what tasks share with each other and with people: experiments, their tags, and whatever has keys and values.

Room: tracking. Each change that a task made is settled against what the store holds (see `settle`). Removing a whole
experiment or registered model in a task is not followed: others may be using it.
"""

# ruff: noqa: S608  (names of tables and columns are constants of this package; values are bound)
from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lossi.tracking.ingest import seed
from lossi.tracking.ingest.delivery import Delivery
from lossi.tracking.ingest.ledger import Ledger, Values, as_text
from lossi.tracking.ingest.settle import GONE, settled
from lossi.tracking.ingest.snapshots import quoted
from lossi.tracking.ingest.writer import Writer, insertion


@dataclass(frozen=True)
class Place:
    """Where the values of one owner are in the store.

    Attributes
    ----------
    where
        Columns that name the owner.
    key, value
        The columns that hold a key and its value; without them the keys are columns of the owner's row.
    """

    table: str
    where: Mapping[str, object]
    key: str = ""
    value: str = ""

    def _condition(self) -> str:
        return " AND ".join(f"{quoted(column)} = ?" for column in self.where)

    def read(self, writer: Writer, columns: Iterable[str] = ()) -> Values | None:
        """Return what the store holds, None when the owner's row is missing."""
        names = [self.key, self.value] if self.key else list(columns)
        sql = f"SELECT {', '.join(map(quoted, names))} FROM main.{self.table} WHERE {self._condition()}"
        rows = writer.rows(sql, *self.where.values())
        if self.key:
            return dict(rows)
        return dict(zip(names, rows[0], strict=True)) if rows else None

    def write(self, writer: Writer, key: str, value: object) -> None:
        """Set one value, or remove it."""
        if not self.key:
            sql = f"UPDATE main.{self.table} SET {quoted(key)} = ? WHERE {self._condition()}"
            writer.sql.execute(sql, (None if value is GONE else value, *self.where.values()))
            return
        writer.sql.execute(
            f"DELETE FROM main.{self.table} WHERE {self._condition()} AND {quoted(self.key)} = ?", (*self.where.values(), key)
        )
        if value is not GONE:
            writer.sql.execute(insertion(self.table, (*self.where, self.key, self.value)), (*self.where.values(), key, value))


def settle_shared(
    writer: Writer,
    ledger: Ledger,
    delivery: Delivery,
    place: Place,
    owner: str,
    theirs: Values,
    *,
    new: bool = False,
    shared_owner: str | None = None,
    prefer: Callable[[object, object], bool] = lambda new, now: True,
) -> bool:
    """Bring what one task did to a shared thing into the store; return whether anything changed.

    Parameters
    ----------
    writer, ledger, delivery
        Where to and where from.
    place
        Where the values are in the store.
    theirs
        What the snapshot says.
    owner, shared_owner
        Its name in the snapshot and, where it differs, in the store.
    new
        It came into the store with this snapshot.
    prefer
        Decides between two tasks' values (see `settled`).
    """
    base = delivery.base.of(place.table, owner)
    if not (new or delivery.seed.known or delivery.base.has(place.table, owner)):
        base = theirs  # nothing says what was changed
    delivery.base.remember(place.table, owner, theirs)
    if theirs == base:
        return False
    ours = place.read(writer, theirs)
    if ours is None:
        return False
    written = ledger.written(place.table, shared_owner or owner)
    changes = settled(theirs, base, {key: as_text(value) for key, value in ours.items()}, written, prefer)
    for key, value in changes.items():
        place.write(writer, key, value)
        if value is GONE:
            ledger.unwrite(place.table, shared_owner or owner, key)
        else:
            ledger.write(place.table, shared_owner or owner, key, value)
    return bool(changes)


@dataclass(frozen=True)
class Known:
    """An experiment of the store."""

    id: int
    name: str
    workspace: str
    location: str | None
    created: int | None


class Experiments:
    """The experiments of the store, as they are in one transaction."""

    def __init__(self, writer: Writer, ledger: Ledger) -> None:
        self._writer = writer
        self._ledger = ledger
        self._by_id: dict[int, Known] = {}
        self._by_name: dict[tuple[str, str], Known] = {}
        workspace = "workspace" if "workspace" in writer.columns.get("experiments", []) else "'default'"
        for row in writer.rows(
            f"SELECT experiment_id, name, {workspace}, artifact_location, creation_time FROM main.experiments"
        ):
            self._add(Known(*row))

    def _add(self, known: Known) -> None:
        self._by_id[known.id] = known
        self._by_name[known.workspace, known.name] = known

    def merge(self, delivery: Delivery, needed: Callable[[], set[int]]) -> None:
        """Find or create the experiments of a snapshot and settle what its task changed of them.

        Parameters
        ----------
        delivery
            The snapshot.
        needed
            Returns the experiments that rows of the snapshot belong to, other than rows that must not return.
        """
        records = delivery.contents.records("experiments")
        for record in records:
            found = self._find(delivery, record)
            delivery.experiments[record["experiment_id"]] = found.id if found else None
        missing = [record for record in records if delivery.experiments[record["experiment_id"]] is None]
        wanted = needed() if missing else set()
        created: set[int] = set()
        for record in missing:
            own = str(record["experiment_id"])
            new = not delivery.base.has("experiments", own) and not delivery.base.has("experiment_ids", own)
            if new or record["experiment_id"] in wanted:
                created.add(self._create(delivery, record))
        self._settle(delivery, created)

    def _find(self, delivery: Delivery, record: Mapping[str, Any]) -> Known | None:
        """Return the experiment that a snapshot's is: the one it was taken in as, the one it was given, or by its name."""
        taken = delivery.base.of("experiment_ids", str(record["experiment_id"]))
        if taken:
            found = self._by_id.get(int(str(taken["id"])))
            if found is not None and str(found.created) == taken["created"]:
                return found
        found = self._by_id.get(record["experiment_id"])
        if (
            found is not None
            and found.created == record["creation_time"]
            and (found.name == record["name"] or found.location == record["artifact_location"])
        ):
            return found
        return self._by_name.get((record.get("workspace", "default"), record["name"]))

    def _create(self, delivery: Delivery, record: Mapping[str, Any]) -> int:
        """Add an experiment with the id that MLflow would give it: SQLite's greatest plus 1."""
        columns = self._writer.shared_columns("experiments", [column for column in record if column != "experiment_id"])
        cursor = self._writer.sql.execute(insertion("experiments", columns), [record[column] for column in columns])
        number = int(cursor.lastrowid or 0)
        self._add(
            Known(
                number, record["name"], record.get("workspace", "default"), record["artifact_location"], record["creation_time"]
            )
        )
        delivery.experiments[record["experiment_id"]] = number
        return number

    def _settle(self, delivery: Delivery, created: set[int]) -> None:
        if delivery.seed.same(delivery.contents, seed.EXPERIMENT_TABLES) and not delivery.base.values:
            return
        for (table, own), theirs in _with_tags(seed.experiments(delivery.contents)):
            number = delivery.experiments.get(int(own))
            if number is None:
                delivery.base.remember(table, own, theirs)
                continue
            where = {"experiment_id": number}
            if table == "experiment_tags":
                place = Place(table, where, "key", "value")
                new = number in created
                settle_shared(self._writer, self._ledger, delivery, place, own, theirs, new=new, shared_owner=str(number))
                continue
            known = self._by_id[number]
            if (table, own) not in delivery.seed.values:
                delivery.base.remember("experiment_ids", own, {"id": str(number), "created": str(known.created)})
            self._settle_columns(delivery, known, own, theirs)

    def _settle_columns(self, delivery: Delivery, known: Known, own: str, theirs: Values) -> None:
        """Settle name, lifecycle and place; of two tasks that made an experiment of one name the first one's stay."""
        name = str(theirs["name"])
        holder = self._by_name.get((known.workspace, name))
        if holder is not None and holder.id != known.id:
            theirs = {**theirs, "name": known.name}
        place = Place("experiments", {"experiment_id": known.id})
        settle_shared(
            self._writer, self._ledger, delivery, place, own, theirs, shared_owner=str(known.id), prefer=lambda new, now: False
        )
        self._by_name.setdefault((known.workspace, name), known)


def _with_tags(owned: seed.Owned) -> Sequence[tuple[tuple[str, str], Values]]:
    """Add the empty tags of experiments that have none, so that removed tags are seen."""
    for table, own in list(owned):
        if table == "experiments":
            owned.setdefault(("experiment_tags", own), {})
    return sorted(owned.items(), key=lambda item: item[0])

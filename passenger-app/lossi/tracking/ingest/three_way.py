"""Three-way merge: what a task changed, against what was edited in the project's store meanwhile.

*theirs* is what the snapshot has now, *base* what the same task had last time (or started from), *ours* what the store has,
*written* what ingest itself last wrote there, for any task.
"""

# ruff: noqa: S608  (names of tables and columns are constants of this package; values are bound)
from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from lossi.tracking.ingest.incoming import IncomingSnapshot
from lossi.tracking.ingest.ledger import Ledger, Values, as_text
from lossi.tracking.ingest.snapshots import quoted
from lossi.tracking.ingest.writer import Writer, insertion

MISSING: Final = object()
"""Value of a key that does not exist."""


def changes(
    theirs: Mapping[str, object],
    base: Mapping[str, object],
    ours: Mapping[str, object],
    written: Mapping[str, object] | None = None,
    prefer: Callable[[object, object], bool] = lambda new, now: True,
) -> dict[str, object]:
    """Return what to write to the store; `MISSING` means remove.

    A key that the task did not change is left alone. If both sides changed it, the store's value stays, because a person's
    edit wins over a program's; unless the store's value is itself another task's (``written``): then ``prefer(new, now)``
    decides.
    """
    result: dict[str, object] = {}
    for key in theirs.keys() | base.keys():
        new, old, now = theirs.get(key, MISSING), base.get(key, MISSING), ours.get(key, MISSING)
        if new in (old, now):
            continue
        from_a_task = written is not None and now is not MISSING and written.get(key, MISSING) == now
        if now == old or (from_a_task and prefer(new, now)):
            result[key] = new
    return result


def merge_run(theirs: Mapping[str, object], base: Mapping[str, object] | None, ours: Mapping[str, object]) -> dict[str, object]:
    """Return name, status, end time and lifecycle of a run that the store already has.

    A new name or a deletion in the store wins. The status is the task's if it changed since ``base``; otherwise it stays, so
    that a run marked as killed does not run again. Without a base (a lost ledger) the store's name and lifecycle stay, and an
    ended run stays ended.
    """
    result = dict(ours)
    if base is None:
        if theirs["end_time"] is not None or ours["end_time"] is None:
            result.update(status=theirs["status"], end_time=theirs["end_time"])
        return result
    if ours["name"] == base["name"]:
        result["name"] = theirs["name"]
    if (theirs["status"], theirs["end_time"]) != (base["status"], base["end_time"]):
        result.update(status=theirs["status"], end_time=theirs["end_time"])
    if ours["lifecycle_stage"] == base["lifecycle_stage"]:
        result.update(lifecycle_stage=theirs["lifecycle_stage"], deleted_time=theirs["deleted_time"])
    return result


@dataclass(frozen=True)
class StoredValues:
    """The values of one owner in the store.

    Attributes
    ----------
    where
        Columns that identify the owner.
    key, value
        Columns of a key and its value; without them the keys are columns of the owner's row.
    """

    table: str
    where: Mapping[str, object]
    key: str = ""
    value: str = ""

    def _condition(self) -> str:
        return " AND ".join(f"{quoted(column)} = ?" for column in self.where)

    def read(self, writer: Writer, columns: Iterable[str] = ()) -> Values | None:
        """Return the values, None if the owner's row is missing."""
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
            writer.sql.execute(sql, (None if value is MISSING else value, *self.where.values()))
            return
        writer.sql.execute(
            f"DELETE FROM main.{self.table} WHERE {self._condition()} AND {quoted(self.key)} = ?", (*self.where.values(), key)
        )
        if value is not MISSING:
            writer.sql.execute(insertion(self.table, (*self.where, self.key, self.value)), (*self.where.values(), key, value))


def merge_shared(
    writer: Writer,
    ledger: Ledger,
    snapshot: IncomingSnapshot,
    stored: StoredValues,
    owner: str,
    theirs: Values,
    *,
    new: bool = False,
    shared_owner: str | None = None,
    prefer: Callable[[object, object], bool] = lambda new, now: True,
) -> bool:
    """Merge what one task changed of a shared owner's values; return whether anything changed.

    Parameters
    ----------
    writer, ledger, snapshot, stored, theirs
        From where and to where.
    owner, shared_owner
        The owner's name in the snapshot and, if it differs, in the store.
    new
        The owner was added to the store with this snapshot.
    prefer
        Decides between the values of two tasks (see `changes`).
    """
    base = snapshot.base.of(stored.table, owner)
    if not (new or snapshot.template.known or snapshot.base.has(stored.table, owner)):
        base = theirs  # nothing tells what was changed
    snapshot.base.remember(stored.table, owner, theirs)
    if theirs == base:
        return False
    ours = stored.read(writer, theirs)
    if ours is None:
        return False
    written = ledger.written(stored.table, shared_owner or owner)
    changed = changes(theirs, base, {key: as_text(value) for key, value in ours.items()}, written, prefer)
    for key, value in changed.items():
        stored.write(writer, key, value)
        if value is MISSING:
            ledger.unwrite(stored.table, shared_owner or owner, key)
        else:
            ledger.write(stored.table, shared_owner or owner, key, value)
    return bool(changed)

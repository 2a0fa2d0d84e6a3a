"""Write rows to the project's store, with statements that may be repeated without harm.

The connection has the store as ``main`` and the project's index attached.
"""

# ruff: noqa: S608  (names of tables and columns come from the store's own schema and are quoted; values are bound)
from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from typing import Any

from lossi.tracking.ingest.ledger import chunks
from lossi.tracking.ingest.snapshots import Row, quoted

STEP_ROWS = 20_000
"""Rows written before other writers get a turn."""


class OnConflict(Enum):
    """What happens to a row that the store already has."""

    KEEP = "it stays"
    REPLACE = "it gets the new values"
    KEEP_LATEST = "it gets the new values if they are a later point of the metric"


class Writer:
    """Writes to the store; calls ``step`` between portions of many rows, which may commit and begin anew."""

    def __init__(self, connection: sqlite3.Connection, step: Callable[[], None]) -> None:
        self.sql = connection
        self._step = step
        self._statements: dict[tuple[object, ...], str] = {}
        self.columns: dict[str, list[str]] = {}
        self._keys: dict[str, list[tuple[int, str]]] = {}
        rows = connection.execute(
            "SELECT m.name, c.name, c.pk FROM main.sqlite_master m, pragma_table_xinfo(m.name, 'main') c"
            " WHERE m.type = 'table' AND m.rootpage > 0 AND c.hidden = 0"
        )
        for table, column, place in rows:
            self.columns.setdefault(table, []).append(column)
            if place:
                self._keys.setdefault(table, []).append((place, column))

    def key(self, table: str) -> list[str]:
        """Return the columns of a table's primary key, in its order."""
        return [column for _, column in sorted(self._keys.get(table, []))]

    def shared_columns(self, table: str, columns: Iterable[str]) -> list[str]:
        """Return the columns that the store has too."""
        known = self.columns.get(table, [])
        return [column for column in columns if column in known]

    def write(
        self,
        table: str,
        columns: Sequence[str],
        rows: Iterable[Row],
        on_conflict: OnConflict = OnConflict.KEEP,
        *,
        unless_newer: str | None = None,
        kept: Sequence[str] = (),
    ) -> None:
        """Write rows.

        Parameters
        ----------
        table, columns, rows
            What to write; any number of rows.
        on_conflict
            What happens to a row that the store has.
        unless_newer
            Column with the time of the last change: a row that is newer in the store stays.
        kept
            Columns whose values in the store stay.
        """
        sql = self._statement(table, tuple(columns), on_conflict, unless_newer, tuple(kept))
        if isinstance(rows, list) and len(rows) <= STEP_ROWS:
            self.sql.executemany(sql, rows)
            return
        stream = iter(rows)
        while portion := list(itertools.islice(stream, STEP_ROWS)):
            self.sql.executemany(sql, portion)
            if len(portion) == STEP_ROWS:
                self._step()

    def present(self, table: str, column: str, values: Sequence[str]) -> set[str]:
        """Return the values that the store has in a column."""
        present: set[str] = set()
        for marks, part in chunks(values):
            sql = f"SELECT {quoted(column)} FROM main.{quoted(table)} WHERE {quoted(column)} IN ({marks})"
            present.update(value for (value,) in self.sql.execute(sql, part))
        return present

    def rows(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """Return all rows of a statement."""
        return self.sql.execute(sql, values).fetchall()

    def _statement(
        self, table: str, columns: tuple[str, ...], on_conflict: OnConflict, unless_newer: str | None, kept: tuple[str, ...]
    ) -> str:
        key = (table, columns, on_conflict, unless_newer, kept)
        if key not in self._statements:
            self._statements[key] = f"{insertion(table, columns)} {self._conflict_clause(*key)}"
        return self._statements[key]

    def _conflict_clause(
        self, table: str, columns: tuple[str, ...], on_conflict: OnConflict, unless_newer: str | None, kept: tuple[str, ...]
    ) -> str:
        key = self.key(table)
        target = f"ON CONFLICT ({', '.join(map(quoted, key))})"
        changed = [column for column in columns if column not in key and column not in kept]
        if on_conflict is OnConflict.KEEP or not changed:
            return f"{target} DO NOTHING"
        settings = ", ".join(f"{quoted(column)} = excluded.{quoted(column)}" for column in changed)
        condition = ""
        if unless_newer is not None:
            stamp = quoted(unless_newer)
            condition = f" WHERE excluded.{stamp} >= {quoted(table)}.{stamp}"
        elif (
            on_conflict is OnConflict.KEEP_LATEST
        ):  # mlflow/store/tracking/sqlalchemy_store.py, _update_latest_metrics_if_necessary
            order = ("step", "timestamp", "value")
            new, old = (", ".join(f"{name}.{quoted(c)}" for c in order) for name in ("excluded", quoted(table)))
            condition = f" WHERE ({new}) > ({old})"
        return f"{target} DO UPDATE SET {settings}{condition}"


def insertion(table: str, columns: Sequence[str]) -> str:
    """Return the INSERT of one row."""
    names = ", ".join(map(quoted, columns))
    return f"INSERT INTO main.{quoted(table)} ({names}) VALUES ({', '.join('?' * len(columns))})"

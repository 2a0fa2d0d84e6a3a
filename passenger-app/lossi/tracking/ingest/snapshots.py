"""Read published snapshots, checked against the digest in their name; write nothing, not even next to them.

A snapshot is a complete MLflow store of one task, and nearly all of the time of opening one goes into parsing its schema of 60
tables. Stores from one template have the same schema, so one in-memory connection is loaded with one file after the other
(`sqlite3_deserialize`) and its prepared statements stay valid. The whole schema is compared each time; a different one gets
its own connection.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Row = tuple[Any, ...]

LARGE_BYTES = 16 * 1024 * 1024
"""A larger file is not read into memory: it is opened in place and its rows are streamed."""
MAGIC = b"SQLite format 3\x00"
LAYOUTS = 4
"""Schemas kept open at once."""


class Refused(Exception):
    """A snapshot cannot be ingested; the others can."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True)
class Mark:
    """The newest ingested row of the metrics table, to which rows are only ever appended."""

    rowid: int
    key: str
    timestamp: int
    step: int
    run_id: str


@dataclass(frozen=True)
class Table:
    """The rows of one table: a list, or a stream that reads them again each time it is iterated."""

    columns: tuple[str, ...]
    rows: Iterable[Row]

    def select(self, columns: Sequence[str]) -> Iterable[Row]:
        """Return these columns of the rows, in this order."""
        if tuple(columns) == self.columns:
            return self.rows
        places = [self.columns.index(column) for column in columns]
        return (tuple(row[place] for place in places) for row in self.rows)

    def records(self) -> list[dict[str, Any]]:
        """Return the rows as dictionaries."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


@dataclass
class Contents:
    """The contents of a snapshot: its tables that have rows."""

    revision: str | None
    tables: dict[str, Table]
    others: tuple[str, ...] = ()
    """Further tables with rows, which the reader was not told to read."""
    mark: Mark | None = None
    bytes: int = 0
    large: bool = False
    connection: sqlite3.Connection | None = field(default=None, repr=False)

    def rows(self, table: str, *columns: str) -> list[Row]:
        """Return all rows of a table, none if it is empty."""
        return list(self.tables[table].select(columns)) if table in self.tables else []

    def records(self, table: str) -> list[dict[str, Any]]:
        """Return all rows of a table as dictionaries."""
        return self.tables[table].records() if table in self.tables else []

    def close(self) -> None:
        """Close a large file."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None


@dataclass(frozen=True)
class _Layout:
    """A schema and the statements that follow from it."""

    schema: str
    columns: dict[str, tuple[str, ...]]
    selections: dict[str, str]
    """SQL of all rows, by table."""
    occupied: str
    """SQL of the names of the tables that have rows."""


class Reader:
    """Reads the rows of these tables from one snapshot after the other."""

    def __init__(self, tables: Collection[str]) -> None:
        self._tables = frozenset(tables)
        self._open: list[tuple[sqlite3.Connection, _Layout]] = []

    def close(self) -> None:
        """Close the connections kept open."""
        for connection, _ in self._open:
            connection.close()
        self._open.clear()

    def read(self, path: Path, digest: str | None, *, after: Mark | None = None) -> Contents:
        """Return the contents of a snapshot.

        Parameters
        ----------
        path
            The file; a link is not followed.
        digest
            First 16 hex digits of its SHA-256; None for a file without a checksum.
        after
            Leave out the metric rows up to this one, if it is still where it was.

        Raises
        ------
        Refused
            If the checksum differs or it is not a whole SQLite database.
        OSError
            If it cannot be read; FileNotFoundError if a newer one replaced it.
        """
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        with os.fdopen(descriptor, "rb", buffering=0) as stream:
            size = os.fstat(stream.fileno()).st_size
            in_memory = size <= LARGE_BYTES and hasattr(sqlite3.Connection, "deserialize")
            data = bytearray(size) if in_memory else None
            if data is not None and stream.readinto(data) != size:
                raise Refused("it shrank while it was read")
            checksum = hashlib.sha256(data) if data is not None else hashlib.file_digest(stream, "sha256")
            head = bytes(data[:100]) if data is not None else os.pread(stream.fileno(), 100, 0)
        if digest is not None and checksum.hexdigest()[: len(digest)] != digest:
            raise Refused("it was damaged or changed after it was written: its checksum is not the one in its name")
        if len(head) < 100 or not head.startswith(MAGIC):
            raise Refused("it is not an SQLite database")
        try:
            if data is None:
                return self._read_file(path, size, after)
            data[18:20] = b"\x01\x01"  # a copy in memory has no write-ahead log (file format, offset 18)
            return self._read_bytes(data, after)
        except sqlite3.Error as error:
            raise Refused(f"it cannot be read ({error})") from error

    def _read_bytes(self, data: bytearray, after: Mark | None) -> Contents:
        for place, (connection, layout) in enumerate(self._open):
            connection.deserialize(data)
            if _schema(connection) == layout.schema:
                self._open.insert(0, self._open.pop(place))
                return self._contents(connection, layout, after, size=len(data))
        connection = sqlite3.connect(":memory:", isolation_level=None, cached_statements=256)
        try:
            connection.execute("PRAGMA trusted_schema=OFF")
            connection.deserialize(data)
            layout = _layout(connection)
            contents = self._contents(connection, layout, after, size=len(data))
        except BaseException:
            connection.close()
            raise
        self._open.insert(0, (connection, layout))
        for old, _ in self._open[LAYOUTS:]:
            old.close()
        del self._open[LAYOUTS:]
        return contents

    def _read_file(self, path: Path, size: int, after: Mark | None) -> Contents:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True, isolation_level=None)
        try:
            connection.execute("PRAGMA trusted_schema=OFF")
            contents = self._contents(connection, _layout(connection), after, size=size)
        except BaseException:
            connection.close()
            raise
        if contents.large:
            contents.connection = connection
        else:
            connection.close()
        return contents

    def _contents(self, connection: sqlite3.Connection, layout: _Layout, after: Mark | None, *, size: int) -> Contents:
        occupied = {name for (name,) in connection.execute(layout.occupied)}
        revisions = (
            connection.execute("SELECT version_num FROM alembic_version").fetchall() if "alembic_version" in occupied else []
        )
        revision = revisions[0][0] if len(revisions) == 1 else None
        contents = Contents(revision, {}, tuple(sorted(occupied - self._tables)), bytes=size, large=size > LARGE_BYTES)
        for name in sorted(occupied & self._tables):
            sql = layout.selections[name]
            if name == "metrics":
                contents.mark = _mark(connection)
                if after is not None and _still_has(connection, after):
                    sql += f" WHERE rowid > {after.rowid:d}"
            rows: Iterable[Row] = _Stream(connection, sql) if contents.large else connection.execute(sql).fetchall()
            contents.tables[name] = Table(layout.columns[name], rows)
        return contents


class _Stream:
    """Rows that are read from a large file each time they are iterated."""

    def __init__(self, connection: sqlite3.Connection, sql: str) -> None:
        self._connection = connection
        self._sql = sql

    def __iter__(self) -> Iterator[Row]:
        try:
            yield from self._connection.execute(self._sql)
        except sqlite3.Error as error:
            raise Refused(f"it cannot be read ({error})") from error


def quoted(name: str) -> str:
    """Return a name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def _schema(connection: sqlite3.Connection) -> str:
    """Return the whole schema table as one text; its root page is always 1, so this is right for any file that was loaded.

    The name adds nothing to the SQL, except for the indexes that SQLite makes by itself.
    """
    sql = "SELECT group_concat(ifnull(sql, name) || char(0) || rootpage, char(0)) FROM sqlite_master"
    return str(connection.execute(sql).fetchone()[0])


def _layout(connection: sqlite3.Connection) -> _Layout:
    rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND rootpage > 0 AND name NOT GLOB 'sqlite_*'")
    tables = [name for (name,) in rows]
    columns = {
        name: tuple(
            column for (column,) in connection.execute("SELECT name FROM pragma_table_xinfo(?) WHERE hidden = 0", (name,))
        )
        for name in tables
    }
    selections = {
        name: f"SELECT {', '.join(map(quoted, columns[name]))} FROM {quoted(name)}"  # noqa: S608
        for name in tables
    }
    parts = (f"SELECT {_text(name)} WHERE EXISTS (SELECT 1 FROM {quoted(name)})" for name in tables)  # noqa: S608
    return _Layout(_schema(connection), columns, selections, " UNION ALL ".join(parts) or "SELECT 1 WHERE 0")


def _text(value: str) -> str:
    """Return a text as an SQL string."""
    return "'" + value.replace("'", "''") + "'"


def _mark(connection: sqlite3.Connection) -> Mark | None:
    row = connection.execute("SELECT rowid, key, timestamp, step, run_uuid FROM metrics ORDER BY rowid DESC LIMIT 1").fetchone()
    return Mark(*row) if row else None


def _still_has(connection: sqlite3.Connection, mark: Mark) -> bool:
    sql = "SELECT rowid, key, timestamp, step, run_uuid FROM metrics WHERE rowid = ?"
    row = connection.execute(sql, (mark.rowid,)).fetchone()
    return row is not None and Mark(*row) == mark

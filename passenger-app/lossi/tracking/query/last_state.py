"""The last committed state of locked databases: a private copy in which SQLite rolls back what was not committed.

A copy of a database with its journal is what a crash at that moment would have left, and SQLite recovers from that. So a lock
that is never released (a dead node, locks not shared between nodes) does not hide the runs. Writes only below the machine's
temporary folder.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from lossi import settings, units
from lossi.errors import Unavailable
from lossi.files import atomic

MAX_BYTES = 2**30
TRIES = 5
COMPANIONS = ("-journal", "-wal")
MAGIC = bytes.fromhex("d9d505f920a163d7")
"""First bytes of a rollback journal, and last bytes of one that belongs to a transaction over several databases."""


@contextlib.contextmanager
def copied(databases: Sequence[Path]) -> Iterator[list[Path]]:
    """Copy databases with their journals to a private folder that is removed at the end.

    Must not run while this process has one of them open: closing a file releases all locks of a process on it.

    Raises
    ------
    Unavailable
        If one is too large, changes faster than it can be copied, or there is no space.
    """
    size = sum(path.stat().st_size for path in databases if path.exists())
    if size > MAX_BYTES:
        raise Unavailable(
            f"{databases[0]} is locked by a writer",
            why=f"at {units.humanize_size(size)} it is too large to read a copy",
            hint="try again in a few seconds",
        )
    try:
        with tempfile.TemporaryDirectory(prefix="lossi-state-", dir=settings.temporary_dir()) as folder:
            copies = [Path(folder) / path.name for path in databases]
            for source, target in zip(databases, copies, strict=True):
                _copy(source, target)
                _recover(target)
            yield copies
    except OSError as error:
        raise atomic.explained(error, settings.temporary_dir()) from error


def _copy(source: Path, target: Path) -> None:
    for _ in range(TRIES):
        before = _mark(source)
        with contextlib.suppress(FileNotFoundError):
            shutil.copyfile(source, target)
            # After the database: what was overwritten in it meanwhile is now in the journal.
            for suffix in COMPANIONS:
                companion = target.with_name(target.name + suffix)
                companion.unlink(missing_ok=True)
                with contextlib.suppress(FileNotFoundError):
                    shutil.copyfile(source.with_name(source.name + suffix), companion)
            _make_independent(target.with_name(target.name + COMPANIONS[0]))
        if _mark(source) == before:
            return
    raise Unavailable(f"{source} is locked and changes faster than it can be copied", hint="try again in a few seconds")


def _make_independent(journal: Path) -> None:
    """Remove from a copied journal that the transaction spans several databases.

    SQLite ignores a journal whose super-journal is gone (the transaction was committed), but the copy of the database may be
    older than that. The name of the super-journal is at the end: locking page (4 bytes), name, its length (4), checksum (4),
    magic (8); see `writeSuperJournal` in SQLite's pager.c.
    """
    try:
        with journal.open("r+b") as stream:
            end = stream.seek(0, os.SEEK_END)
            if end < len(MAGIC) + 12:
                return
            stream.seek(end - 16)
            length = int.from_bytes(stream.read(4), "big")
            stream.seek(end - len(MAGIC))
            if stream.read() == MAGIC and length + 20 <= end:
                stream.truncate(end - length - 20)
    except FileNotFoundError:
        return


def _recover(copy: Path) -> None:
    """Let SQLite roll back the copy, which a read-only connection may not."""
    if copy.exists():
        with contextlib.closing(sqlite3.connect(copy, isolation_level=None)) as connection:
            connection.execute("PRAGMA trusted_schema=OFF")
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()


def _mark(database: Path) -> tuple[object, ...]:
    """Return what stays the same during one transaction, or while there is none.

    Bytes 12 to 23 are a rollback journal's random nonce and the database's first size, or a write-ahead log's checkpoint
    number and salts (https://www.sqlite.org/fileformat2.html). Without a journal the database must be unchanged.
    """
    marks: list[object] = []
    for suffix in COMPANIONS:
        try:
            with database.with_name(database.name + suffix).open("rb") as stream:
                identity = stream.read(24)[12:]
            marks.append(identity if any(identity) else b"")  # a persistent journal is zeroed at the end
        except FileNotFoundError:
            marks.append(b"")
    if not any(marks):
        with contextlib.suppress(FileNotFoundError):
            status = database.stat()
            marks += [status.st_mtime_ns, status.st_size, status.st_ino]
    return tuple(marks)

"""Batches: snapshots are read outside the store's lock, merged together in one short transaction, and removed after it.

Room: tracking. Reads job directories; writes the store and the index on one connection; removes snapshot files whose content
is committed.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from sqlite3 import connect

from lossi.contract import records
from lossi.errors import LossiError
from lossi.projects import Project, stores
from lossi.tracking.ingest import lease as leases, seed
from lossi.tracking.ingest.delivery import Delivery
from lossi.tracking.ingest.job_folders import Found, Look, SnapshotFile
from lossi.tracking.ingest.ledger import mark_from
from lossi.tracking.ingest.merge import TABLES, Merger
from lossi.tracking.ingest.report import UNKNOWN_REVISION, Tally
from lossi.tracking.ingest.snapshots import LARGE_BYTES, Contents, Reader, Refused

BATCH = 128
"""Snapshots in one transaction."""
FIRST_BATCH = 16
"""The first one where time is short, until it is known how long they take."""
BATCH_BYTES = 48 * 1024 * 1024
HOLD_S = 0.5
"""The store is locked for other writers about this long at a time (MLflow waits up to 20 s)."""
PATIENCE_S = 20.0
"""How long to wait for another writer, where time is not short."""
ENVIRONMENT_ERRORS = frozenset(
    (
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_READONLY,
    )
)
"""Primary result codes that say something of the store and its disk, not of what is written there."""


@dataclass(frozen=True)
class Arrived:
    """A task whose newest good snapshot was read; or an ended one that has none."""

    found: Found
    file: SnapshotFile | None = None
    contents: Contents | None = None
    final: bool = True


@dataclass(frozen=True)
class _Refusal:
    found: Found
    file: SnapshotFile
    reason: str


class Session:
    """One ingest's connection to store and index, under a lease.

    Parameters
    ----------
    readable
        Stands for what this Lossi can read (see `SnapshotFile.stamp`).

    Raises
    ------
    sqlite3.Error
        When the store cannot be opened.
    """

    def __init__(self, project: Project, lease: leases.Lease, tally: Tally, readable: str) -> None:
        self._project = project
        self._lease = lease
        self._tally = tally
        self._readable = readable
        self._reader = Reader(TABLES)
        self._seeds: dict[str, seed.Seed] = {}
        self._refusals: list[_Refusal] = []
        self._cleaned: list[tuple[str, int]] = []
        self._rate = 0.0
        self._began = 0.0
        patience = PATIENCE_S if tally.budget_s is None else max(0.1, min(tally.budget_s, 1.0))
        self.connection = connect(_uri(project.store), uri=True, timeout=patience, isolation_level=None, cached_statements=256)
        try:
            self.connection.execute("PRAGMA trusted_schema=OFF")
            self.connection.execute("ATTACH ? AS lossi", (_uri(project.index),))
            for schema in ("main", "lossi"):
                self.connection.execute(f"PRAGMA {schema}.synchronous=FULL")
            self.connection.execute("PRAGMA main.cache_size=-32768")
            self.revision = self._revision()
        except BaseException:
            self.connection.close()
            raise

    def close(self) -> None:
        """Close all that is open."""
        self._reader.close()
        self.connection.close()

    def __enter__(self) -> Session:
        """Use it for the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def in_step(self) -> bool:
        """Whether store and index can be committed together: neither has a write-ahead log, or it could be switched off."""
        for schema in ("main", "lossi"):
            mode = self.connection.execute(f"PRAGMA {schema}.journal_mode").fetchone()[0]
            if mode == "wal":
                with contextlib.suppress(sqlite3.OperationalError):
                    mode = self.connection.execute(f"PRAGMA {schema}.journal_mode=DELETE").fetchone()[0]
            if mode == "wal":
                return False
        return True

    def prepare(self) -> None:
        """Make ready to merge; mends what a killed ingest or a deleted index left."""
        self._merger = Merger(self.connection, self._step)
        self.ledger = self._merger.ledger
        with self._transaction():
            self.ledger.adopt()
            # The super-journal of a killed commit. Both files are locked and whole now, so nothing refers to it any more.
            for path in (self._project.store, self._project.index):
                leases.remove_old(path.parent, f"{path.name}-mj*")

    def take(self, found: Iterable[Found]) -> None:
        """Take in what was found until the time is over."""
        batch: list[Arrived] = []
        size, began = 0, time.monotonic()
        for one in found:
            self._lease.beat()
            if one.clean_only:
                self._clean(one)
            elif (arrived := self._read(one)) is not None:
                if arrived.contents is not None and arrived.contents.large:
                    self._commit(batch)
                    batch = []
                batch.append(arrived)
                size += arrived.contents.bytes if arrived.contents else 0
            if self._tally.over():
                break
            large = bool(batch) and batch[-1].contents is not None and batch[-1].contents.large
            if len(batch) >= self._limit() or size >= BATCH_BYTES or large or time.monotonic() - began > HOLD_S:
                self._commit(batch)
                batch, size, began = [], 0, time.monotonic()
                if self._tally.over():
                    break
        self._commit(batch)

    def finish(self, look: Look) -> None:
        """Write down what was tidied up or refused, and which jobs are done with."""
        if self._cleaned or self._refusals or look.finished():
            with self._transaction():
                self._flush()
                for job in look.finished():
                    self.ledger.complete(job)

    def _flush(self) -> None:
        self.ledger.cleaned(self._cleaned)
        for refusal in self._refusals:
            found, file = refusal.found, refusal.file
            self.ledger.refuse(found.job_id, found.task, file.path.name, file.stamp(self._readable), refusal.reason)
        self._cleaned, self._refusals = [], []

    def _limit(self) -> int:
        """Return how many snapshots the next transaction takes."""
        left = self._tally.left_s()
        if left is None:
            return BATCH
        return max(1, min(BATCH, int(self._rate * left * 0.8))) if self._rate else FIRST_BATCH

    def _read(self, found: Found) -> Arrived | None:
        """Read the newest good snapshot of a task; None when there is nothing (more) to do."""
        final = found.final and not found.newest_refused
        for file in found.snapshots:
            if self._tally.budget_s is not None and file.bytes > LARGE_BYTES:
                self._tally.remaining += 1  # left to an ingest that has the time
                return None
            after = None if final else mark_from(self.ledger.base(found.job_id, found.task))
            try:
                contents = self._reader.read(file.path, file.digest, after=after)
                if contents.revision not in stores.KNOWN_REVISIONS:
                    contents.close()
                    raise Refused(f"{UNKNOWN_REVISION} {contents.revision}")
                return Arrived(found, file, contents, final)
            except FileNotFoundError:
                return None  # a newer one took its place; the next look finds it
            except Refused as error:
                self._refuse(found, file, error.reason)
                final = False
            except OSError as error:
                self._tally.refused(found.job_id, f"it cannot be read ({error.strerror})")
                return None
        return Arrived(found) if final else None

    def _refuse(self, found: Found, file: SnapshotFile, reason: str) -> None:
        self._refusals.append(_Refusal(found, file, reason))
        self._tally.refused(found.job_id, reason)

    def _commit(self, batch: list[Arrived]) -> None:
        """Merge a batch in one transaction; when one of it is at fault, the others go in without it."""
        if not batch:
            return
        began = time.monotonic()
        try:
            try:
                deliveries = self._merge(batch)
            except Exception as error:
                if isinstance(error, LossiError) or is_environment(error):
                    raise
                if len(batch) > 1:
                    for one in batch:
                        self._commit([one])
                elif batch[0].file is not None:
                    reason = (
                        error.reason if isinstance(error, Refused) else f"it cannot be merged ({type(error).__name__}: {error})"
                    )
                    self._refuse(batch[0].found, batch[0].file, reason)
                return
        finally:
            for one in batch:
                if one.contents is not None:  # a large one is always alone
                    one.contents.close()
        self._rate = len(batch) / max(time.monotonic() - began, 1e-6)
        self._after(batch, deliveries)

    def _merge(self, batch: list[Arrived]) -> list[Delivery]:
        deliveries = []
        with self._transaction():
            self._flush()
            for one in batch:
                if one.file is None or one.contents is None:
                    self._finish_empty(one.found)
                    continue
                base = self.ledger.base(one.found.job_id, one.found.task)
                given = self._seed(one.found.job_id)
                base.seed = given.values
                deliveries.append(Delivery(one.found, one.file, one.contents, one.final, base, given))
            self._merger.merge(deliveries)
            for one in batch:
                if one.final and not one.found.has_runners_account():
                    self.ledger.end_runs(one.found.job_id, one.found.task)
        return deliveries

    def _finish_empty(self, found: Found) -> None:
        """Note the end of a task that published nothing (more)."""
        known = self.ledger.task_run_ids(found.job_id, found.task)
        named = [run for run in found.run_ids() if run in known] if known else []
        self.ledger.place_runs(found.job_id, found.task, dict.fromkeys([*named, *known]))
        self.ledger.taken(found.job_id, found.task, 0, "", final=True)

    def _after(self, batch: list[Arrived], deliveries: list[Delivery]) -> None:
        """Count what was committed and remove the files of ended tasks, except those that hold what was not merged."""
        kept = set()
        for delivery in deliveries:
            self._tally.taken += 1
            self._tally.runs.update(delivery.runs)
            if delivery.unmerged:
                self._tally.unmerged |= delivery.unmerged
                kept.add((delivery.found.job_id, delivery.found.task))
        for one in batch:
            if not one.final:
                continue
            if (one.found.job_id, one.found.task) in kept:
                self._cleaned.append((one.found.job_id, one.found.task))
            else:
                self._clean(one.found)

    def _clean(self, found: Found) -> None:
        for file in found.files:
            try:
                file.path.unlink(missing_ok=True)
            except OSError:
                return  # somebody else's; their ingest will
        self._cleaned.append((found.job_id, found.task))

    def _seed(self, job_id: str) -> seed.Seed:
        if job_id not in self._seeds:
            self._seeds[job_id] = seed.read(self._reader, self._project.jobs / job_id / records.TEMPLATE)
        return self._seeds[job_id]

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self.connection.execute("BEGIN IMMEDIATE")
        self._began = time.monotonic()
        try:
            yield
            self._lease.verify()
            self.connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self.connection.execute("ROLLBACK")
            raise

    def _step(self) -> None:
        """Let others in, between portions of very many rows: everything written so far may be written again."""
        self._lease.beat()
        if time.monotonic() - self._began > HOLD_S:
            self._lease.verify()
            self.connection.execute("COMMIT")
            self.connection.execute("BEGIN IMMEDIATE")
            self._began = time.monotonic()

    def _revision(self) -> str | None:
        try:
            rows = self.connection.execute("SELECT version_num FROM main.alembic_version").fetchall()
        except sqlite3.OperationalError as error:
            if is_environment(error):
                raise
            return None
        return str(rows[0][0]) if len(rows) == 1 else None


def is_environment(error: BaseException) -> bool:
    """Whether an error comes from the store or its disk, so that no other snapshot would fare better."""
    return isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) & 0xFF in ENVIRONMENT_ERRORS


def _uri(path: Path) -> str:
    """Return an SQLite URI; quoted, because a user's path may hold ``?`` or ``%``."""
    return f"{Path(os.path.abspath(path)).as_uri()}?mode=rw"  # noqa: PTH100

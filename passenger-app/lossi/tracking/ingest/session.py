"""One ingest's session: reads snapshots without locking the store, merges a batch in a short transaction, then removes its files.

Reads job directories; writes the store and the index on one connection; removes snapshot files whose content is committed.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from sqlite3 import connect

from lossi.contract import records
from lossi.errors import LossiError
from lossi.projects import Project, stores
from lossi.tracking.ingest import lease as leases, merge, template
from lossi.tracking.ingest.incoming import IncomingSnapshot
from lossi.tracking.ingest.ledger import Ledger
from lossi.tracking.ingest.progress import UNKNOWN_REVISION, Progress
from lossi.tracking.ingest.scan import PendingTask, Scan, SnapshotFile
from lossi.tracking.ingest.snapshots import LARGE_BYTES, Reader, Refused
from lossi.tracking.ingest.writer import Writer

BATCH = 128
"""Snapshots in one transaction."""
FIRST_BATCH = 16
"""Snapshots in the first one, under a budget, until it is known how long they take."""
BATCH_BYTES = 48 * 1024 * 1024
HOLD_S = 0.5
"""The store is locked for other writers for about this long at a time (MLflow waits up to 20 s)."""
PATIENCE_S = 20.0
"""How long to wait for another writer without a budget."""
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
"""Primary result codes that are about the store and its disk, not about what is written."""

Batch = list[tuple[PendingTask, IncomingSnapshot | None]]
"""Tasks with their newest good snapshot; None for an ended task that has none."""


class Session:
    """One ingest's connection to store and index, under a lease.

    Parameters
    ----------
    readable
        What this Lossi can read (see `SnapshotFile.stamp`).

    Raises
    ------
    sqlite3.Error
        If the store cannot be opened.
    """

    def __init__(self, project: Project, lease: leases.Lease, progress: Progress, readable: str) -> None:
        self._project = project
        self._lease = lease
        self._progress = progress
        self._readable = readable
        self._reader = Reader(merge.TABLES)
        self._templates: dict[str, template.Template] = {}
        self._refusals: list[tuple[PendingTask, SnapshotFile, str]] = []
        self._cleaned: list[tuple[str, int]] = []
        self._snapshots_per_s = 0.0
        self._began = 0.0
        patience = PATIENCE_S if progress.budget_s is None else max(0.1, min(progress.budget_s, 1.0))
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

    def __enter__(self) -> Session:
        """Use the session for the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self._reader.close()
        self.connection.close()

    def disable_wal(self) -> bool:
        """Return whether store and index can be committed together: neither uses a write-ahead log (any more)."""
        for schema in ("main", "lossi"):
            mode = self.connection.execute(f"PRAGMA {schema}.journal_mode").fetchone()[0]
            if mode == "wal":
                with contextlib.suppress(sqlite3.OperationalError):
                    mode = self.connection.execute(f"PRAGMA {schema}.journal_mode=DELETE").fetchone()[0]
            if mode == "wal":
                return False
        return True

    def prepare(self) -> None:
        """Get ready to merge; repairs what a killed ingest or a deleted index left."""
        self._writer = Writer(self.connection, self._yield_to_others)
        self.ledger = Ledger(self.connection, "lossi")
        with self._transaction():
            self.ledger.restore()
            # The super-journal of a killed commit: both files are locked and whole now, so nothing refers to it.
            for path in (self._project.store, self._project.index):
                leases.remove_old(path.parent, f"{path.name}-mj*")

    def ingest(self, tasks: Iterable[PendingTask]) -> None:
        """Ingest tasks until the budget is used up."""
        batch: Batch = []
        size, began = 0, time.monotonic()
        for task in tasks:
            self._lease.beat()
            large = False
            if task.clean_only:
                self._clean(task)
            elif (item := self._read(task)) is not None:
                snapshot = item[1]
                large = snapshot is not None and snapshot.contents.large
                if large:  # a large one is always alone
                    self._commit(batch)
                    batch = []
                batch.append(item)
                size += snapshot.contents.bytes if snapshot else 0
            if self._progress.is_over():
                break
            if large or len(batch) >= self._batch_limit() or size >= BATCH_BYTES or time.monotonic() - began > HOLD_S:
                self._commit(batch)
                batch, size, began = [], 0, time.monotonic()
                if self._progress.is_over():
                    break
        self._commit(batch)

    def finish(self, scan: Scan) -> None:
        """Record what was cleaned or refused, and which jobs are completed."""
        if self._cleaned or self._refusals or scan.finished_jobs():
            with self._transaction():
                self._flush()
                for job in scan.finished_jobs():
                    self.ledger.complete(job)

    def _flush(self) -> None:
        self.ledger.record_cleaned(self._cleaned)
        for task, file, reason in self._refusals:
            self.ledger.refuse(task.job_id, task.task, file.path.name, file.stamp(self._readable), reason)
        self._cleaned, self._refusals = [], []

    def _batch_limit(self) -> int:
        """Return how many snapshots the next transaction may have."""
        left = self._progress.left_s()
        if left is None:
            return BATCH
        return max(1, min(BATCH, int(self._snapshots_per_s * left * 0.8))) if self._snapshots_per_s else FIRST_BATCH

    def _read(self, task: PendingTask) -> tuple[PendingTask, IncomingSnapshot | None] | None:
        """Read the newest good snapshot of a task; return None if there is nothing (more) to do."""
        final = task.final and not task.newest_refused
        for file in task.snapshots:
            if self._progress.budget_s is not None and file.bytes > LARGE_BYTES:
                self._progress.remaining += 1  # left to an ingest without a budget
                return None
            after = None if final else self.ledger.base(task.job_id, task.task).metrics_mark
            try:
                contents = self._reader.read(file.path, file.digest, after=after)
                if contents.revision not in stores.KNOWN_REVISIONS:
                    contents.close()
                    raise Refused(f"{UNKNOWN_REVISION} {contents.revision}")
                return task, IncomingSnapshot(task, file, contents, final)
            except FileNotFoundError:
                return None  # a newer one replaced it; the next scan finds it
            except Refused as error:
                self._refuse(task, file, error.reason)
                final = False
            except OSError as error:
                self._progress.add_refused(task.job_id, f"it cannot be read ({error.strerror})")
                return None
        return (task, None) if final else None

    def _refuse(self, task: PendingTask, file: SnapshotFile, reason: str) -> None:
        self._refusals.append((task, file, reason))
        self._progress.add_refused(task.job_id, reason)

    def _commit(self, batch: Batch) -> None:
        """Merge a batch in one transaction; if one snapshot is at fault, the others are merged without it."""
        if not batch:
            return
        began = time.monotonic()
        try:
            try:
                self._merge(batch)
            except Exception as error:
                if isinstance(error, LossiError) or is_environment(error):
                    raise
                if len(batch) > 1:
                    for item in batch:
                        self._commit([item])
                elif (snapshot := batch[0][1]) is not None:
                    reason = (
                        error.reason if isinstance(error, Refused) else f"it cannot be merged ({type(error).__name__}: {error})"
                    )
                    self._refuse(snapshot.task, snapshot.file, reason)
                return
        finally:
            for _, snapshot in batch:
                if snapshot is not None:
                    snapshot.contents.close()
        self._snapshots_per_s = len(batch) / max(time.monotonic() - began, 1e-6)
        self._after(batch)

    def _merge(self, batch: Batch) -> None:
        with self._transaction():
            self._flush()
            for task, snapshot in batch:
                if snapshot is None:
                    self._end_without_snapshot(task)
                else:
                    snapshot.start(self.ledger.base(task.job_id, task.task), self._template(task.job_id))
            merge.merge(self._writer, self.ledger, [snapshot for _, snapshot in batch if snapshot is not None])
            for task, snapshot in batch:
                if (snapshot is None or snapshot.final) and not task.runner_ended_it():
                    self.ledger.end_runs(task.job_id, task.task)

    def _end_without_snapshot(self, task: PendingTask) -> None:
        """Record the end of a task that published nothing (more)."""
        known = self.ledger.task_run_ids(task.job_id, task.task)
        recorded = [run_id for run_id in task.run_ids() if run_id in known] if known else []
        self.ledger.assign_runs(task.job_id, task.task, dict.fromkeys([*recorded, *known]))
        self.ledger.record_snapshot(task.job_id, task.task, 0, "", final=True)

    def _after(self, batch: Batch) -> None:
        """Count what was committed and remove the files of ended tasks, except those that hold what was not merged."""
        for task, snapshot in batch:
            if snapshot is not None:
                self._progress.taken += 1
                self._progress.runs.update(snapshot.runs)
                self._progress.unmerged |= snapshot.unmerged
            if snapshot is not None and snapshot.final and snapshot.unmerged:
                self._cleaned.append((task.job_id, task.task))
            elif snapshot is None or snapshot.final:
                self._clean(task)

    def _clean(self, task: PendingTask) -> None:
        for file in task.files:
            try:
                file.path.unlink(missing_ok=True)
            except OSError:
                return  # another user's: their ingest removes it
        self._cleaned.append((task.job_id, task.task))

    def _template(self, job_id: str) -> template.Template:
        if job_id not in self._templates:
            self._templates[job_id] = template.read(self._reader, self._project.jobs / job_id / records.TEMPLATE)
        return self._templates[job_id]

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

    def _yield_to_others(self) -> None:
        """Commit between portions of very many rows if the store was locked for long; all written so far may be written again."""
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
    """Return whether an error is about the store or its disk, so that every other snapshot would fail too."""
    return isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) & 0xFF in ENVIRONMENT_ERRORS


def _uri(path: Path) -> str:
    """Return an SQLite URI; quoted, because a path may contain ``?`` or ``%``."""
    return f"{Path(os.path.abspath(path)).as_uri()}?mode=rw"  # noqa: PTH100

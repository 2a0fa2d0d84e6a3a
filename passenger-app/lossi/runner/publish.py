"""Publishes snapshots of a task's store: whole, checksummed, immutable copies in its folder on the shared filesystem.

Tracking leaves the node in no other way, so nothing depends on locks across nodes. A snapshot is
``tracking-<seq>-<sha256[:16]>.db`` (`records.SNAPSHOT_PATTERN`); the greatest seq is the newest, and older ones are removed
once it is in place. SQLite's backup API copies one committed state while a client keeps writing.
"""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import threading
import time
from pathlib import Path
from typing import Callable, List, Optional, Tuple

from ..contract.records import SNAPSHOT_PATTERN
from .errors import explained
from .store import StoreError
from .writing import copy, sha256

Amend = Callable[[sqlite3.Connection], None]

SNAPSHOT = re.compile(r"tracking-(\d{8,})-([0-9a-f]{16})\.db")
BUSY_S = 30.0
"""Seconds to wait for a client that holds the store's lock."""
FIRST_S = 3.0
"""Seconds before the first publication: a short task publishes once, at its end."""


def publish(store: Path, task_folder: Path, seq: int, *, amend: Optional[Amend] = None, busy_s: float = BUSY_S) -> Path:
    """Publish the current store and return the snapshot's path.

    Parameters
    ----------
    store
        The task's store on node-local disk; the working copy is made next to it.
    task_folder
        ``tasks/<n>`` of the job.
    seq
        Greater than that of every earlier snapshot of the task.
    amend
        Changes the copy before it is published, not the store itself.
    busy_s
        Seconds to wait for a client that holds the store's lock.

    Raises
    ------
    OSError
        When the snapshot cannot be written; the previous one stays.
    sqlite3.Error
        When the store cannot be read, or is locked for longer than ``busy_s``.
    """
    working = store.with_name(f"publish-{seq}.db")
    try:
        backup(store, working, busy_s)
        if amend is not None:
            connection = sqlite3.connect(working, isolation_level=None)
            try:
                connection.execute("PRAGMA trusted_schema=OFF")
                connection.execute("PRAGMA synchronous=OFF")
                connection.execute("BEGIN")
                amend(connection)
                connection.execute("COMMIT")
            finally:
                connection.close()
        target = task_folder / SNAPSHOT_PATTERN.format(seq=seq, digest=sha256(working)[:16])
        copy(working, target)
    finally:
        try:
            working.unlink()
        except OSError:
            pass
    for older, path in snapshots(task_folder):
        if older < seq:
            try:
                path.unlink()
            except OSError:
                pass
    return target


def backup(store: Path, target: Path, busy_s: float = BUSY_S) -> None:
    """Copy one committed state of a store into a new file with a rollback journal.

    Raises
    ------
    sqlite3.Error
        When it cannot be read or written, or is locked for longer than ``busy_s``.
    """
    deadline = time.monotonic() + busy_s

    def waiting(_status: int, _remaining: int, _total: int) -> None:
        if time.monotonic() > deadline:
            raise sqlite3.OperationalError(f"the store was locked for more than {busy_s:g} s")

    source = sqlite3.connect(store, timeout=1.0, isolation_level=None)
    try:
        copied = sqlite3.connect(target, isolation_level=None)
        try:
            copied.execute("PRAGMA synchronous=OFF")
            # In one step: with several, a commit of the client in between would restart the copy.
            source.backup(copied, pages=-1, progress=waiting, sleep=0.01)
            copied.execute("PRAGMA journal_mode=DELETE")
        finally:
            copied.close()
    finally:
        source.close()


def snapshots(task_folder: Path) -> List[Tuple[int, Path]]:
    """Return the published snapshots of a task as (seq, path), oldest first."""
    numbered = []
    for name in os.listdir(task_folder):
        match = SNAPSHOT.fullmatch(name)
        if match:
            numbered.append((int(match.group(1)), task_folder / name))
    return sorted(numbered)


def restore(task_folder: Path, store: Path) -> bool:
    """Restore the store of a requeued task from its newest whole snapshot; return whether there was one.

    Raises
    ------
    OSError
        When it cannot be copied.
    """
    for _seq, path in reversed(snapshots(task_folder)):
        match = SNAPSHOT.fullmatch(path.name)
        if match and sha256(path).startswith(match.group(2)):
            shutil.copyfile(path, store)
            return True
    return False


def state_of(store: Path) -> Tuple[bytes, Tuple[int, int]]:
    """Return what changes with every commit: the file change counter and the write-ahead log. Takes no lock.

    The counter is bytes 24 to 28 of a SQLite file (https://sqlite.org/fileformat2.html); in WAL mode it waits for a checkpoint.
    """
    try:
        with open(store, "rb") as stream:
            stream.seek(24)
            counter = stream.read(4)
    except OSError:
        counter = b""
    try:
        log = os.stat(f"{store}-wal")
        return counter, (log.st_size, log.st_mtime_ns)
    except OSError:
        return counter, (0, 0)


class Publisher:
    """Publishes a store while its task runs: if it changed and has a run, at most once per interval.

    `poll` returns at once; a thread does the work, because a shared filesystem may be slow. ``problem`` is the last failure
    until a snapshot succeeds.
    """

    def __init__(self, store: Path, task_folder: Path, *, interval_s: float, amend: Amend, first_seq: int = 0) -> None:
        self.store = store
        self.task_folder = task_folder
        self.interval_s = interval_s
        self.amend = amend
        self.problem = ""
        earlier = snapshots(task_folder)
        self._seq = max(first_seq, earlier[-1][0] if earlier else 0)
        self._published_state = state_of(store)
        self._next = time.monotonic() + min(interval_s, FIRST_S)
        self._thread: Optional[threading.Thread] = None

    def poll(self) -> None:
        """Start publishing if it is due."""
        if time.monotonic() < self._next or (self._thread is not None and self._thread.is_alive()):
            return
        state = state_of(self.store)
        if state != self._published_state:
            self._published_state = state
            self._next = time.monotonic() + self.interval_s
            self._thread = threading.Thread(target=self._publish, name="publisher", daemon=True)
            self._thread.start()

    def wait(self) -> None:
        """Wait for a running publication."""
        if self._thread is not None:
            self._thread.join()

    def finish(self) -> None:
        """Publish the final store, when nobody writes to it any more."""
        self.wait()
        self._publish(always=True)

    def _publish(self, *, always: bool = False) -> None:
        try:
            if not always and not _has_runs(self.store):
                self._next = time.monotonic() + min(self.interval_s, 1.0)
                return
            publish(self.store, self.task_folder, self._seq + 1, amend=None if always else self.amend)
            self._seq += 1
            self.problem = ""
        except OSError as error:
            self.problem = f"not published: {explained(error)}"
        except (sqlite3.Error, StoreError) as error:
            self.problem = f"not published: {error}"


def _has_runs(store: Path) -> bool:
    connection = sqlite3.connect(store, timeout=BUSY_S, isolation_level=None)
    try:
        return bool(connection.execute("SELECT EXISTS (SELECT 1 FROM runs)").fetchone()[0])
    finally:
        connection.close()

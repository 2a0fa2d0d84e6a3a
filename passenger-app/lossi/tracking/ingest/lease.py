"""The lease: at most one process ingests a project, on whichever node it runs.

Touches only ``.lossi/ingest.lease`` and ``.lossi/ingest.lock``. Two guards, because neither is enough alone: an flock (exact, but
on some network filesystems it works on one node only, or not at all) and a lease file created by an exclusive link (works across
nodes; the holder proves that it is alive by the file's modification time, taken from the filesystem's own clock).
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import json
import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from lossi.errors import LossiError
from lossi.files import atomic, permissions
from lossi.processes import ProcessIdentity

LEASE = "ingest.lease"
LOCK = "ingest.lock"
STALE_S = 60.0
"""A holder that has not updated the lease for this long has lost it."""
BEAT_S = 5.0
"""A holder updates the lease this often."""


class LeaseLost(LossiError):
    """Another process has taken the lease: nothing may be committed."""

    status = 503
    slug = "unavailable"
    title = "Temporarily unavailable"
    exit_code = 5


@dataclass(frozen=True)
class Holder(ProcessIdentity):
    """The process that holds the lease."""

    token: str = ""


class Lease:
    """A held lease, from `acquire_lease`; a context manager that releases it."""

    def __init__(self, home: Path, token: str, lock: int | None) -> None:
        self._path = home / LEASE
        self._token = token
        self._lock = lock
        self._beaten = time.monotonic()

    def beat(self) -> None:
        """Update the lease, at most every `BEAT_S`."""
        now = time.monotonic()
        if now - self._beaten >= BEAT_S:
            with contextlib.suppress(OSError):
                os.utime(self._path)
            self._beaten = now

    def verify(self) -> None:
        """Raise `LeaseLost` if the lease is no longer ours; called before each commit."""
        holder = _read(self._path)
        if holder is None or holder.token != self._token:
            raise LeaseLost(
                "another process took over the ingest of this project",
                why="this one did not respond for a minute",
                hint="nothing is lost: the other process continues",
            )

    def release(self) -> None:
        """Release the lease, unless another process has taken it meanwhile."""
        with contextlib.suppress(OSError, LossiError):
            _remove(self._path, self._token)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Lease:
        """Hold the lease for the block."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Release it."""
        self.release()


def acquire_lease(home: Path) -> Lease | None:
    """Acquire the lease of the project whose ``.lossi`` folder is ``home``; return None if another process holds it.

    Raises
    ------
    Forbidden
        If the user may not write there.
    Unavailable
        If the filesystem is full or read-only.
    """
    held, lock = _lock(home / LOCK)
    if not held:
        return None
    try:
        token = secrets.token_hex(16)
        path = home / LEASE
        data = json.dumps(dataclasses.asdict(_me(token))).encode()
        for _ in range(3):
            if atomic.create_exclusive(path, data, mode=0o660):
                remove_old(home, f".{LEASE}.*")
                return _verified(Lease(home, token, lock))
            stale = _stale(path)
            if stale is None:
                break
            _remove(path, stale)
    except BaseException:
        if lock is not None:
            os.close(lock)
        raise
    if lock is not None:
        os.close(lock)
    return None


def remove_old(folder: Path, pattern: str) -> None:
    """Remove files of a killed process once they are certainly not in use."""
    for path in folder.glob(pattern):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > STALE_S:
                path.unlink()


def _verified(lease: Lease) -> Lease | None:
    """Return the lease if it is still ours: another process that found the former one stale may have removed the new one."""
    try:
        lease.verify()
    except LeaseLost:
        lease.release()
        return None
    return lease


def _lock(path: Path) -> tuple[bool, int | None]:
    """Take the flock; (True, None) if locks do not work, (False, None) if another process has it."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o660)
    except OSError as error:
        if path.exists():  # another user's, whose umask keeps us out: the lease file alone must do
            return True, None
        raise atomic.explained(error, path) from error
    if permissions.is_shared(path.parent):
        with contextlib.suppress(OSError):
            os.fchmod(descriptor, permissions.file_mode(path.parent))
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        return error.errno not in (errno.EWOULDBLOCK, errno.EACCES), None
    return True, descriptor


def _stale(path: Path) -> str | None:
    """Return the token of a lease whose holder is gone (``""`` for an unreadable old one), or None if it is held.

    A lease that disappears meanwhile counts as held: its holder just released it, and the next call finds it free.
    """
    probe = path.with_name(f".{path.name}.{secrets.token_hex(6)}.now")
    try:
        modified = path.stat().st_mtime
        descriptor = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            now = os.fstat(descriptor).st_mtime
        finally:
            os.close(descriptor)
            probe.unlink(missing_ok=True)
    except OSError:
        return None
    holder = _read(path)
    if now - modified > STALE_S:
        return holder.token if holder else ""
    if holder is not None and holder.is_gone():
        return holder.token
    return None


def _remove(path: Path, token: str) -> None:
    """Remove the lease with this token; any other is put back.

    It is moved before it is checked, so that of two processes that find the same lease stale only one removes it.
    """
    holder = _read(path)
    if (holder.token if holder else "") != token:
        return
    aside = path.with_name(f".{path.name}.{secrets.token_hex(6)}.stale")
    try:
        path.rename(aside)
    except FileNotFoundError:
        return
    except OSError as error:
        raise atomic.explained(error, path) from error
    moved = _read(aside)
    if (moved.token if moved else "") != token:
        with contextlib.suppress(OSError):
            os.link(aside, path)
    aside.unlink(missing_ok=True)


def _read(path: Path) -> Holder | None:
    try:
        data: Any = json.loads(path.read_bytes())
        return Holder(**data)
    except (OSError, ValueError, TypeError):
        return None


def _me(token: str) -> Holder:
    return Holder(**dataclasses.asdict(ProcessIdentity.current()), token=token)

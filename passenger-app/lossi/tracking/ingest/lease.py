"""The lease: at most one process takes results into a project's store, on whichever node it runs.

Room: tracking. Touches only ``.lossi/ingest.lease`` and ``.lossi/ingest.lock``. Two guards, because neither is enough
alone: an flock (exact, but on some network filesystems it holds on one node only, or not at all) and a lease file made by
an exclusive link (holds on every node; its holder shows that it lives by the file's modification time, set by the
filesystem's own clock).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import json
import os
import secrets
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from lossi.errors import LossiError
from lossi.files import atomic, permissions

LEASE = "ingest.lease"
LOCK = "ingest.lock"
STALE_S = 60.0
"""A lease whose holder has not moved its time for this long has lost it."""
BEAT_S = 5.0
"""A living holder moves the time this often."""


class LeaseLost(LossiError):
    """Another process has taken the lease: what was being done must not be committed."""

    status = 503
    slug = "unavailable"
    title = "Temporarily unavailable"
    exit_code = 5


@dataclass(frozen=True)
class Holder:
    """Who holds the lease: enough to tell on the same machine whether that process still lives."""

    host: str
    pid: int
    started: str
    """Start time of the process in clock ticks since boot, against reused ids."""
    boot: str
    namespace: str
    """The pid namespace: process ids of another container mean nothing here."""
    token: str


class Lease:
    """A held lease. Use as a context manager; made by `acquire`."""

    def __init__(self, home: Path, token: str, lock: int | None) -> None:
        self._path = home / LEASE
        self._token = token
        self._lock = lock
        self._beaten = time.monotonic()

    def beat(self) -> None:
        """Show that the holder lives; costs nothing when it did so a moment ago."""
        now = time.monotonic()
        if now - self._beaten >= BEAT_S:
            with contextlib.suppress(OSError):
                os.utime(self._path)
            self._beaten = now

    def verify(self) -> None:
        """Raise `LeaseLost` when the lease is not ours any more; asked before each commit."""
        holder = _read(self._path)
        if holder is None or holder.token != self._token:
            raise LeaseLost(
                "another process took over the ingest of this project",
                why="this one did not answer for a minute",
                hint="nothing is lost: the other one goes on with it",
            )

    def release(self) -> None:
        """Give the lease back; one that somebody else holds meanwhile is left alone."""
        with contextlib.suppress(OSError, LossiError):
            _take_away(self._path, self._token)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Lease:
        """Hold it for the block."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Release it."""
        self.release()


def acquire_lease(home: Path) -> Lease | None:
    """Take the lease of the project whose ``.lossi`` folder is ``home``; return None when somebody else holds it.

    Raises
    ------
    Forbidden
        When the user may not write there.
    Unavailable
        When the filesystem is full or read-only.
    """
    held, lock = _lock(home / LOCK)
    if not held:
        return None
    try:
        token = secrets.token_hex(16)
        path = home / LEASE
        data = json.dumps(_me(token).__dict__).encode()
        for _ in range(3):
            if atomic.create_exclusive(path, data, mode=0o660):
                remove_old(home, f".{LEASE}.*")
                return _own(Lease(home, token, lock))
            stale = _stale(path)
            if stale is None:
                break
            _take_away(path, stale)
    except BaseException:
        if lock is not None:
            os.close(lock)
        raise
    if lock is not None:
        os.close(lock)
    return None


def remove_old(folder: Path, pattern: str) -> None:
    """Remove what a process that was killed left half done, once it is certainly not in use."""
    for path in folder.glob(pattern):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > STALE_S:
                path.unlink()


def _own(lease: Lease) -> Lease | None:
    """Return the lease if it is still ours: one who judged the former one stale may have moved the new one away."""
    try:
        lease.verify()
    except LeaseLost:
        lease.release()
        return None
    return lease


def _lock(path: Path) -> tuple[bool, int | None]:
    """Take the flock; (True, None) where locks do not work, (False, None) when somebody else has it."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o660)
    except OSError as error:
        if path.exists():  # somebody else's, whose umask lets nobody in: the lease file alone has to do
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
    """Return the token of a lease whose holder is gone (``""`` for an unreadable old one), or None when it is held.

    A lease that vanishes meanwhile counts as held: its holder just released it, and the next call finds it free.
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
    if holder is not None and _dead(holder):
        return holder.token
    return None


def _dead(holder: Holder) -> bool:
    """Whether the holder is known to be gone; another machine's is only known by its heartbeat."""
    if holder.host != socket.gethostname():
        return False
    if holder.boot != _boot():
        return True
    if holder.namespace != _namespace():
        return False
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return True
    except OSError:  # another user's process, whose start time may be hidden from us
        return False
    return _process_started(holder.pid) != holder.started


def _take_away(path: Path, token: str) -> None:
    """Remove the lease that carries ``token``; whatever else is found there is put back.

    Moved first and looked at then, so that two who judge the same lease stale cannot both believe they removed it.
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
    taken = _read(aside)
    if (taken.token if taken else "") != token:
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
    pid = os.getpid()
    return Holder(socket.gethostname(), pid, _process_started(pid), _boot(), _namespace(), token)


def _process_started(pid: int) -> str:
    """Return field 22 of ``/proc/<pid>/stat`` (proc(5)), empty when there is no such process or it is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return ""
    return "" if fields[0] in "ZX" else fields[19]


@functools.cache
def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


@functools.cache
def _namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - not a path but a name of a namespace
    except OSError:
        return ""

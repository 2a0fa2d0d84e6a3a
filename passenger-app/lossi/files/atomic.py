"""Atomic writes: to a temporary file in the same folder, fsync, rename."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from lossi.errors import Forbidden, LossiError, Unavailable


def write(path: Path, data: bytes, *, mode: int = 0o640, durable: bool = True) -> None:
    """Replace the content of ``path``; readers see the old or the new content, never a part of it.

    Without ``durable``, a crash of the machine can lose or truncate the content.

    Raises
    ------
    Unavailable
        When the filesystem is full, over quota or read-only.
    Forbidden
        When the user has no permission to write there.
    """
    with replacing(path, mode=mode, durable=durable) as stream:
        stream.write(data)


@contextlib.contextmanager
def replacing(path: Path, *, mode: int = 0o640, durable: bool = True) -> Iterator[IO[bytes]]:
    """Open a temporary file that replaces ``path`` when the block ends without an exception."""
    temporary = temporary_name(path)
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                yield stream
                stream.flush()
                if durable:
                    os.fsync(stream.fileno())
            temporary.replace(path)
            if durable:
                sync_folder(path.parent)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
    except OSError as error:
        raise explained(error, path) from error


def create_exclusive(path: Path, data: bytes, *, mode: int = 0o640) -> bool:
    """Create ``path`` with ``data`` unless it exists; return whether this call created it. Atomic on NFS too (link)."""
    temporary = temporary_name(path)
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        sync_folder(path.parent)
        return True
    except OSError as error:
        raise explained(error, path) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def temporary_name(path: Path) -> Path:
    """Return a new name in the same folder, for a file that will be renamed to ``path``."""
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}.part")


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on the file ``path``, created if missing, for a read-change-write by one process at a time.

    On a filesystem without locks, the last writer wins.

    Raises
    ------
    Unavailable, Forbidden
        When the lock file cannot be opened.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise explained(error, path) from error
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:  # some network filesystems cannot fsync folders
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def explained(error: OSError, path: Path) -> LossiError:
    """Return the `LossiError` for a failed write to ``path``."""
    if error.errno == errno.ENOSPC:
        return Unavailable(f"cannot write {path}", why="the filesystem is full", hint="free some space there and try again")
    if error.errno == errno.EDQUOT:
        return Unavailable(
            f"cannot write {path}", why="your quota is exceeded", hint="remove files there or ask for more quota, then try again"
        )
    if error.errno == errno.EROFS:
        return Unavailable(
            f"cannot write {path}", why="the filesystem is read-only", hint="use a project on a writable filesystem"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return Forbidden(
            f"cannot write {path}", why="you have no write permission", hint=f"check the permissions of {path.parent}"
        )
    if error.errno == errno.ENOENT:
        return Unavailable(
            f"cannot write {path}",
            why="its folder does not exist",
            hint="was it removed? create it and try again",
        )
    return Unavailable(f"cannot write {path}", why=error.strerror or str(error), hint="check the filesystem and try again")

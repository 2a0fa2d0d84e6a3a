"""Writing that is whole or not at all: beside, fsync, rename."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from lossi.errors import Forbidden, LossiError, Unavailable


def write(path: Path, data: bytes, *, mode: int = 0o640, durable: bool = True) -> None:
    """Replace ``path`` by ``data`` so that a reader sees the old or the new content, never a part.

    Without ``durable`` the content need not survive a crash of the machine, after which it may also be cut off.

    Raises
    ------
    Unavailable
        When the filesystem is full, over quota or read-only.
    Forbidden
        When the user may not write there.
    """
    with replacing(path, mode=mode, durable=durable) as stream:
        stream.write(data)


@contextlib.contextmanager
def replacing(path: Path, *, mode: int = 0o640, durable: bool = True) -> Iterator[IO[bytes]]:
    """Open a stream beside ``path`` that takes its place when the block ends without an exception."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(6)}.part")
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                yield stream
                stream.flush()
                if durable:
                    os.fsync(stream.fileno())
            beside.replace(path)
            if durable:
                sync_folder(path.parent)
        except BaseException:
            with contextlib.suppress(OSError):
                beside.unlink()
            raise
    except OSError as error:
        raise explained(error, path) from error


def create_exclusive(path: Path, data: bytes, *, mode: int = 0o640) -> bool:
    """Create ``path`` with ``data`` if nobody has; return whether this call did. Atomic on NFS too (link)."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(6)}.part")
    try:
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        try:
            os.link(beside, path)
        except FileExistsError:
            return False
        sync_folder(path.parent)
        return True
    except OSError as error:
        raise explained(error, path) from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink()


def sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:  # some network filesystems have no fsync of folders
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def explained(error: OSError, path: Path) -> LossiError:
    """Return the error that a user understands for a failed access to ``path``."""
    if error.errno == errno.ENOSPC:
        return Unavailable(f"cannot write {path}", why="the filesystem is full", hint="free some space there and try again")
    if error.errno == errno.EDQUOT:
        return Unavailable(
            f"cannot write {path}", why="your quota is used up", hint="remove files there or ask for more quota, then try again"
        )
    if error.errno == errno.EROFS:
        return Unavailable(
            f"cannot write {path}", why="the filesystem is read-only", hint="use a project on a filesystem that you may write to"
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return Forbidden(f"cannot write {path}", why="you may not write there", hint=f"check the permissions of {path.parent}")
    if error.errno == errno.ENOENT:
        return Unavailable(
            f"cannot write {path}",
            why="its folder does not exist",
            hint="was it removed meanwhile? create it again and try again",
        )
    return Unavailable(f"cannot write {path}", why=error.strerror or str(error), hint="check the filesystem and try again")

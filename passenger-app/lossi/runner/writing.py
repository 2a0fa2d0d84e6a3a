"""Writing into the job directory: to a temporary name, fsync, rename.

The runner's own small version of `lossi.files.atomic`, which does not travel to the compute node.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import time
from pathlib import Path
from typing import IO, BinaryIO, Iterator

from .errors import explained

BLOCK = 1 << 20


def write(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Replace ``path`` by ``data``: a reader sees the old or the new content, never a part.

    ``durable`` waits until it is on disk; not needed for what is soon written again, such as progress.

    Raises
    ------
    OSError
        When it cannot be written; no temporary file stays.
    """
    with _replacing(path, durable=durable) as stream:
        stream.write(data)


def copy(source: Path, target: Path) -> None:
    """Copy a file to a temporary name, make it durable and rename it.

    Raises
    ------
    OSError
        When it cannot be read or written; no temporary file stays.
    """
    with open(source, "rb") as reader, _replacing(target) as writer:
        shutil.copyfileobj(reader, writer, BLOCK)


@contextlib.contextmanager
def _replacing(path: Path, *, durable: bool = True) -> Iterator[BinaryIO]:
    part = temporary(path)
    try:
        with open(part, "xb") as stream:
            yield stream
            if durable:
                stream.flush()
                os.fsync(stream.fileno())
        os.replace(part, path)
    except BaseException:
        _discard(part)
        raise
    if durable:
        sync_folder(path.parent)


def temporary(path: Path) -> Path:
    """Return an unused hidden name in the folder of ``path``."""
    return path.with_name(f".{path.name}.{os.getpid()}-{time.monotonic_ns()}.part")


def sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:  # some network filesystems have no fsync of folders
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hex."""
    with open(path, "rb") as stream:
        return stream_sha256(stream)


def stream_sha256(stream: IO[bytes]) -> str:
    """Return the SHA-256 of the rest of a stream, in hex."""
    digest = hashlib.sha256()
    while True:
        block = stream.read(BLOCK)
        if not block:
            return digest.hexdigest()
        digest.update(block)


def no_room(folder: Path) -> str:
    """Return why nothing more can be written into a folder; empty if something can."""
    path = temporary(folder / "room")
    try:
        with open(path, "xb", buffering=0) as stream:
            stream.write(bytes(4096))
            os.fsync(stream.fileno())
    except OSError as error:
        error.filename = str(folder)
        return explained(error) if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
    finally:
        _discard(path)
    return ""


def _discard(part: Path) -> None:
    try:
        os.unlink(part)
    except OSError:
        pass

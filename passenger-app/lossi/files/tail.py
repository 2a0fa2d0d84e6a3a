"""Read a growing text file from a byte offset."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from lossi.errors import Forbidden, NotFound, Unavailable


@dataclass(frozen=True)
class Chunk:
    """Part of a file.

    Attributes
    ----------
    data
        The bytes from ``offset``; the limit never cuts a UTF-8 character.
    next_offset
        Where the next part starts.
    size
        Size of the file at the time, in bytes.
    """

    data: bytes
    offset: int
    next_offset: int
    size: int


def read(path: Path, offset: int, limit: int) -> Chunk:
    """Return at most ``limit`` bytes of a file from ``offset``.

    Parameters
    ----------
    path
        A regular file; links are not followed.
    offset
        Bytes from the start; negative: from the end. Beyond the end (the file was replaced by a shorter one), reading restarts at 0.
    limit
        Maximum number of bytes, at least 4.

    Raises
    ------
    NotFound
        When the file does not exist (yet).
    Forbidden
        When it cannot be read or is not a regular file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            raise NotFound(f"{path.name} does not exist (yet)", hint="try again when the task has started") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENXIO):
            raise Forbidden(f"{path} cannot be read", why=error.strerror or "", hint="check its permissions") from error
        raise Unavailable(f"cannot read {path}", why=error.strerror or "", hint="check the filesystem and try again") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise Forbidden(f"{path} is not a regular file", hint="only files can be read by offset")
        size = status.st_size
        start = max(size + offset, 0) if offset < 0 else offset
        if start > size:
            start = 0
        data = os.pread(descriptor, max(limit, 4), start)
    finally:
        os.close(descriptor)
    if start + len(data) < size:
        data = _whole_characters(data)
    return Chunk(data, start, start + len(data), max(size, start + len(data)))


def _whole_characters(data: bytes) -> bytes:
    """Drop an incomplete UTF-8 character at the end (at most three bytes); other encodings are left alone."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte & 0b1100_0000 == 0b1000_0000:
            continue
        length = 4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2 if byte >= 0xC0 else 1
        return data[:-back] if length > 1 and length > back else data
    return data

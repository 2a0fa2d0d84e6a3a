"""Write a project's files to a tar archive; equal content gives equal bytes.

Files are opened relative to a descriptor of their folder without following links, so that a folder swapped for a link during
reading leads nowhere. Writes only the archive.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import tarfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, cast

from lossi.errors import Conflict
from lossi.files import atomic

EPOCH = 315_532_800
"""1980-01-01, the time of every member: the earliest that zip files, and so wheels built in a job, support."""

SMALL = 1 << 20
"""Files up to this many bytes are read at once and passed to the inspector."""


@dataclass
class Packed:
    """The result of packing."""

    sha256: str = ""
    files: int = 0
    bytes: int = 0
    paths: set[str] = field(default_factory=set)
    left_out: list[str] = field(default_factory=list)


Inspector = Callable[[str, int, "bytes | None"], "str | None"]
"""``(path, git's mode, content or None if large)`` → a reason to leave the file out, or None."""

Placer = Callable[[str, str], tuple[str, str]]
"""``(path, link text)`` → see `lossi.projects.links.place`."""


def pack(root: Path, paths: Iterable[str], archive: Path, inspect: Inspector, place: Placer) -> tuple[Packed, dict[str, str]]:
    """Write files below ``root`` to a tar archive (GNU format, sorted names, owner 0, one fixed time, modes 0644 and 0755).

    Parameters
    ----------
    root
        Where the files are.
    paths
        Relative to ``root``; paths that have disappeared or go through a link are skipped.
    archive
        Path of the tar archive.
    inspect, place
        Decide about files and symbolic links.

    Returns
    -------
    tuple
        The result, and the links that point outside: path → target.

    Raises
    ------
    Conflict
        When a file shrank while it was being read.
    Forbidden, Unavailable
        When the archive cannot be written.
    """
    packed, outside = Packed(), {}
    with contextlib.closing(_Folders(root)) as folders, atomic.replacing(archive) as stream:
        digest = _Digest(stream)
        with tarfile.open(
            fileobj=cast("IO[bytes]", digest), mode="w", format=tarfile.GNU_FORMAT, encoding="utf-8", errors="surrogateescape"
        ) as tar:
            for path in sorted(set(paths)):
                folder, name = folders.open(path)
                if folder is None:
                    continue
                try:
                    mode = os.lstat(name, dir_fd=folder).st_mode
                    if stat.S_ISLNK(mode):
                        what, text = place(path, os.readlink(name, dir_fd=folder))
                        if what == "keep":
                            _add_link(tar, packed, path, text)
                            inspect(path, 0o120000, os.fsencode(text))
                        elif what == "link":
                            outside[path] = text
                        else:
                            packed.left_out.append(f"{path} ({text})")
                    elif stat.S_ISREG(mode):
                        _add_file(tar, packed, path, folder, name, inspect)
                    elif not stat.S_ISDIR(mode):
                        packed.left_out.append(f"{path} (not a regular file)")
                except OSError as error:
                    # Disappeared, became a link, or (EINVAL from readlink) stopped being a link.
                    if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR, errno.EINVAL):
                        continue
                    if error.errno not in (errno.EACCES, errno.EPERM):
                        raise
                    packed.left_out.append(f"{path} (no permission to read it)")
        packed.sha256 = digest.hash.hexdigest()
    return packed, outside


def _add_file(tar: tarfile.TarFile, packed: Packed, path: str, folder: int, name: str, inspect: Inspector) -> None:
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, dir_fd=folder)
    with os.fdopen(descriptor, "rb", buffering=0) as stream:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return
        executable = bool(status.st_mode & stat.S_IXUSR)
        data = None
        if status.st_size <= SMALL:
            data = _read(stream, status.st_size, path)
        reason = inspect(path, 0o100755 if executable else 0o100644, data)
        if reason:
            packed.left_out.append(f"{path} ({reason})")
            return
        member = _member(path)
        member.size = status.st_size
        member.mode = 0o755 if executable else 0o644
        tar.addfile(member, cast("IO[bytes]", _Exactly(stream, status.st_size, path, data)))
        packed.bytes += status.st_size
    packed.files += 1
    packed.paths.add(path)


def _add_link(tar: tarfile.TarFile, packed: Packed, path: str, text: str) -> None:
    member = _member(path)
    member.type = tarfile.SYMTYPE
    member.linkname = text
    member.mode = 0o777
    tar.addfile(member)
    packed.files += 1
    packed.paths.add(path)


def _member(path: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(path)
    member.mtime = EPOCH
    return member


def _read(stream: IO[bytes], size: int, path: str) -> bytes:
    data = b""
    while len(data) < size:
        part = stream.read(size - len(data))
        if not part:
            raise _shrank(path)
        data += part
    return data


def _shrank(path: str) -> Conflict:
    return Conflict(f"{path} changed while it was being read", hint="wait until it is complete and submit again")


class _Exactly:
    """A file of exactly the size in its header, whatever is appended to it during reading."""

    def __init__(self, stream: IO[bytes], size: int, path: str, data: bytes | None) -> None:
        self.stream, self.left, self.path, self.data = stream, size, path, data

    def read(self, size: int = -1) -> bytes:
        count = self.left if size < 0 else min(size, self.left)
        if self.data is not None:
            start = len(self.data) - self.left
            part = self.data[start : start + count]
        else:
            part = self.stream.read(count)
        if count and not part:
            raise _shrank(self.path)
        self.left -= len(part)
        if len(part) < count:  # a short read, which tarfile would take for the end
            part += self.read(count - len(part))
        return part


class _Digest:
    """Hashes what is written through it."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream = stream
        self.hash = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.hash.update(data)
        return self.stream.write(data)

    def tell(self) -> int:
        return self.stream.tell()


class _Folders:
    """Descriptors of the folders down to the current one; one chain is enough because paths are sorted."""

    def __init__(self, root: Path) -> None:
        self.chain: list[tuple[str, int]] = [("", os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))]

    def open(self, path: str) -> tuple[int | None, str]:
        """Return a descriptor of the path's folder (None if a part of it is missing or a link) and its last component."""
        *folders, name = path.split("/")
        depth = 0
        while depth < len(folders) and depth + 1 < len(self.chain) and self.chain[depth + 1][0] == folders[depth]:
            depth += 1
        while len(self.chain) > depth + 1:
            os.close(self.chain.pop()[1])
        for part in folders[depth:]:
            if part in ("", ".", ".."):
                return None, name
            try:
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                self.chain.append((part, os.open(part, flags, dir_fd=self.chain[-1][1])))
            except OSError:
                return None, name
        return self.chain[-1][1], name

    def close(self) -> None:
        while self.chain:
            os.close(self.chain.pop()[1])

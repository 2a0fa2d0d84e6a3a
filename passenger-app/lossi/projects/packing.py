"""Files of a project written to a tar archive that has the same bytes whenever they have the same content.

Every file is opened relative to a descriptor of its folder without following links, so that a folder swapped for a link while
this reads leads nowhere. Touches the archive it is told to write.
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
"""1980-01-01, the time of every member: the earliest that zip files, and so wheels built in a job, can hold."""

SMALL = 1 << 20
"""Bytes up to which a file is read at once and shown to the inspector."""


@dataclass
class Packed:
    """What was written."""

    sha256: str = ""
    files: int = 0
    bytes: int = 0
    paths: set[str] = field(default_factory=set)
    left_out: list[str] = field(default_factory=list)


Inspector = Callable[[str, int, "bytes | None"], "str | None"]
"""``(path, git's mode, content or None when large)`` → a reason to leave the file out, or None."""

Placer = Callable[[str, str], tuple[str, str]]
"""``(path, link text)`` → see `lossi.projects.links.place`."""


def pack(root: Path, paths: Iterable[str], archive: Path, inspect: Inspector, place: Placer) -> tuple[Packed, dict[str, str]]:
    """Write files below ``root`` to a tar archive (GNU form, names sorted, owner 0, one fixed time, modes 0644 and 0755).

    Parameters
    ----------
    root
        Where the files are.
    paths
        Relative to ``root``; what is missing meanwhile, or behind a link, is skipped.
    archive
        Where the tar goes.
    inspect, place
        Decide on files and symbolic links.

    Returns
    -------
    tuple
        What was written, and the links that lead out: path → what they lead to.

    Raises
    ------
    Conflict
        When a file became shorter while it was read.
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
                    found = os.lstat(name, dir_fd=folder)
                    if stat.S_ISLNK(found.st_mode):
                        what, text = place(path, os.readlink(name, dir_fd=folder))
                        if what == "keep":
                            _add_link(tar, packed, path, text)
                            inspect(path, 0o120000, os.fsencode(text))
                        elif what == "link":
                            outside[path] = text
                        else:
                            packed.left_out.append(f"{path} ({text})")
                    elif stat.S_ISREG(found.st_mode):
                        _add_file(tar, packed, path, folder, name, inspect)
                    elif not stat.S_ISDIR(found.st_mode):
                        packed.left_out.append(f"{path} (not a regular file)")
                except OSError as error:
                    # Went away, became a link, or (EINVAL, from resolving one) stopped being a link meanwhile.
                    if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR, errno.EINVAL):
                        continue
                    if error.errno not in (errno.EACCES, errno.EPERM):
                        raise
                    packed.left_out.append(f"{path} (you may not read it)")
        packed.sha256 = digest.hash.hexdigest()
    return packed, outside


def _add_file(tar: tarfile.TarFile, packed: Packed, path: str, folder: int, name: str, inspect: Inspector) -> None:
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, dir_fd=folder)
    with os.fdopen(descriptor, "rb", buffering=0) as stream:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            return
        executable = bool(found.st_mode & stat.S_IXUSR)
        data = None
        if found.st_size <= SMALL:
            data = _read(stream, found.st_size, path)
        reason = inspect(path, 0o100755 if executable else 0o100644, data)
        if reason:
            packed.left_out.append(f"{path} ({reason})")
            return
        member = _member(path)
        member.size = found.st_size
        member.mode = 0o755 if executable else 0o644
        tar.addfile(member, cast("IO[bytes]", _Exactly(stream, found.st_size, path, data)))
        packed.bytes += found.st_size
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
    return Conflict(f"{path} changed while it was being read", hint="wait until it is written and submit again")


class _Exactly:
    """A file of exactly the size that its header says, whatever is appended to it meanwhile."""

    def __init__(self, stream: IO[bytes], size: int, path: str, data: bytes | None) -> None:
        self.stream, self.left, self.path, self.data = stream, size, path, data

    def read(self, size: int = -1) -> bytes:
        wanted = self.left if size < 0 else min(size, self.left)
        if self.data is not None:
            start = len(self.data) - self.left
            part = self.data[start : start + wanted]
        else:
            part = self.stream.read(wanted)
        if wanted and not part:
            raise _shrank(self.path)
        self.left -= len(part)
        if len(part) < wanted:  # a short read of the kernel's; tarfile takes it for the end
            part += self.read(wanted - len(part))
        return part


class _Digest:
    """Hashes what it passes on."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream = stream
        self.hash = hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.hash.update(data)
        return self.stream.write(data)

    def tell(self) -> int:
        return self.stream.tell()


class _Folders:
    """Descriptors of the folders down to the one that is being read; the sorted order of paths makes one chain enough."""

    def __init__(self, root: Path) -> None:
        self.chain: list[tuple[str, int]] = [("", os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))]

    def open(self, path: str) -> tuple[int | None, str]:
        """Return a descriptor of the path's folder (None where a part of it is missing or a link) and its last part."""
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

"""How much room is left in a folder: bytes and files, of the filesystem and of the user's quota where the site publishes it.

Asks the filesystem (statvfs) and reads the site's quota files: JSON, version 1, as Open OnDemand's dashboard reads it from
``$OOD_QUOTA_PATH``, and those of the setting ``quota_files``. Addresses among them are passed over: nothing is fetched.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import pwd
import re
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lossi import settings
from lossi.errors import NotFound, Unavailable

STALE_S = 86400.0
"""Figures of a quota file that are older may be far from the truth."""
MOST_BYTES = 64 << 20
"""A greater quota file is not read."""
_BLOCK = 1024
"""Bytes of a block in quota files."""


@dataclass(frozen=True)
class Quota:
    """What a quota file says of the user and one folder.

    Attributes
    ----------
    path
        The folder below which it counts.
    kind
        ``user``: the user's own files; ``fileset``: the files of everybody.
    bytes_limit, files_limit
        None: no limit.
    as_of
        When these were the figures, in seconds since the epoch; None: not said.
    """

    path: Path
    kind: str
    bytes_used: int
    bytes_limit: int | None
    files_used: int
    files_limit: int | None
    as_of: float | None = None

    @property
    def stale(self) -> bool:
        """Whether the figures are older than a day, or of unknown age."""
        return self.as_of is None or time.time() - self.as_of > STALE_S


@dataclass(frozen=True)
class Space:
    """Room in a folder.

    Attributes
    ----------
    bytes_free, files_free
        What this user may still take of the filesystem.
    files_free, files_total
        None where the filesystem has no fixed number of files.
    quotas
        The user's quotas there; empty where none is known.
    """

    path: Path
    bytes_free: int
    bytes_total: int
    files_free: int | None
    files_total: int | None
    quotas: tuple[Quota, ...] = ()


def space(path: Path) -> Space:
    """Return how much room there is in a folder; of one that does not exist yet, in the nearest folder above it.

    Raises
    ------
    NotFound
        When the path is none.
    Unavailable
        When the filesystem does not answer.
    """
    place = path
    while True:
        try:
            found = os.statvfs(place)
            break
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR) and place.parent != place:
                place = place.parent
                continue
            raise Unavailable(
                f"cannot ask how much room there is in {place}",
                why=error.strerror or "",
                hint="check the filesystem and try again",
            ) from error
        except ValueError:
            raise NotFound(f"{str(path)!r} is not a path", hint="name a folder") from None
    counted = found.f_files > 0
    return Space(
        path,
        found.f_bavail * found.f_frsize,
        found.f_blocks * found.f_frsize,
        found.f_favail if counted else None,
        found.f_files if counted else None,
        tuple(quotas(place)),
    )


def quotas(path: Path) -> Iterator[Quota]:
    """Yield the user's quotas that hold in a folder: those of the longest path above it that any quota file names."""
    # A quota file may name the folder by a link that users know, or by what it stands for.
    user, names = _user(), (path.absolute(), Path(os.path.realpath(path)))
    known = [quota for file in _files() for quota in _of_file(file, user)]
    above = [quota for quota in known if any(name.is_relative_to(quota.path) for name in names)]
    nearest = max((len(quota.path.parts) for quota in above), default=0)
    yield from (quota for quota in above if len(quota.path.parts) == nearest)


def _user() -> str:
    with contextlib.suppress(KeyError):
        return pwd.getpwuid(os.geteuid()).pw_name
    return str(os.geteuid())


def _files() -> list[Path]:
    # A colon before // belongs to an address.
    named = re.split(r":(?!//)", os.environ.get("OOD_QUOTA_PATH", "").strip())
    paths = [Path(word) for word in named if word.startswith("/")]
    return list(dict.fromkeys([*paths, *settings.load().quota_files]))


def _of_file(path: Path, user: str) -> tuple[Quota, ...]:
    """Return the user's quotas in a file; of one that cannot be read or is something else, none."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode) or found.st_size > MOST_BYTES:
            return ()
        return _of_version(path, found.st_ino, found.st_size, found.st_mtime_ns, user)
    except OSError:
        return ()


@functools.lru_cache(maxsize=16)
def _of_version(path: Path, inode: int, size: int, changed: int, user: str) -> tuple[Quota, ...]:
    return parse(path.read_bytes(), user)


def parse(data: bytes, user: str) -> tuple[Quota, ...]:
    """Return the quotas of one user in the text of a quota file; what is not of the form, or of another version, is passed over.

    A site's file has a line for each of its users: only those of this one are read as JSON.
    """
    name = json.dumps(user).encode()
    if name not in data:
        return ()
    try:
        version, stamp = (_number(_member(data, member)) for member in (b"version", b"timestamp"))
        entries = _entries(data, name)
    except (ValueError, RecursionError):
        return ()
    if version != 1:
        return ()
    found = (_quota(entry, stamp) for entry in entries if isinstance(entry, dict) and entry.get("user") == user)
    return tuple(quota for quota in found if quota is not None)


def _member(data: bytes, name: bytes) -> str | None:
    found = re.search(rb'"' + name + rb'"\s*:\s*"?([0-9]{1,18})', data)
    return None if found is None else found[1].decode()


def _entries(data: bytes, name: bytes) -> list[Any]:
    """Return the objects that hold a text; a path with braces in it makes them hard to tell apart, then all are read."""
    found, end = [], 0
    try:
        while (at := data.find(name, end)) >= 0:
            start, end = data.rindex(b"{", 0, at), data.index(b"}", at) + 1
            found.append(json.loads(data[start:end]))
    except ValueError:
        whole = json.loads(data)
        listed = whole.get("quotas") if isinstance(whole, dict) else None
        return listed if isinstance(listed, list) else []
    return found


def _quota(entry: dict[str, Any], stamp: int | None) -> Quota | None:
    path = entry.get("path")
    if not isinstance(path, str) or not path.startswith("/") or "\0" in path:
        return None

    def used(what: str) -> int:
        # Of a folder of several users, the limit is for what all of them use.
        total = _number(entry.get(f"total_{what}_usage"))
        return total if total is not None else _number(entry.get(f"{what}_usage")) or 0

    blocks, files = _number(entry.get("block_limit")), _number(entry.get("file_limit"))
    return Quota(
        Path(os.path.normpath(path)),
        "fileset" if entry.get("type") == "fileset" else "user",
        used("block") * _BLOCK,
        blocks * _BLOCK if blocks else None,
        used("file"),
        files or None,
        None if stamp is None else float(stamp),
    )


def _number(value: Any) -> int | None:
    """Return a number that is not negative, also one written as text."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    with contextlib.suppress(ValueError, OverflowError):
        number = int(float(value)) if isinstance(value, float) else int(value)
        return number if number >= 0 else None
    return None

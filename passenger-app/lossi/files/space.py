"""Free space in a folder: bytes and files, of the filesystem and of the user's quota if the site publishes it.

Calls statvfs and reads the site's quota files, which are JSON, version 1, as Open OnDemand's dashboard reads them: those in
``$OOD_QUOTA_PATH`` and in the setting ``quota_files``. URLs among them are ignored: nothing is fetched.
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
"""Older figures of a quota file can be far off."""
MOST_BYTES = 64 << 20
"""A larger quota file is not read."""
_BLOCK = 1024
"""Bytes per block in quota files."""


@dataclass(frozen=True)
class Quota:
    """A quota of the user in one folder.

    Attributes
    ----------
    path
        The folder that it applies to.
    kind
        ``user``: the user's own files; ``fileset``: everybody's files.
    bytes_limit, files_limit
        None: no limit.
    as_of
        Time of the figures in seconds since the epoch; None: unknown.
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
    """Free space in a folder.

    Attributes
    ----------
    bytes_free, files_free
        Left on the filesystem for this user.
    files_free, files_total
        None if the filesystem has no fixed number of files.
    quotas
        The user's quotas there, as far as known.
    """

    path: Path
    bytes_free: int
    bytes_total: int
    files_free: int | None
    files_total: int | None
    quotas: tuple[Quota, ...] = ()


def space(path: Path) -> Space:
    """Return the free space in a folder, or in its nearest existing parent.

    Raises
    ------
    NotFound
        When the path is not valid.
    Unavailable
        When the filesystem does not answer.
    """
    place = path
    while True:
        try:
            status = os.statvfs(place)
            break
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR) and place.parent != place:
                place = place.parent
                continue
            raise Unavailable(
                f"cannot determine the free space in {place}",
                why=error.strerror or "",
                hint="check the filesystem and try again",
            ) from error
        except ValueError:
            raise NotFound(f"{str(path)!r} is not a path", hint="name a folder") from None
    counted = status.f_files > 0
    return Space(
        path,
        status.f_bavail * status.f_frsize,
        status.f_blocks * status.f_frsize,
        status.f_favail if counted else None,
        status.f_files if counted else None,
        tuple(quotas(place)),
    )


def quotas(path: Path) -> Iterator[Quota]:
    """Yield the user's quotas for a folder: those of the nearest parent that a quota file names."""
    # A quota file may name the folder by a link or by its real path.
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
    # A colon before // belongs to a URL.
    named = re.split(r":(?!//)", os.environ.get("OOD_QUOTA_PATH", "").strip())
    paths = [Path(word) for word in named if word.startswith("/")]
    return list(dict.fromkeys([*paths, *settings.load().quota_files]))


def _of_file(path: Path, user: str) -> tuple[Quota, ...]:
    """Return the user's quotas in a file; none if it cannot be read."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > MOST_BYTES:
            return ()
        return _of_version(path, status.st_ino, status.st_size, status.st_mtime_ns, user)
    except OSError:
        return ()


@functools.lru_cache(maxsize=16)
def _of_version(path: Path, inode: int, size: int, changed: int, user: str) -> tuple[Quota, ...]:
    return parse(path.read_bytes(), user)


def parse(data: bytes, user: str) -> tuple[Quota, ...]:
    """Return the quotas of one user in a quota file's content; malformed entries and other versions are ignored.

    A site's file has an entry for every user: only those of this user are parsed as JSON.
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
    quotas = (_quota(entry, stamp) for entry in entries if isinstance(entry, dict) and entry.get("user") == user)
    return tuple(quota for quota in quotas if quota is not None)


def _member(data: bytes, name: bytes) -> str | None:
    match = re.search(rb'"' + name + rb'"\s*:\s*"?([0-9]{1,18})', data)
    return None if match is None else match[1].decode()


def _entries(data: bytes, name: bytes) -> list[Any]:
    """Return the objects that contain ``name``; if a path with braces makes them hard to tell apart, all objects."""
    entries, end = [], 0
    try:
        while (at := data.find(name, end)) >= 0:
            start, end = data.rindex(b"{", 0, at), data.index(b"}", at) + 1
            entries.append(json.loads(data[start:end]))
    except ValueError:
        whole = json.loads(data)
        listed = whole.get("quotas") if isinstance(whole, dict) else None
        return listed if isinstance(listed, list) else []
    return entries


def _quota(entry: dict[str, Any], stamp: int | None) -> Quota | None:
    path = entry.get("path")
    if not isinstance(path, str) or not path.startswith("/") or "\0" in path:
        return None

    def used(what: str) -> int:
        # In a folder of several users, the limit applies to their total.
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
    """Return a non-negative number, also if written as text."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    with contextlib.suppress(ValueError, OverflowError):
        number = int(float(value)) if isinstance(value, float) else int(value)
        return number if number >= 0 else None
    return None

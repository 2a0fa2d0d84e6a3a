"""Who else can write to a path: code is only taken from places that strangers cannot write to."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from lossi.errors import Forbidden


def refuse_open_ancestors(path: Path) -> None:
    """Refuse a path that any user of the machine could replace.

    A world-writable folder is safe only with the sticky bit, as ``/tmp`` has it: without that bit, anyone can rename its entries.
    Group-writable folders are a normal way to work together.

    Parameters
    ----------
    path
        An existing path; links are resolved.

    Raises
    ------
    Forbidden
        When the folder or one of its parents is world-writable without the sticky bit.
    """
    resolved = Path(os.path.realpath(path))
    for folder in (resolved, *resolved.parents):
        try:
            mode = folder.stat().st_mode
        except OSError:  # searchable but not readable: cannot be judged
            continue
        if stat.S_ISDIR(mode) and mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise Forbidden(
                f"{folder} is writable by every user of this machine",
                why="anyone could replace code that would run as you",
                hint=f"run chmod o-w {folder} or chmod +t {folder}, or work in another folder",
            )


def is_shared(folder: Path) -> bool:
    """Return whether ``folder`` is group-writable, that is, several people work in it."""
    try:
        return bool(folder.stat().st_mode & stat.S_IWGRP)
    except OSError:
        return False


def make_folder(path: Path, *, like: Path) -> None:
    """Create ``path`` with mode 0750, or group-writable if the folder ``like`` is.

    The set-group-ID bit is inherited from the parent and kept. An existing folder is not changed.

    Raises
    ------
    OSError
        When it cannot be created.
    """
    try:
        path.mkdir(mode=0o750)
    except FileExistsError:
        if not path.is_dir():
            raise
        return
    if is_shared(like):  # the umask removed the group's write permission
        path.chmod(stat.S_IMODE(path.stat().st_mode) | stat.S_IRWXU | stat.S_IRWXG)


def file_mode(folder: Path) -> int:
    """Return the mode of new shared files in ``folder``: 0660 if it is group-writable, else 0640."""
    return 0o660 if is_shared(folder) else 0o640


def is_trusted_marker(folder: Path, name: str) -> bool:
    """Return whether ``folder`` has an entry with this name that no stranger can have created.

    In a world-writable folder, such as ``/tmp``, only the user's own entries count.
    """
    try:
        owner = (folder / name).lstat().st_uid
        world_writable = bool(folder.stat().st_mode & stat.S_IWOTH)
    except (OSError, ValueError):
        return False
    return not world_writable or owner == os.geteuid()

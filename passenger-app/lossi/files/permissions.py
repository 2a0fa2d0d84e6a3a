"""Who could change what lies below a folder: the rule that code is only taken from places strangers cannot write to."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from lossi.errors import Forbidden


def refuse_open_ancestors(path: Path) -> None:
    """Refuse a path that any user of the machine could swap for another.

    A folder that everybody may write to is safe only with the sticky bit (as ``/tmp`` has it): without it, anybody may rename
    what lies in it. Folders that only a *group* may write to are a normal way of working together.

    Parameters
    ----------
    path
        An existing path; links are resolved first.

    Raises
    ------
    Forbidden
        When the folder itself or one of its parents is world-writable without the sticky bit; names it.
    """
    resolved = Path(os.path.realpath(path))
    for folder in (resolved, *resolved.parents):
        try:
            mode = folder.stat().st_mode
        except OSError:  # one that may be passed but not looked at is not ours to judge
            continue
        if stat.S_ISDIR(mode) and mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise Forbidden(
                f"{folder} may be written by every user of this machine",
                why="anybody could exchange what would run in your name",
                hint=f"chmod o-w {folder}, or chmod +t {folder}, or work in another folder",
            )


def is_shared(folder: Path) -> bool:
    """Return whether the group may write to ``folder``, which means that several people work in it."""
    try:
        return bool(folder.stat().st_mode & stat.S_IWGRP)
    except OSError:
        return False


def make_folder(path: Path, *, like: Path) -> None:
    """Create ``path`` readable by the group (0750), or writable too where the group may write to the folder ``like``.

    The set-group-ID bit is inherited from the parent by the kernel and kept. An existing folder is left as it is.

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
    if is_shared(like):  # the umask took the group's right to write
        path.chmod(stat.S_IMODE(path.stat().st_mode) | stat.S_IRWXU | stat.S_IRWXG)


def file_mode(folder: Path) -> int:
    """Return the mode of new shared files in ``folder``: 0640, or 0660 where the group may write to it."""
    return 0o660 if is_shared(folder) else 0o640


def is_trusted_marker(folder: Path, name: str) -> bool:
    """Return whether ``folder`` has an entry of this name that no stranger can have put there.

    In a folder that everybody may write to, such as ``/tmp``, only an entry of the user's own counts.
    """
    try:
        owner = (folder / name).lstat().st_uid
        open_to_all = bool(folder.stat().st_mode & stat.S_IWOTH)
    except (OSError, ValueError):
        return False
    return not open_to_all or owner == os.geteuid()

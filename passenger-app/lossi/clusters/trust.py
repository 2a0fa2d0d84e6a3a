"""Refuse cluster files that anyone can write to: the commands in them run as the user."""

from __future__ import annotations

import stat
from pathlib import Path

from lossi.errors import Forbidden
from lossi.files import permissions


def refuse_open_to_all(file: Path) -> None:
    """Refuse a file that every user of the machine could change or replace; a missing file is fine.

    Raises
    ------
    Forbidden
        When the file, or a folder above it, is world-writable.
    """
    try:
        mode = file.stat().st_mode
    except OSError:
        return
    if mode & stat.S_IWOTH and stat.S_ISREG(mode):
        raise Forbidden(
            "is writable by every user of this machine and was not read",
            why="anyone could add commands that would run as you",
            hint=f"run chmod o-w {file}",
        )
    permissions.refuse_open_ancestors(file)

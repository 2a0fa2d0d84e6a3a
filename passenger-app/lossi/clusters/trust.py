"""Who may say how a cluster is reached: its commands run in the user's name, so not everybody may write them down."""

from __future__ import annotations

import stat
from pathlib import Path

from lossi.errors import Forbidden
from lossi.files import permissions


def refuse_open_to_all(file: Path) -> None:
    """Refuse a file that every user of the machine could change or exchange; a missing one is nobody's.

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
            "may be written by every user of this machine, and is not read",
            why="anybody could name commands that would run in your name",
            hint=f"chmod o-w {file}",
        )
    permissions.refuse_open_ancestors(file)

"""Collects the files that a task wrote in its copy of the project into ``tasks/<n>/out``.

Files in the working directory keep their relative path; files elsewhere in the copy go to ``_project/``. Links are not
followed.
"""

from __future__ import annotations

import os
import shutil
import stat
import time
from pathlib import Path
from typing import Dict, Iterator, List, Optional, Tuple

from .errors import explained
from .writing import BLOCK

Manifest = Dict[str, Tuple[int, int, int]]
"""Path relative to the copy → (inode, size, modification time in ns)."""

SKIPPED_FOLDERS = frozenset(("__pycache__", ".ipynb_checkpoints", ".git"))
ELSEWHERE = "_project"
NAMED = 20
"""Files left out that are named; the others are only counted."""


def manifest(code: Path) -> Manifest:
    """Return the files in the copy now."""
    return {os.path.relpath(path, code): _identity(info) for path, info in _files(code)}


def collect(
    code: Path,
    working_directory: Path,
    before: Manifest,
    target: Path,
    limit_mb: int,
    *,
    since_ns: int = 0,
    deadline: Optional[float] = None,
) -> List[str]:
    """Copy new and changed files to ``target``, small ones first, and return a note about those left out.

    Parameters
    ----------
    code, working_directory
        The copy of the project, and the folder in it where the payload ran.
    before
        What was in the copy before.
    target
        The folder to copy to.
    limit_mb
        Most MiB to copy.
    since_ns
        When this attempt started. A file in ``target`` is replaced if it is older.
    deadline
        Monotonic time after which no more files are copied; None: no limit.
    """
    new = []
    for path, info in _files(code):
        if before.get(os.path.relpath(path, code)) != _identity(info):
            new.append((info.st_size, path, info))
    left, problem = limit_mb * 2**20, ""
    missed: List[str] = []
    for size, path, info in sorted(new, key=lambda item: item[:2]):
        relative = _relative(path, working_directory, code)
        if problem or size > left:
            missed.append(relative)
            continue
        if deadline is not None and time.monotonic() > deadline:
            problem = "no time left"
            missed.append(relative)
            continue
        try:
            _copy(path, target / relative, info, since_ns)
            left -= size
        except FileExistsError:
            missed.append(f"{relative} (exists in the output folder)")
        except OSError as error:
            problem = explained(error, str(target))
            missed.append(relative)
    if not missed:
        return []
    reason = problem or f"the limit is {limit_mb} MiB"
    more = f" and {len(missed) - NAMED} more" if len(missed) > NAMED else ""
    return [f"not collected ({reason}): {', '.join(missed[:NAMED])}{more}"]


def _files(folder: Path) -> Iterator[Tuple[str, os.stat_result]]:
    """Yield the regular files below a folder, without following links."""
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in SKIPPED_FOLDERS]
        for name in names:
            path = os.path.join(root, name)
            try:
                info = os.lstat(path)
            except OSError:
                continue
            if stat.S_ISREG(info.st_mode):
                yield path, info


def _identity(info: os.stat_result) -> Tuple[int, int, int]:
    return info.st_ino, info.st_size, info.st_mtime_ns


def _relative(path: str, working_directory: Path, code: Path) -> str:
    relative = os.path.relpath(path, working_directory)
    if relative.split(os.sep, 1)[0] != os.pardir:
        return relative
    return os.path.join(ELSEWHERE, os.path.relpath(path, code))


def _copy(source: str, target: Path, info: os.stat_result, since_ns: int) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(target) and os.lstat(target).st_mtime_ns < since_ns:
        target.unlink()
    reader = os.open(source, os.O_RDONLY | os.O_NOFOLLOW)
    with os.fdopen(reader, "rb") as incoming, open(target, "xb") as outgoing:
        try:
            shutil.copyfileobj(incoming, outgoing, BLOCK)
        except OSError:
            target.unlink()  # no partial files
            raise
    os.utime(target, ns=(info.st_atime_ns, info.st_mtime_ns))
    os.chmod(target, stat.S_IMODE(info.st_mode) & 0o777 | 0o600)

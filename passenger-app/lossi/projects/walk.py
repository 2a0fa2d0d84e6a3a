"""List a project's files without git, and choose which untracked files a snapshot copies. Reads only names and sizes."""

from __future__ import annotations

import os
import stat
from collections import defaultdict
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from lossi import units
from lossi.projects import secrets

CACHES = {".git", ".hg", ".svn", ".lossi", "__pycache__", ".ipynb_checkpoints", ".mypy_cache", ".pytest_cache", ".ruff_cache"}
"""Folders that neither a snapshot nor a job needs."""

CACHE_ENDINGS = (".pyc", ".pyo", ".swp", "~", ".DS_Store")

HEAVY = {"node_modules", ".venv", "venv", ".tox", ".nox", ".conda", "renv", "mlruns", "wandb"}
"""Folders that a snapshot never copies, even without git; jobs use the live ones."""

MAX_ENTRIES = 10_000
"""In a project without git, a folder with more entries is data."""

CODE = {
    ".c", ".cc", ".cfg", ".conf", ".cpp", ".cu", ".f90", ".h", ".hpp", ".in", ".ini", ".ipynb", ".j2", ".jl", ".json", ".lock",
    ".md", ".mk", ".py", ".pyi", ".pyx", ".r", ".rmd", ".rs", ".rst", ".sh", ".slurm", ".sql", ".toml", ".txt", ".yaml", ".yml", "",
}  # fmt: skip
"""Extensions of code: these files are copied first."""


@dataclass
class Listing:
    """Files of a project; paths are relative to it."""

    files: list[str] = field(default_factory=list)
    aside: list[str] = field(default_factory=list)
    """Folders to link instead of copying."""
    notes: list[str] = field(default_factory=list)


@dataclass
class Choice:
    """Which untracked files a snapshot copies."""

    kept: list[str] = field(default_factory=list)
    over: list[str] = field(default_factory=list)
    """Files over the limit, to link instead."""
    notes: list[str] = field(default_factory=list)


def is_cache(path: str) -> bool:
    """Return whether a path is, or is inside, something that no job needs."""
    parts = path.split("/")
    return not CACHES.isdisjoint(parts) or parts[-1].endswith(CACHE_ENDINGS)


def list_files(root: Path) -> Listing:
    """Return the files below a folder without git. Links are listed, not followed."""
    listing = Listing()
    todo = [""]
    while todo:
        folder = todo.pop()
        try:
            with os.scandir(root / folder) as scan:
                entries = []
                for entry in scan:
                    entries.append(entry)
                    if len(entries) > MAX_ENTRIES:
                        break
        except OSError as error:
            listing.notes.append(f"{folder or '.'} ({error.strerror})")
            continue
        if folder and (len(entries) > MAX_ENTRIES or any(entry.name == "pyvenv.cfg" for entry in entries)):
            listing.aside.append(folder)
            continue
        for entry in sorted(entries, key=lambda entry: entry.name):
            path = f"{folder}/{entry.name}" if folder else entry.name
            if is_cache(path):
                continue
            if not entry.is_dir(follow_symlinks=False):
                listing.files.append(path)
            elif entry.name in HEAVY or path.endswith(".dvc/cache"):
                listing.aside.append(path)
            else:
                todo.append(path)
    return listing


def choose(root: Path, paths: Iterable[str], limit: int, *, always: Collection[str] = ()) -> Choice:
    """Choose the untracked files that a snapshot copies.

    Code first, smallest files first; then data, all of a folder or nothing, because half a data set is worse than a link to the
    whole. Likely secrets are left out.

    Parameters
    ----------
    root
        The project.
    paths
        Relative to ``root``.
    limit
        Total bytes of the kept files.
    always
        Paths to copy regardless of size and name.
    """
    choice = Choice()
    code: list[tuple[int, str]] = []
    data: dict[str, list[tuple[int, str]]] = defaultdict(list)
    used = 0
    for path in paths:
        try:
            status = (root / path).lstat()
        except OSError:  # just removed
            continue
        size = status.st_size if stat.S_ISREG(status.st_mode) else 0
        name = PurePosixPath(path)
        if path in always:
            choice.kept.append(path)
            used += size
        elif is_cache(path):
            continue
        elif secrets.suspicious_name(path):
            choice.notes.append(f"{path} (looks like a secret; a file that git ignores is not copied but linked)")
        elif not size or name.suffix.lower() in CODE:
            code.append((size, path))
        else:
            data[str(name.parent)].append((size, path))
    groups = [[item] for item in sorted(code)]
    groups += sorted(data.values(), key=lambda group: (sum(size for size, _ in group), group[0][1]))
    for group in groups:
        size = sum(size for size, _ in group)
        if used + size <= limit:
            used += size
            choice.kept += [path for _, path in group]
        else:
            choice.over += [path for _, path in group]
            choice.notes.append(_over(group, size, limit))
    return choice


def _over(group: list[tuple[int, str]], size: int, limit: int) -> str:
    what = group[0][1]
    if len(group) > 1:
        what = f"{PurePosixPath(what).parent}: {len(group)} files"
    return f"{what} ({units.humanize_size(size)}: over the limit of {units.humanize_size(limit)} for untracked files; linked instead)"

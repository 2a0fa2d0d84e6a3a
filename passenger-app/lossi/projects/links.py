"""What a job uses from the live project: data that a snapshot does not copy, and targets of symbolic links.

Reads names, links and ``*.dvc`` files; opens nothing else.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Collection, Iterable
from pathlib import Path

from lossi.contract.records import DataLink
from lossi.errors import LossiError
from lossi.files import beneath
from lossi.projects import walk

MAX_LINKS = 2000
DVC_FILE_LIMIT = 1 << 20


def dvc_outs(root: Path, files: Iterable[str]) -> list[str]:
    """Return the existing paths, relative to the project, that ``*.dvc`` files among ``files`` track.

    In DVC's format, ``outs`` is a list of mappings with ``path``, relative to ``wdir``, which is relative to the file's folder
    (https://dvc.org/doc/user-guide/project-structure/dvc-files). Other files are ignored.
    """
    outs = []
    for file in files:
        if not file.endswith(".dvc") or posixpath.basename(file) == ".dvc":
            continue
        for out in _outs(root, file):
            path = posixpath.normpath(posixpath.join(posixpath.dirname(file), out))
            if not path.startswith(("../", "/")) and path not in ("..", ".") and os.path.lexists(root / path):
                outs.append(path)
    return outs


def _outs(root: Path, file: str) -> list[str]:
    import yaml

    try:
        data = yaml.safe_load(beneath.read_bytes(root, file, DVC_FILE_LIMIT))
    except (LossiError, yaml.YAMLError, UnicodeError, RecursionError, ValueError):
        return []
    if not isinstance(data, dict) or not isinstance(data.get("outs"), list):
        return []
    folder = data.get("wdir", ".")
    if not isinstance(folder, str):
        return []
    paths = [out.get("path") for out in data["outs"] if isinstance(out, dict)]
    return [posixpath.join(folder, path) for path in paths if isinstance(path, str) and "://" not in path and "\0" not in path]


def collect(root: Path, paths: Iterable[str], kept: Collection[str]) -> tuple[list[DataLink], list[str]]:
    """Return as few links as possible to paths of the live project, and notes on paths without a link.

    A folder without kept files is linked as a whole; a link never replaces or contains a kept path.

    Parameters
    ----------
    root
        The project.
    paths
        Files and folders relative to ``root``; caches are ignored.
    kept
        Paths in the snapshot.
    """
    folders = _folders(kept)
    linked: set[str] = set()
    for path in paths:
        if not walk.is_cache(path) and path not in kept:
            linked.update(_around(root, _highest(path, folders), folders, kept))
    links, notes = [], []
    last = "\0"
    for path in sorted(linked, key=lambda path: path.split("/")):
        if path.startswith(f"{last}/"):
            continue
        last = path
        target = Path(os.path.realpath(root / path)) if (root / path).is_symlink() else root / path
        if target.exists():
            links.append(DataLink(path, os.fspath(target)))
    if len(links) > MAX_LINKS:
        notes.append(f"{len(links) - MAX_LINKS} more files that git ignores (too many to link; move them to a separate folder)")
    return links[:MAX_LINKS], notes


def _folders(paths: Iterable[str]) -> set[str]:
    """Return all parent folders of the paths."""
    folders: set[str] = set()
    for path in paths:
        folder = posixpath.dirname(path)
        while folder and folder not in folders:
            folders.add(folder)
            folder = posixpath.dirname(folder)
    return folders


def _highest(path: str, folders: set[str]) -> str:
    """Return the topmost parent folder of ``path`` without kept files, or the path itself."""
    folder = posixpath.dirname(path)
    while folder and folder not in folders:
        path, folder = folder, posixpath.dirname(folder)
    return path


def _around(root: Path, path: str, folders: set[str], kept: Collection[str]) -> list[str]:
    """Return the path, or, if it contains kept files, its other entries."""
    if path not in folders:
        return [path]
    result = []
    try:
        names = sorted(os.listdir(root / path))  # noqa: PTH208  (names only)
    except OSError:
        return []
    for name in names:
        inner = f"{path}/{name}"
        if inner not in kept and not walk.is_cache(inner):
            result += _around(root, inner, folders, kept)
    return result


def place(root: Path, path: str, target: str) -> tuple[str, str]:
    """Decide what a symbolic link becomes in a snapshot.

    Returns
    -------
    tuple
        ``("keep", text)``: stays a link with this relative target, because it points inside the project; ``("link", path)``:
        points outside, and the job gets a link to its target; ``("drop", reason)``: points nowhere.
    """
    here = posixpath.dirname(path)
    lexical = posixpath.normpath(posixpath.join(here, target))
    stays = not target.startswith("/") and lexical != ".." and not lexical.startswith("../")
    resolved = os.path.realpath(root / path)
    if not Path(resolved).exists():
        return ("keep", target) if stays else ("drop", "points nowhere")
    top = os.path.realpath(root)
    if resolved != top and not resolved.startswith(f"{top}/"):
        return "link", resolved
    if stays:
        return "keep", target
    return "keep", os.path.relpath(resolved, os.path.join(top, here))  # noqa: PTH118

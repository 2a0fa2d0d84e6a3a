"""What is installed: the record in each version's folder, and the files that somebody edited since. Reads only."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lossi.errors import InvalidInput
from lossi.installing.places import Places

RECORD = "manifest.json"
FORMAT = 1
MAX_BYTES = 16 << 20
GENERATED = ("form.json", "restart.txt")
"""Files that Lossi itself rewrites between installations; not edits."""


@dataclass(frozen=True)
class Installed:
    """An installed version.

    Attributes
    ----------
    folder
        Its folder.
    links
        Where Open OnDemand looks → path inside the folder.
    files
        Path inside the folder → SHA-256 of what was written.
    python
        The interpreter of the apps.
    node_python
        The interpreter of sessions on compute nodes; empty if it is the same.
    without
        Components that the site leaves out.
    made
        Folders outside the home that were made for the links.
    """

    name: str
    version: str
    folder: Path
    python: str
    links: Mapping[str, str]
    files: Mapping[str, str]
    node_python: str = ""
    without: tuple[str, ...] = ()
    made: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        """Return the content of the record."""
        return {
            "format": FORMAT,
            "name": self.name,
            "version": self.version,
            "python": self.python,
            "node_python": self.node_python,
            "links": dict(self.links),
            "files": dict(self.files),
            "without": list(self.without),
            "made": list(self.made),
        }


@dataclass(frozen=True)
class Edit:
    """A file of a version that differs from what was installed."""

    path: str
    kind: Literal["edited", "removed", "added"]


def current(places: Places) -> Installed | None:
    """Return the version in use, or None if nothing is installed.

    Raises
    ------
    InvalidInput
        If its record cannot be read.
    """
    return _read(places.current)


def previous(places: Places) -> Installed | None:
    """Return the previous version, or None; errors as `current`."""
    return _read(places.previous)


def _read(link: Path) -> Installed | None:
    if not link.is_symlink():
        return None
    return read(Path(os.path.realpath(link)))


def read(folder: Path) -> Installed:
    """Return the version in ``folder``.

    Raises
    ------
    InvalidInput
        If its record cannot be read.
    """
    path = folder / RECORD
    try:
        with path.open("rb") as stream:
            record = json.loads(stream.read(MAX_BYTES))
        if record["format"] != FORMAT:
            raise ValueError(f"format {record['format']!r} is unknown to this version")
        return Installed(
            name=str(record["name"]),
            version=str(record["version"]),
            folder=folder,
            python=str(record["python"]),
            node_python=str(record["node_python"]),
            links={str(link): str(inside) for link, inside in record["links"].items()},
            files={str(name): str(digest) for name, digest in record["files"].items()},
            without=tuple(map(str, record["without"])),
            made=tuple(map(str, record["made"])),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidInput(
            f"cannot read the record of an installed version, {path}",
            why=str(error),
            hint="restore the file, or remove the links and that folder by hand and install again",
        ) from None


def edits(installed: Installed) -> list[Edit]:
    """Return the changes that somebody made to a version's files since it was installed."""
    present = {path for path in inventory(installed.folder) if path != RECORD}
    changed = [Edit(path, "removed") for path in installed.files if path not in present]
    for path in present:
        if is_generated(path):
            continue
        if path not in installed.files:
            changed.append(Edit(path, "added"))
        elif digest_of(installed.folder / path) != installed.files[path]:
            changed.append(Edit(path, "edited"))
    return sorted(changed, key=lambda edit: edit.path)


def is_generated(path: str) -> bool:
    """Return whether Lossi itself rewrites a file between installations."""
    return os.path.basename(path) in GENERATED or "/__pycache__/" in f"/{path}"  # noqa: PTH119


def inventory(folder: Path) -> list[str]:
    """Return the relative paths of all files below ``folder``; links to folders count as files and are not followed."""
    paths: list[str] = []
    for place, folders, files in os.walk(folder):
        links = [name for name in folders if Path(place, name).is_symlink()]
        paths += [os.path.relpath(Path(place, name), folder) for name in (*files, *links)]
    return sorted(paths)


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a regular file; for anything else an empty text."""
    with contextlib.suppress(OSError):
        if stat.S_ISREG(path.lstat().st_mode):
            with path.open("rb") as stream:
                return hashlib.file_digest(stream, "sha256").hexdigest()
    return ""


def foreign(places: Places, links: Iterable[str]) -> list[Path]:
    """Return the paths of ``links`` that exist and are not ours."""
    return [path for path in map(Path, links) if os.path.lexists(path) and not places.is_ours(path)]

"""What is installed: the record that each version carries, and what was changed by hand since. Reads only."""

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
"""Files that Lossi itself writes again between installations: no edits."""


@dataclass(frozen=True)
class Installed:
    """A version that is installed.

    Attributes
    ----------
    folder
        Where it lies.
    links
        Where Open OnDemand looks → path inside the folder.
    files
        Path inside the folder → SHA-256 of what was written.
    python
        The interpreter of the environment that the apps run with, as it was named.
    node_python
        The interpreter that sessions start on compute nodes, where it is not the same; otherwise empty.
    without
        Components that the site does not want.
    made
        Folders of others that had to be made for the links.
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
        """Return the record as it is written."""
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
    """A file of a version that is not as it was installed."""

    path: str
    kind: Literal["edited", "removed", "added"]


def current(places: Places) -> Installed | None:
    """Return the version in use, or None where nothing is installed.

    Raises
    ------
    InvalidInput
        When its record cannot be read.
    """
    return _read(places.current)


def previous(places: Places) -> Installed | None:
    """Return the version before, if there is one; errors as `current`."""
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
        When it has no record that can be read.
    """
    path = folder / RECORD
    try:
        with path.open("rb") as stream:
            found = json.loads(stream.read(MAX_BYTES))
        if found["format"] != FORMAT:
            raise ValueError(f"of form {found['format']!r}, which this version does not know")
        return Installed(
            name=str(found["name"]),
            version=str(found["version"]),
            folder=folder,
            python=str(found["python"]),
            node_python=str(found["node_python"]),
            links={str(link): str(inside) for link, inside in found["links"].items()},
            files={str(name): str(digest) for name, digest in found["files"].items()},
            without=tuple(map(str, found["without"])),
            made=tuple(map(str, found["made"])),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InvalidInput(
            f"cannot read the record of an installed version, {path}",
            why=str(error),
            hint="bring the file back, or remove the links and that folder by hand and install again",
        ) from None


def edits(installed: Installed) -> list[Edit]:
    """Return what was changed by hand in a version since it was installed."""
    there = {path for path in inventory(installed.folder) if path != RECORD}
    found = [Edit(path, "removed") for path in installed.files if path not in there]
    for path in there:
        if is_generated(path):
            continue
        if path not in installed.files:
            found.append(Edit(path, "added"))
        elif digest_of(installed.folder / path) != installed.files[path]:
            found.append(Edit(path, "edited"))
    return sorted(found, key=lambda edit: edit.path)


def is_generated(path: str) -> bool:
    """Return whether a file is one that Lossi writes again between installations."""
    return os.path.basename(path) in GENERATED or "/__pycache__/" in f"/{path}"  # noqa: PTH119


def inventory(folder: Path) -> list[str]:
    """Return the paths of all files below ``folder``, relative to it; links to folders count as files and are not followed."""
    found = []
    for place, folders, files in os.walk(folder):
        links = [name for name in folders if Path(place, name).is_symlink()]
        found += [os.path.relpath(Path(place, name), folder) for name in (*files, *links)]
    return sorted(found)


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a regular file; of anything else an empty text."""
    with contextlib.suppress(OSError):
        if stat.S_ISREG(path.lstat().st_mode):
            with path.open("rb") as stream:
                return hashlib.file_digest(stream, "sha256").hexdigest()
    return ""


def foreign(places: Places, links: Iterable[str]) -> list[Path]:
    """Return those of ``links`` at which something lies that is not ours."""
    return [path for path in map(Path, links) if os.path.lexists(path) and not places.is_ours(path)]

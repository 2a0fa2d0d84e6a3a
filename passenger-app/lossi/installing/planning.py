"""The files of a new version, and how they differ from the installed one. Writes nothing."""

from __future__ import annotations

import difflib
import hashlib
import os
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lossi.errors import InvalidInput
from lossi.installing.bundle import IGNORED, Component
from lossi.installing.places import Places
from lossi.installing.state import Installed, edits, is_generated

MAX_FILES = 5000
MAX_LINES = 60
"""Shown lines of a file's difference."""


@dataclass(frozen=True)
class File:
    """A file to write."""

    content: bytes
    executable: bool = False

    @property
    def digest(self) -> str:
        """SHA-256 of the content."""
        return hashlib.sha256(self.content).hexdigest()


@dataclass(frozen=True)
class Plan:
    """A version to install.

    Attributes
    ----------
    name
        Of its folder: the version and the start of a digest of its files.
    links
        Where Open OnDemand looks → path inside the folder.
    """

    name: str
    version: str
    python: str
    links: Mapping[str, str]
    files: Mapping[str, File]
    node_python: str = ""
    without: tuple[str, ...] = ()


@dataclass(frozen=True)
class Change:
    """A difference between the installed version and the planned one.

    Attributes
    ----------
    kind
        ``restored``: a file that somebody edited is written again; the edited one is kept.
    """

    kind: Literal["new", "changed", "removed", "restored"]
    path: str
    before: bytes | None = None
    after: bytes | None = None

    def lines(self) -> list[str]:
        """Return the difference of a text file, at most `MAX_LINES` lines."""
        if self.kind not in ("changed", "restored"):
            return []
        try:
            before, after = ((side or b"").decode("utf-8").splitlines() for side in (self.before, self.after))
        except UnicodeDecodeError:
            return ["(not text)"]
        difference = list(difflib.unified_diff(before, after, "installed", "new", lineterm="", n=1))
        hidden = len(difference) - MAX_LINES
        return difference if hidden <= 0 else [*difference[:MAX_LINES], f"({hidden} more lines)"]


def plan(
    components: Iterable[Component],
    places: Places,
    *,
    version: str,
    python: Path,
    node_python: str = "",
    without: Iterable[str] = (),
) -> Plan:
    """Return the version made of ``components``, run by the interpreter ``python`` and on compute nodes by ``node_python``.

    Raises
    ------
    InvalidInput
        If ``without`` names an unknown component, or the source has too many files.
    """
    chosen = list(components)
    left_out = tuple(sorted(set(without)))
    known = [component.name for component in chosen]
    if unknown := [name for name in left_out if name not in known]:
        raise InvalidInput(f"there is no component {', '.join(unknown)}", hint=f"choose from {', '.join(known)}")
    chosen = [component for component in chosen if component.name not in left_out]
    files: dict[str, File] = {"bin/lossi": _command(places, python)}
    for component in chosen:
        for relative, path in _sources(component.source):
            files[os.path.normpath(f"{component.inside}/{relative}")] = _file(path)
        if component.inside.startswith("apps/"):
            interpreter = _relative(python, places, f"{component.inside}/environment")
            files[f"{component.inside}/environment"] = File(os.fsencode(interpreter) + b"\n")
            if (component.source / "template").is_dir():
                # Absolute, because Open OnDemand copies the template into the session's folder.
                interpreter = node_python or str(places.as_used(python))
                files[f"{component.inside}/template/environment"] = File(os.fsencode(interpreter) + b"\n")
        if f"{component.inside}/passenger_wsgi.py" in files:
            files[f"{component.inside}/tmp/restart.txt"] = File(b"")  # noqa: S108 -- the app's own folder
        if len(files) > MAX_FILES:
            raise InvalidInput(f"{component.source} has too many files", hint="is it the bundle?")
    links = {str(component.link): component.inside for component in chosen}
    parts = [f"{path}\0{file.executable:d}{file.digest}" for path, file in files.items()]
    digest = hashlib.sha256("\n".join([*sorted(parts), *sorted(links)]).encode("utf-8", "surrogateescape")).hexdigest()[:12]
    return Plan(f"{version}-{digest}", version, str(python), links, files, node_python, left_out)


def _sources(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield relative path and file of a component's files; a link in the source becomes a copy of its target."""
    if folder.is_file():
        yield ".", folder
        return
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if name not in IGNORED)
        if len(Path(place).parts) - len(folder.parts) > 12:
            raise InvalidInput(f"{place} is nested too deeply", hint="does a link lead back to a folder above it?")
        for name in sorted(names):
            if not name.endswith((".pyc", ".swp", "~")):
                path = Path(place, name)
                yield os.path.relpath(path, folder), path


def _file(path: Path) -> File:
    content = path.read_bytes()
    # Some tools lose the permission when they unpack a wheel; a file that names its interpreter is a program.
    return File(content, executable=os.access(path, os.X_OK) or content.startswith(b"#!"))


def _relative(python: Path, places: Places, file: str) -> str:
    """Return the interpreter's path relative to the folder of ``file`` if both are in our home, else absolute."""
    if not python.is_relative_to(places.home):
        return str(python)
    return os.path.relpath(python, (places.versions / "NAME" / file).parent)


def _command(places: Places, python: Path) -> File:
    interpreter = _relative(python, places, "bin/lossi")
    start = shlex.quote(interpreter) if os.path.isabs(interpreter) else f'"$here"/{shlex.quote(interpreter)}'  # noqa: PTH117
    text = f"""#!/bin/sh
# The command of the installed version: link to it from a folder on everybody's PATH.
here=$(dirname "$(readlink -f "$0")") || exit 1
exec {start} -I -m lossi "$@"
"""
    return File(os.fsencode(text), executable=True)


def diff(new: Plan, installed: Installed | None) -> list[Change]:
    """Return what would change on disk, by path."""
    if installed is None:
        return [Change("new", path, None, file.content) for path, file in sorted(new.files.items())]
    by_hand = {edit.path: edit.kind for edit in edits(installed)}
    changes = []
    for path in sorted({*new.files, *installed.files, *by_hand}):
        if is_generated(path) and path in installed.files:
            continue
        file, was = new.files.get(path), installed.files.get(path)
        after = file.content if file else None
        if path in by_hand:
            changes.append(Change("restored", path, _content(installed.folder / path), after))
        elif file is None:
            changes.append(Change("removed", path, _content(installed.folder / path)))
        elif was is None:
            changes.append(Change("new", path, None, after))
        elif was != file.digest:
            changes.append(Change("changed", path, _content(installed.folder / path), after))
    return changes


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes() if path.is_file() and not path.is_symlink() else None
    except OSError:
        return None

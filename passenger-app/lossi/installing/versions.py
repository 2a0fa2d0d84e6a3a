"""Writes a version, switches to it and back, removes all: completely or not at all, and only what is ours."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from lossi.errors import Conflict, InvalidInput, NotFound
from lossi.files import atomic, permissions
from lossi.installing import state
from lossi.installing.places import Places
from lossi.installing.planning import Plan
from lossi.installing.state import Installed

OURS = frozenset(("versions", "environments", "edits", "current", "previous"))
KEEP_DAYS = 30
"""How long an unused version is kept: a queued job may yet start in its environment."""


def apply(plan: Plan, places: Places, keep_days: float = KEEP_DAYS) -> Installed:
    """Write a version, switch to it and return it.

    The previous version is kept for `rollback`. Older ones that have been out of use for ``keep_days`` are removed, with the
    environments that only they used. Edited files are copied to `Places.edits`.

    Raises
    ------
    Conflict
        If something that is not ours is in the place of a link, or another installation is running. Nothing is written.
    Unavailable, Forbidden
        If the disk is full or a folder is not writable; the old version stays in use.
    """
    refuse_foreign(places, plan.links)
    new_folders: list[str] = []
    try:
        with _locked(places, new_folders):
            old = state.current(places)
            new = _write_version(plan, places)
            try:
                _parents(plan.links, new_folders)
                new = _write_record(new, made=sorted({*new_folders, *(old.made if old else ())}))
                if old:
                    _keep_edits(old, places)
                _switch(places, old, new)
            except BaseException:
                shutil.rmtree(new.folder, ignore_errors=True)
                raise
            _clean(places, keep_days)
            return new
    except BaseException:
        _remove_empty([*new_folders, str(places.versions), str(places.home)])
        raise


def rollback(places: Places) -> Installed:
    """Switch to the previous version and return it; the one in use becomes the previous one.

    Raises
    ------
    NotFound
        If there is none.
    Conflict, Unavailable, Forbidden
        As `apply`.
    """
    before = state.previous(places)
    if before is None:
        raise NotFound(f"there is no earlier version in {places.home}", hint="install the version that you want")
    refuse_foreign(places, before.links)
    new_folders: list[str] = []
    with _locked(places, new_folders):
        old = state.current(places)
        _parents(before.links, new_folders)
        before = _write_record(before, made=sorted({*new_folders, *before.made, *(old.made if old else ())}))
        _switch(places, old, before)
    return before


def uninstall(places: Places) -> Path | None:
    """Remove links, versions, environments and the folders that were made for them.

    Returns
    -------
    Path or None
        Folder of edited files, which stay.

    Raises
    ------
    NotFound
        If nothing is installed.
    Conflict, Unavailable, Forbidden
        As `apply`.
    """
    installed = state.current(places)
    if installed is None:
        raise NotFound(f"nothing is installed in {places.home}", hint="pass its place with --prefix or --home")
    with _locked(places, []):
        try:
            for link in map(Path, installed.links):
                if places.is_ours(link):
                    link.unlink()
            for folder in _versions(places):
                _keep_edits(state.read(folder), places)
            places.current.unlink()
            places.previous.unlink(missing_ok=True)
            for folder in (places.versions, places.environments):
                if folder.exists():
                    shutil.rmtree(folder)
        except OSError as error:
            raise atomic.explained(error, Path(os.fsdecode(error.filename or places.home))) from error
    _remove_empty([*installed.made, str(places.home)])
    return places.edits if places.edits.exists() else None


def refuse_foreign(places: Places, links: Iterable[str]) -> None:
    """Refuse to overwrite what is not ours.

    Raises
    ------
    Conflict
        Names the files and folders, or the home that is not ours.
    """
    if foreign := state.foreign(places, links):
        names = ", ".join(map(str, foreign))
        hint = "move it away, or leave that component out with --without"
        raise Conflict(f"{names} was not put there by Lossi", why="Lossi never touches files of others", hint=hint)
    with contextlib.suppress(FileNotFoundError):
        others = [entry.name for entry in places.home.iterdir() if entry.name not in OURS]
        if others:
            raise Conflict(
                f"{places.home} contains something else ({', '.join(sorted(others)[:3])})",
                why="Lossi never touches files of others",
                hint="pass another folder with --home",
            )


@contextlib.contextmanager
def _locked(places: Places, made: list[str]) -> Iterator[None]:
    """Hold the lock of the home folder, which is made if necessary."""
    _make(places.versions, made)
    permissions.refuse_open_ancestors(places.versions)
    descriptor = os.open(places.home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise Conflict(f"another installation is running in {places.home}", hint="wait for it to end") from None
        yield
    finally:
        os.close(descriptor)


def _make(folder: Path, made: list[str]) -> None:
    """Make a folder that everybody may enter, with its parents; append those that were missing to ``made``."""
    if folder.is_dir():
        return
    _make(folder.parent, made)
    try:
        folder.mkdir()
        folder.chmod(0o755)
    except OSError as error:
        raise atomic.explained(error, folder) from error
    made.append(str(folder))


def _parents(links: Iterable[str], made: list[str]) -> None:
    for link in links:
        _make(Path(link).parent, made)


def _write_version(plan: Plan, places: Places) -> Installed:
    """Write a version's folder; a failure leaves nothing behind."""
    folder = places.versions / plan.name
    number = 1
    while os.path.lexists(folder):  # the same version, edited by somebody
        number += 1
        folder = places.versions / f"{plan.name}.{number}"
    part = places.versions / f".{plan.name}.{secrets.token_hex(6)}.part"
    try:
        for path, file in plan.files.items():
            _make((part / path).parent, [])
            _write(part / path, file.content, 0o755 if file.executable else 0o644)
        installed = Installed(
            name=plan.name,
            version=plan.version,
            folder=part,
            python=plan.python,
            node_python=plan.node_python,
            links=plan.links,
            files={path: file.digest for path, file in plan.files.items()},
            without=plan.without,
        )
        _write_record(installed, made=[])
        part.rename(folder)
        atomic.sync_folder(places.versions)
    except BaseException as error:
        shutil.rmtree(part, ignore_errors=True)
        if isinstance(error, OSError):
            raise atomic.explained(error, folder) from error
        raise
    return state.read(folder)


def _write(path: Path, content: bytes, mode: int) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode), "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fchmod(stream.fileno(), mode)  # whatever the umask is
        os.fsync(stream.fileno())


def _write_record(installed: Installed, *, made: list[str]) -> Installed:
    data = json.dumps({**installed.document(), "made": made}, indent=1, sort_keys=True).encode("ascii")
    path = installed.folder / state.RECORD
    atomic.write(path, data, mode=0o644)
    path.chmod(0o644)
    return state.read(installed.folder)


def _switch(places: Places, old: Installed | None, new: Installed) -> None:
    """Make ``new`` the version in use; a failure leaves the links as they were."""
    before = {link: os.readlink(link) if link.is_symlink() else None for link in (places.current, places.previous)}  # noqa: PTH115
    added: list[Path] = []
    try:
        if old is not None:
            _point(places.previous, f"versions/{old.folder.name}")
        _point(places.current, f"versions/{new.folder.name}")
        for link, inside in ((Path(link), inside) for link, inside in new.links.items()):
            text = places.link_text(link, inside)
            if not os.path.lexists(link):
                link.symlink_to(text)
                added.append(link)
            elif os.readlink(link) != text:  # noqa: PTH115
                _point(link, text)
        for link in map(Path, old.links if old else ()):
            if str(link) not in new.links and places.is_ours(link):
                link.unlink()
        _restart(new.folder, old.folder if old else None)
        if old is not None:
            os.utime(old.folder)  # the time since it is out of use
    except OSError as error:
        with contextlib.suppress(OSError):
            for link in added:
                link.unlink()
            for link, target in before.items():
                if target is None:
                    link.unlink(missing_ok=True)
                else:
                    _point(link, target)
        raise atomic.explained(error, Path(os.fsdecode(error.filename or places.current))) from error


def _restart(new: Path, old: Path | None) -> None:
    """Let running apps restart: Passenger compares the time of this file, in whole seconds."""
    for file in new.glob("apps/*/tmp/restart.txt"):
        now = time.time()
        if old is not None:
            with contextlib.suppress(FileNotFoundError):
                now = max(now, (old / file.relative_to(new)).stat().st_mtime + 1)
        os.utime(file, (now, now))


def _point(link: Path, text: str) -> None:
    """Make ``link`` lead to ``text``, atomically."""
    part = link.with_name(f".{link.name}.{secrets.token_hex(6)}.part")
    part.symlink_to(text)
    try:
        part.replace(link)
    except OSError:
        part.unlink(missing_ok=True)
        raise
    atomic.sync_folder(link.parent)


def _keep_edits(installed: Installed, places: Places) -> None:
    for edit in state.edits(installed):
        if edit.kind == "removed":
            continue
        copy = places.edits / installed.folder.name / edit.path
        _make(copy.parent, [])
        try:
            shutil.copy2(installed.folder / edit.path, copy, follow_symlinks=False)
        except OSError as error:
            raise atomic.explained(error, copy) from error


def _versions(places: Places) -> list[Path]:
    return sorted(path for path in places.versions.iterdir() if path.is_dir() and not path.name.startswith("."))


def _clean(places: Places, keep_days: float) -> None:
    """Remove versions that are long out of use, and environments that no version needs."""
    oldest = time.time() - keep_days * 86400
    in_use = [installed.folder for installed in (state.current(places), state.previous(places)) if installed]
    for folder in _versions(places):
        if folder not in in_use and folder.stat().st_mtime < oldest:
            with contextlib.suppress(InvalidInput):  # one without a record is left for a person to check
                _keep_edits(state.read(folder), places)
                shutil.rmtree(folder, ignore_errors=True)
    needed = []
    for folder in _versions(places):
        with contextlib.suppress(InvalidInput):
            needed.append(Path(state.read(folder).python))
    if places.environments.is_dir():
        for folder in places.environments.iterdir():
            if not any(python.is_relative_to(folder) for python in needed):
                shutil.rmtree(folder, ignore_errors=True)


def _remove_empty(folders: Iterable[str]) -> None:
    for folder in sorted(set(folders), key=len, reverse=True):
        with contextlib.suppress(OSError):
            Path(folder).rmdir()

"""Find, create and remember projects; each user has one registry file.

Reads the markers of projects, creates ``.lossi``, and writes ``projects.json`` in the user's state folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

from lossi import settings
from lossi.errors import Conflict, InvalidInput, LossiError, NotFound, did_you_mean
from lossi.files import atomic, permissions
from lossi.projects.project import Project

MARKERS = (".lossi", ".ondemand", ".git")
"""Entries that make a directory a project; ``.ondemand`` is from Open OnDemand's Project Manager."""


def find(path: Path | None = None) -> Project:
    """Return the project that contains a path: the nearest parent with one of the `MARKERS`.

    In a world-writable folder, such as ``/tmp``, only the user's own markers count.

    Parameters
    ----------
    path
        A folder or a file; the current folder if None.

    Raises
    ------
    NotFound
        When the path does not exist or no parent is a project.
    """
    start = Path(os.path.realpath(path if path is not None else Path.cwd()))
    try:
        is_folder = stat.S_ISDIR(start.stat().st_mode)
    except (OSError, ValueError):
        raise NotFound(f"{path} does not exist, or you may not see it", hint="check the path") from None
    for folder in (start, *start.parents) if is_folder else start.parents:
        if _is_project(folder):
            return Project(folder)
    raise NotFound(f"{start} is not in a project", hint="create one with `lossi project init` in its folder")


def init(path: Path) -> Project:
    """Make a directory a project, creating it if necessary, and remember it. Idempotent.

    Raises
    ------
    Forbidden
        When the user cannot write there, or every user of the machine can.
    InvalidInput
        When the path is not a directory.
    Unavailable
        When the filesystem is full or read-only.
    """
    root = Path(os.path.realpath(path))
    try:
        root.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise InvalidInput(f"{root} is not a directory", hint="pass a folder for the project") from None
    except OSError as error:
        raise atomic.explained(error, root) from error
    if root == Path(root.anchor):
        raise InvalidInput("the root folder cannot be a project", hint="use a folder of your own")
    permissions.refuse_open_ancestors(root)
    project = Project(root)
    project.make_home()
    register(project)
    return project


def registered() -> list[Project]:
    """Return the user's known projects and the site's shared ones that are accessible, sorted by name.

    A project on a filesystem that is not mounted stays in the registry but is not listed.
    """
    shared = [Path(os.path.realpath(path)) for path in settings.load().shared_projects]
    roots = {*_read(), *shared}
    return [Project(root) for root in sorted(roots, key=lambda root: (root.name, root)) if _is_usable(root)]


def register(project: Project) -> None:
    """Remember a project.

    Raises
    ------
    Forbidden, Unavailable
        When the user's state folder cannot be written.
    """
    if project.root not in _read():
        _change(lambda roots: roots | {project.root})


def forget(project: Project) -> None:
    """Remove a project from the user's registry; its directory is not touched.

    Raises
    ------
    NotFound
        When it is not in the registry.
    """
    if project.root not in _read():
        raise NotFound(f"project {project.name!r} is not one of your projects", hint="`lossi project list` shows them")
    _change(lambda roots: roots - {project.root})


def by_name_or_path(text: str) -> Project:
    """Return a project by its path, a path inside it, or the name of a known project.

    Raises
    ------
    NotFound
        When it does not exist.
    Conflict
        When several known projects have this name.
    """
    if "\0" in text or not text:
        raise NotFound(f"no project {text!r}", hint="`lossi project list` shows the known projects")
    if os.sep in text or text in (".", "..", "~"):
        return find(Path(os.path.expanduser(text)))  # noqa: PTH111  (Path.expanduser raises for an unknown ~user)
    known = registered()
    same = [project for project in known if text in (project.name, project.root.name)]
    if len(same) > 1:
        paths = ", ".join(str(project.root) for project in same)
        raise Conflict(f"you have {len(same)} projects named {text!r}: {paths}", hint="use the path")
    if same:
        return same[0]
    if Path(text).is_dir():
        return find(Path(text))
    hint = did_you_mean(text, (project.name for project in known))
    raise NotFound(f"no project {text!r}", hint=hint or "`lossi project list` shows the known projects; or use the path")


def _is_project(folder: Path) -> bool:
    return folder != Path(folder.anchor) and any(permissions.is_trusted_marker(folder, marker) for marker in MARKERS)


def _is_usable(root: Path) -> bool:
    return os.access(root, os.R_OK | os.X_OK) and root.is_dir()


def _file() -> Path:
    return settings.state_dir() / "projects.json"


def _read() -> set[Path]:
    """Return the registered roots; a broken file reads as empty (and is kept aside by the next change)."""
    try:
        data = json.loads(_file().read_bytes())
        return {Path(item) for item in data["projects"] if os.path.isabs(item)}  # noqa: PTH117
    except (OSError, ValueError, TypeError, KeyError):
        return set()


def _change(change: Callable[[set[Path]], set[Path]]) -> None:
    path = _file()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise _no_state(atomic.explained(error, path)) from error
    try:
        with atomic.locked(path.with_suffix(".lock")):
            before = _read()
            if not before and path.exists() and not _is_readable_json(path):
                with contextlib.suppress(OSError):
                    path.replace(path.with_suffix(".broken"))
            roots = sorted(os.fspath(root) for root in change(before))
            # ASCII only: a path that is not UTF-8 survives as escaped surrogates.
            atomic.write(path, json.dumps({"projects": roots}, indent=1).encode("ascii") + b"\n", mode=0o600)
    except LossiError as error:
        raise _no_state(error) from error


def _is_readable_json(path: Path) -> bool:
    try:
        return isinstance(json.loads(path.read_bytes()).get("projects"), list)
    except (OSError, ValueError, AttributeError):
        return False


def _no_state(error: LossiError) -> LossiError:
    return type(error)(
        f"cannot register the project in {_file()}",
        why=error.why,
        hint="free some space there, or set XDG_STATE_HOME to a writable folder",
    )

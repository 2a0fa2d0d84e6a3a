"""Artifacts of runs: listed and opened only below the project's own artifact root, whatever a store claims."""

# ruff: noqa: S608  (statements are put together from names in this package only; values are always bound)
from __future__ import annotations

import os
import stat
from pathlib import Path

from lossi.errors import Forbidden, InvalidInput, NotFound, NotSupported
from lossi.files import beneath
from lossi.files.beneath import Entry
from lossi.projects import Project, stores
from lossi.tracking.query.runs import missing
from lossi.tracking.query.store import Store, read
from lossi.tracking.query.values import is_storable, text


def artifacts(project: Project, run_id: str, path: str = "") -> list[Entry]:
    """Return what lies in a folder of a run's artifacts; a run that has logged none has an empty root.

    Raises
    ------
    NotFound
        When there is no such run or folder.
    Forbidden
        When the run's artifacts lie outside the project's artifact root, or ``path`` leads out of the run's folder.
    InvalidInput
        When ``path`` is a file.
    NotSupported
        When the artifacts are not on this filesystem.
    """
    root, folder = _place(project, run_id)
    inside = _joined(folder, path)
    try:
        return beneath.list_folder(root, inside)
    except NotFound:
        if inside == folder:
            return []
        raise


def open_artifact(project: Project, run_id: str, path: str) -> int:
    """Open a file of a run's artifacts and return its descriptor, which the caller closes.

    Raises
    ------
    NotFound, Forbidden, NotSupported
        As `artifacts`.
    InvalidInput
        When ``path`` is a folder.
    """
    root, folder = _place(project, run_id)
    descriptor = beneath.open_beneath(root, _joined(folder, path))
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InvalidInput(f"{path or 'the root of the artifacts'} is a folder", hint="list it, or name a file in it")
    return descriptor


def _joined(folder: str, path: str) -> str:
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if path.startswith("/") or ".." in parts or "\0" in path:
        raise Forbidden(f"{path!r} leads out of the run's artifacts", hint="name a file or folder below them")
    return "/".join([folder, *parts])


def _place(project: Project, run_id: str) -> tuple[Path, str]:
    """Return the artifact root and a run's folder relative to it."""
    uri = read(project, lambda store: _uri(store, project, run_id))
    if not uri:
        raise NotFound(f"run {run_id} has no artifact folder", hint="it was not finished being created")
    path = stores.local_path(uri)
    if path is None:
        raise NotSupported(
            f"the artifacts of run {run_id} are at {uri}",
            why="only artifacts in the project are shown",
            hint="open them with MLflow",
        )
    for place, root in ((path, project.artifacts), (Path(os.path.realpath(path)), Path(os.path.realpath(project.artifacts)))):
        if ".." not in place.parts and place.is_relative_to(root) and place != root:
            return _trusted(project, place.relative_to(root))
    raise Forbidden(
        f"the artifacts of run {run_id} lie outside the project",
        why=f"the store names {uri}, which is not below {project.artifacts}",
        hint="runs that Lossi started keep them there; others can be opened with MLflow",
    )


def _trusted(project: Project, inside: Path) -> tuple[Path, str]:
    """Return the folder to walk down from: links on the way to the artifact root are followed if they are the user's own.

    Somebody else's project could otherwise have an artifact root that is a link to the reader's home.
    """
    links = [path for path in (project.home, project.artifacts) if path.is_symlink()]
    if links and all(path.lstat().st_uid == os.geteuid() for path in links):
        return project.artifacts, inside.as_posix()
    return project.root, (project.artifacts.relative_to(project.root) / inside).as_posix()


def _uri(store: Store, project: Project, run_id: str) -> str | None:
    sql = f"SELECT artifact_uri FROM {store.relations['runs']} WHERE run_uuid = ?"
    rows = store.rows(sql, [run_id]) if is_storable(run_id) else []
    if not rows:
        raise missing(project, [run_id])
    return text(rows[0][0])

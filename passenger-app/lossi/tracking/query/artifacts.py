"""Artifacts of runs: only those below the project's own artifact root, whatever the store says."""

# ruff: noqa: S608  (statements contain only names from this package; values are always bound)
from __future__ import annotations

import os
import stat
from pathlib import Path

from lossi.errors import Forbidden, InvalidInput, NotFound, NotSupported
from lossi.files import beneath
from lossi.files.beneath import Entry
from lossi.projects import Project, stores
from lossi.tracking.query.runs import missing_runs
from lossi.tracking.query.store import Store, read
from lossi.tracking.query.values import is_storable, text


def artifacts(project: Project, run_id: str, path: str = "") -> list[Entry]:
    """List a folder of a run's artifacts; the root of a run without artifacts is empty.

    Raises
    ------
    NotFound
        If there is no such run or folder.
    Forbidden
        If the run's artifacts are outside the project's artifact root, or ``path`` leads out of the run's folder.
    InvalidInput
        If ``path`` is a file.
    NotSupported
        If the artifacts are not on this filesystem.
    """
    root, folder = _locate(project, run_id)
    inside = _joined(folder, path)
    try:
        return beneath.list_folder(root, inside)
    except NotFound:
        if inside == folder:
            return []
        raise


def open_artifact(project: Project, run_id: str, path: str) -> int:
    """Open a file of a run's artifacts; return its descriptor, which the caller closes.

    Raises
    ------
    NotFound, Forbidden, NotSupported
        As `artifacts`.
    InvalidInput
        If ``path`` is a folder.
    """
    root, folder = _locate(project, run_id)
    descriptor = beneath.open_beneath(root, _joined(folder, path))
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InvalidInput(f"{path or 'the root of the artifacts'} is a folder", hint="list it, or choose a file in it")
    return descriptor


def _joined(folder: str, path: str) -> str:
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if path.startswith("/") or ".." in parts or "\0" in path:
        raise Forbidden(f"{path!r} leads out of the run's artifacts", hint="choose a file or folder below them")
    return "/".join([folder, *parts])


def _locate(project: Project, run_id: str) -> tuple[Path, str]:
    """Return the artifact root and a run's folder relative to it."""
    uri = read(project, lambda store: _uri(store, project, run_id))
    if not uri:
        raise NotFound(f"run {run_id} has no artifact folder", hint="it was not created completely")
    path = stores.local_path(uri)
    if path is None:
        raise NotSupported(
            f"the artifacts of run {run_id} are at {uri}",
            why="only artifacts in the project are shown",
            hint="open them with MLflow",
        )
    for place, root in ((path, project.artifacts), (Path(os.path.realpath(path)), Path(os.path.realpath(project.artifacts)))):
        if ".." not in place.parts and place.is_relative_to(root) and place != root:
            return _without_foreign_links(project, place.relative_to(root))
    raise Forbidden(
        f"the artifacts of run {run_id} are outside the project",
        why=f"the store has {uri}, which is not below {project.artifacts}",
        hint="runs that Lossi started keep them there; others can be opened with MLflow",
    )


def _without_foreign_links(project: Project, inside: Path) -> tuple[Path, str]:
    """Return the folder to start from: links on the way to the artifact root are followed only if they are the user's own.

    Otherwise another user's project could have an artifact root that is a link to the reader's home.
    """
    links = [path for path in (project.home, project.artifacts) if path.is_symlink()]
    if links and all(path.lstat().st_uid == os.geteuid() for path in links):
        return project.artifacts, inside.as_posix()
    return project.root, (project.artifacts.relative_to(project.root) / inside).as_posix()


def _uri(store: Store, project: Project, run_id: str) -> str | None:
    sql = f"SELECT artifact_uri FROM {store.relations['runs']} WHERE run_uuid = ?"
    rows = store.rows(sql, [run_id]) if is_storable(run_id) else []
    if not rows:
        raise missing_runs(project, [run_id])
    return text(rows[0][0])

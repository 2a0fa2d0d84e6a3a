"""Which runs a folder means: those of a project, or those of an old ``mlruns``. Looks at names only."""

from __future__ import annotations

import os
from pathlib import Path

from lossi.errors import InvalidInput, NotFound
from lossi.projects.project import Project


def runs_in(text: str) -> Project | Path:
    """Return what a path names: a project with a store, or a folder that MLflow formerly kept its runs in.

    Parameters
    ----------
    text
        As a user wrote it; ``~`` is understood. The project's own folder, its ``.lossi``, the old ``mlruns`` or the folder around it.

    Raises
    ------
    InvalidInput
        When it is neither.
    NotFound
        When it is no folder that the user may see.
    """
    if not text.strip() or "\0" in text:
        raise InvalidInput("no folder is named", hint="choose a project, or an old `mlruns` folder")
    try:
        path = Path(os.path.realpath(os.path.expanduser(text)))  # noqa: PTH111 - Path.expanduser raises for an unknown ~user
        found = path.is_dir()
    except (OSError, UnicodeEncodeError):  # too long, or half a character
        found = False
    if not found:
        raise NotFound(f"{text[:200]} is not a folder, or you may not see it", hint="check the path")
    for root in (path, path.parent):
        project = Project(root)
        if path in (root, project.home) and os.path.exists(project.store):  # noqa: PTH110 - Path.exists raises for what may not be seen
            return project
    for folder in (path, path / "mlruns"):
        if is_mlruns(folder):
            return folder
    if path.name == ".lossi" or os.path.lexists(path / ".lossi"):
        raise InvalidInput(
            f"the project {path} has no runs yet, or you may not see them", hint="run a notebook or a job in it first"
        )
    raise InvalidInput(
        f"{path} holds neither runs of Lossi nor an old `mlruns` folder",
        hint="name the folder of a project in which a job has run, or the folder in which you used MLflow",
    )


def is_mlruns(folder: Path) -> bool:
    """Return whether a folder is MLflow's former store of files: folders of experiments with a ``meta.yaml`` each."""
    try:
        return any((experiment / "meta.yaml").is_file() for experiment in folder.iterdir())
    except OSError:
        return False

"""Resolve a folder to runs: those of a project, or those of an old ``mlruns``. Only looks at names."""

from __future__ import annotations

import os
from pathlib import Path

from lossi.errors import InvalidInput, NotFound
from lossi.projects.project import Project


def runs_in(text: str) -> Project | Path:
    """Return the project with a store, or MLflow's former ``mlruns`` folder, at a path.

    Parameters
    ----------
    text
        User input, ``~`` allowed: the project's folder, its ``.lossi``, the old ``mlruns``, or the folder that contains it.

    Raises
    ------
    InvalidInput
        When it is neither.
    NotFound
        When it is not an accessible folder.
    """
    if not text.strip() or "\0" in text:
        raise InvalidInput("no folder given", hint="choose a project or an old `mlruns` folder")
    try:
        path = Path(os.path.realpath(os.path.expanduser(text)))  # noqa: PTH111 - Path.expanduser raises for an unknown ~user
        is_folder = path.is_dir()
    except (OSError, UnicodeEncodeError):  # too long, or a lone surrogate
        is_folder = False
    if not is_folder:
        raise NotFound(f"{text[:200]} is not a folder, or you may not see it", hint="check the path")
    for root in (path, path.parent):
        project = Project(root)
        if path in (root, project.home) and os.path.exists(project.store):  # noqa: PTH110 - Path.exists raises without permission
            return project
    for folder in (path, path / "mlruns"):
        if is_mlruns(folder):
            return folder
    if path.name == ".lossi" or os.path.lexists(path / ".lossi"):
        raise InvalidInput(
            f"the project {path} has no runs yet, or you may not see them", hint="run a notebook or a job in it first"
        )
    raise InvalidInput(
        f"{path} is not a project with runs and has no `mlruns` folder",
        hint="choose a project in which a job has run, or a folder in which you used MLflow",
    )


def is_mlruns(folder: Path) -> bool:
    """Return whether a folder is MLflow's former file store: folders of experiments with a ``meta.yaml`` each."""
    try:
        return any((experiment / "meta.yaml").is_file() for experiment in folder.iterdir())
    except OSError:
        return False

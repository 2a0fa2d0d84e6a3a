"""Artifacts that MLflow puts on node-local disk, and where they belong.

A notebook that calls ``mlflow.set_experiment`` with a new name makes an experiment whose artifacts lie in ``./mlruns`` of its
working directory, which is removed with the task. Such folders are links to the project's artifacts from the start where that
is possible, moved there at the end where it was not, and never appear in anything that is published.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Optional, Tuple

from .store import columns, local_path, location_of

DEFAULT_FOLDERS = ("mlruns", "mlartifacts")
"""Where MLflow puts artifacts when nobody says where, relative to the working directory (3.x)."""

URI_COLUMNS: Dict[str, Tuple[str, ...]] = {
    "experiments": ("artifact_location",),
    "runs": ("artifact_uri",),
    "logged_models": ("artifact_location",),
    "model_versions": ("source", "storage_location"),
    "trace_tags": ("value",),
    "experiment_tags": ("value",),
}
"""Columns of MLflow's schema that hold the place of artifacts."""


@dataclass(frozen=True)
class Relocation:
    """How places below the task's node-local folder are named once the task is over.

    Parameters
    ----------
    work
        The node-local folder, without links on the way.
    code
        The unpacked project in it.
    project
        The live project.
    home
        Where this task's stray artifacts belong, on the shared filesystem.
    """

    work: Path
    code: Path
    project: Path
    home: Path

    def link(self, working_directory: Path) -> None:
        """Make the folders that MLflow chooses by default links to where artifacts belong.

        Where that cannot be done (the project has a folder of this name, no space) they are moved at the end.
        """
        try:
            self.home.mkdir(parents=True, exist_ok=True)
            for name in DEFAULT_FOLDERS:
                os.symlink(self.home, working_directory / name)
        except OSError:
            pass

    def place(self, path: Path) -> Optional[Path]:
        """Return where artifacts at ``path`` belong, None when they may stay."""
        resolved = Path(os.path.realpath(path))
        if _is_below(resolved, self.home) and not _is_below(path, self.home):
            return resolved  # through one of the links
        if not _is_below(resolved, self.work):
            return None
        parts = resolved.relative_to(self.work).parts
        for name in DEFAULT_FOLDERS:
            if name in parts:
                return self.home.joinpath(*parts[parts.index(name) + 1 :])
        return self.home.joinpath("other", *parts)

    def rewrite(self, connection: sqlite3.Connection) -> None:
        """Replace the node's places by the final ones, wherever the schema keeps places."""
        for table, names in URI_COLUMNS.items():
            known = columns(connection, table)
            for column in names:
                if column in known:
                    self._rewrite_column(connection, table, column)
        if "dataset_source" in columns(connection, "datasets"):
            old, new = json.dumps(os.fspath(self.code))[1:-1], json.dumps(os.fspath(self.project))[1:-1]
            connection.execute(
                "UPDATE datasets SET dataset_source = replace(dataset_source, ?, ?) WHERE instr(dataset_source, ?)",
                (old, new, old),
            )

    def move(self, connection: sqlite3.Connection) -> List[str]:
        """Move what experiments have left on the node to where it belongs; return notes about what could not be moved."""
        notes = []
        rows = connection.execute("SELECT artifact_location FROM experiments UNION SELECT artifact_uri FROM runs").fetchall()
        # Longest last: a run's folder has gone with its experiment's by then.
        for location in sorted((row[0] for row in rows if row[0]), key=len):
            path = local_path(location)
            place = None if path is None else self.place(path)
            if path is None or place is None or not path.is_dir() or os.path.realpath(path) == os.path.realpath(place):
                continue
            try:
                shutil.copytree(path, place, symlinks=True, dirs_exist_ok=True)
                shutil.rmtree(path, ignore_errors=True)
            except (OSError, shutil.Error) as error:
                notes.append(f"artifacts in {path.name} could not all be moved to {place}: {_first(error)}")
        return notes

    def tidy(self) -> None:
        """Remove the folder for strays when nothing came."""
        try:
            self.home.rmdir()
        except OSError:
            pass

    def _rewrite_column(self, connection: sqlite3.Connection, table: str, column: str) -> None:
        text = os.fspath(self.work)
        found = f"SELECT DISTINCT {column} FROM {table} WHERE instr({column}, ?)"  # noqa: S608 - names of the schema
        change = f"UPDATE {table} SET {column} = ? WHERE {column} = ?"  # noqa: S608
        rows = connection.execute(found, (text,)).fetchall()
        for (uri,) in rows:
            path = local_path(str(uri))
            place = None if path is None else self.place(path)
            if place is not None:
                connection.execute(change, (location_of(place), uri))


def _first(error: Exception) -> str:
    """Return the first reason of `shutil.Error`, which holds a list of (source, destination, reason)."""
    if isinstance(error, shutil.Error) and error.args and isinstance(error.args[0], list) and error.args[0]:
        return str(error.args[0][0][-1])
    return str(error)


def _is_below(path: Path, folder: Path) -> bool:
    text, parent = os.fspath(path), os.fspath(folder)
    return text == parent or text.startswith(parent + "/")

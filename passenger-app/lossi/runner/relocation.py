"""Moves artifacts that MLflow writes to node-local disk to the project.

``mlflow.set_experiment`` with a new name makes an experiment whose artifacts go to ``./mlruns`` of the working directory,
which is removed with the task. If possible, such folders are links to the project's artifacts from the start; otherwise they
are moved there at the end. Published stores never name them.
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
"""MLflow's default artifact folders, relative to the working directory (3.x)."""

URI_COLUMNS: Dict[str, Tuple[str, ...]] = {
    "experiments": ("artifact_location",),
    "runs": ("artifact_uri",),
    "logged_models": ("artifact_location",),
    "model_versions": ("source", "storage_location"),
    "trace_tags": ("value",),
    "experiment_tags": ("value",),
}
"""Columns of MLflow's schema that hold artifact locations."""


@dataclass(frozen=True)
class Relocation:
    """How paths in the task's node-local folder map to their final ones.

    Parameters
    ----------
    work
        The node-local folder; a path without links.
    code
        The unpacked project in it.
    project
        The live project.
    home
        Where these artifacts of the task belong, on the shared filesystem.
    """

    work: Path
    code: Path
    project: Path
    home: Path

    def link(self, working_directory: Path) -> None:
        """Make MLflow's default folders links to where artifacts belong.

        If that fails (the project has a folder of this name, no space), they are moved at the end.
        """
        try:
            self.home.mkdir(parents=True, exist_ok=True)
            for name in DEFAULT_FOLDERS:
                os.symlink(self.home, working_directory / name)
        except OSError:
            pass

    def final_path(self, path: Path) -> Optional[Path]:
        """Return where artifacts at ``path`` belong; None if they stay."""
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
        """Replace the node's paths by the final ones in every column that holds locations."""
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
        """Move artifacts from the node to where they belong; return a note for each folder that cannot be moved."""
        notes = []
        rows = connection.execute("SELECT artifact_location FROM experiments UNION SELECT artifact_uri FROM runs").fetchall()
        # Shortest first: a run's folder moves with its experiment's.
        for location in sorted((row[0] for row in rows if row[0]), key=len):
            path = local_path(location)
            final = None if path is None else self.final_path(path)
            if path is None or final is None or not path.is_dir() or os.path.realpath(path) == os.path.realpath(final):
                continue
            try:
                shutil.copytree(path, final, symlinks=True, dirs_exist_ok=True)
                shutil.rmtree(path, ignore_errors=True)
            except (OSError, shutil.Error) as error:
                notes.append(f"cannot move all artifacts of {path.name} to {final}: {_first(error)}")
        return notes

    def tidy(self) -> None:
        """Remove the artifact folder if it is empty."""
        try:
            self.home.rmdir()
        except OSError:
            pass

    def _rewrite_column(self, connection: sqlite3.Connection, table: str, column: str) -> None:
        text = os.fspath(self.work)
        select = f"SELECT DISTINCT {column} FROM {table} WHERE instr({column}, ?)"  # noqa: S608 - names of the schema
        update = f"UPDATE {table} SET {column} = ? WHERE {column} = ?"  # noqa: S608
        rows = connection.execute(select, (text,)).fetchall()
        for (uri,) in rows:
            path = local_path(str(uri))
            final = None if path is None else self.final_path(path)
            if final is not None:
                connection.execute(update, (location_of(final), uri))


def _first(error: Exception) -> str:
    """Return the first reason of `shutil.Error`, which holds a list of (source, destination, reason)."""
    if isinstance(error, shutil.Error) and error.args and isinstance(error.args[0], list) and error.args[0]:
        return str(error.args[0][0][-1])
    return str(error)


def _is_below(path: Path, folder: Path) -> bool:
    text, parent = os.fspath(path), os.fspath(folder)
    return text == parent or text.startswith(parent + "/")

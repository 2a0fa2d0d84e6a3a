"""Reads and writes a task's MLflow store with sqlite3 alone: runs, tags, params, experiments.

The schema is MLflow's own (`mlflow/store/tracking/dbmodels/models.py`); tests compare it with the pinned release. Columns are
looked up by name, so a revision with more columns still works, and one with unknown required columns is refused instead of
half written.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Collection, Dict, Iterator, List, Mapping, Optional, Set, Tuple
from urllib.parse import quote, unquote, urlsplit

NEEDED = {
    "experiments": {"experiment_id", "name", "artifact_location", "lifecycle_stage"},
    "runs": {
        "run_uuid",
        "name",
        "user_id",
        "status",
        "start_time",
        "end_time",
        "lifecycle_stage",
        "artifact_uri",
        "experiment_id",
    },
    "tags": {"key", "value", "run_uuid"},
    "params": {"key", "value", "run_uuid"},
}

PARAM_LIMIT = 6000
"""Characters of a param's value (`mlflow.utils.validation.MAX_PARAM_VAL_LENGTH`; MLflow cuts longer ones too)."""
TAG_LIMIT = 8000
"""Characters of a tag's value (`MAX_TAG_VAL_LENGTH`)."""
NAME_LIMIT = 250
"""Characters of a key or a run's name."""

PARENT_TAG = "mlflow.parentRunId"


class StoreError(Exception):
    """The store cannot be written; the message says why."""


@dataclass(frozen=True)
class Run:
    """An active run of the store."""

    id: str
    experiment_id: int
    status: str
    start_ms: int
    end_ms: Optional[int]
    artifact_uri: str
    nested: bool
    """Whether it is a child of another run."""


@contextlib.contextmanager
def opened(path: Path, *, timeout_s: float = 20.0) -> Iterator[sqlite3.Connection]:
    """Open a store for writing, in autocommit mode; it must exist."""
    # A connection by name would create a missing file; mode=rw does not.
    uri = "file:" + quote(os.fspath(path)) + "?mode=rw"
    connection = sqlite3.connect(uri, uri=True, timeout=timeout_s, isolation_level=None)
    try:
        connection.execute("PRAGMA trusted_schema=OFF")
        yield connection
    finally:
        connection.close()


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Commit everything or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def check(connection: sqlite3.Connection) -> None:
    """Refuse a store without the known tables and columns of MLflow.

    Raises
    ------
    StoreError
        When one is missing.
    """
    for table, needed in NEEDED.items():
        missing = needed - columns(connection, table)
        if missing:
            raise StoreError(f"the MLflow store has no {table}.{sorted(missing)[0]}: its MLflow version is not supported")


def columns(connection: sqlite3.Connection, table: str) -> Set[str]:
    """Return the column names of a table; empty if there is no such table."""
    return {row[1] for row in _table_info(connection, table)}


def runs(connection: sqlite3.Connection) -> List[Run]:
    """Return the active runs, the task's own first: not nested before nested, then by start."""
    rows = connection.execute(
        "SELECT r.run_uuid, r.experiment_id, r.status, r.start_time, r.end_time, r.artifact_uri,"
        " EXISTS (SELECT 1 FROM tags t WHERE t.run_uuid = r.run_uuid AND t.key = ?) AS nested"
        " FROM runs r WHERE r.lifecycle_stage = 'active' ORDER BY nested, r.start_time, r.rowid",
        (PARENT_TAG,),
    )
    return [Run(row[0], int(row[1] or 0), row[2] or "", int(row[3] or 0), row[4], row[5] or "", bool(row[6])) for row in rows]


def experiment(connection: sqlite3.Connection, name: str, location: str) -> Tuple[int, str]:
    """Return id and artifact location of an experiment; create it as MLflow does if it is missing.

    Raises
    ------
    StoreError
        When the store requires an unknown column.
    """
    row = connection.execute("SELECT experiment_id, artifact_location FROM experiments WHERE name = ?", (name,)).fetchone()
    if row is not None:
        return int(row[0]), row[1] or location
    now = int(time.time() * 1000)
    number = _insert(
        connection,
        "experiments",
        {
            "name": name,
            "artifact_location": location,
            "lifecycle_stage": "active",
            "creation_time": now,
            "last_update_time": now,
            "workspace": "default",
        },
        automatic={"experiment_id"},
    )
    return number, location


def create_run(
    connection: sqlite3.Connection,
    experiment_id: int,
    location: str,
    *,
    name: str,
    user: str,
    status: str,
    start_ms: int,
    end_ms: int,
) -> Run:
    """Insert a run as MLflow's SQL store does (`SqlAlchemyStore.create_run`).

    The run's artifacts are ``<location>/<run id>/artifacts``, where ``location`` is the experiment's; times are milliseconds
    since the epoch.

    Raises
    ------
    StoreError
        When the store requires an unknown column.
    """
    run_id = uuid.uuid4().hex
    artifact_uri = f"{location.rstrip('/')}/{run_id}/artifacts"
    _insert(
        connection,
        "runs",
        {
            "run_uuid": run_id,
            "name": storable(name, NAME_LIMIT),
            "source_type": "UNKNOWN",
            "source_name": "",
            "entry_point_name": "",
            "source_version": "",
            "user_id": storable(user, 256),
            "status": status,
            "start_time": start_ms,
            "end_time": end_ms,
            "lifecycle_stage": "active",
            "artifact_uri": artifact_uri,
            "experiment_id": experiment_id,
        },
    )
    set_tags(connection, run_id, {"mlflow.runName": name})
    return Run(run_id, experiment_id, status, start_ms, end_ms, artifact_uri, False)


def set_tags(connection: sqlite3.Connection, run_id: str, tags: Mapping[str, str], *, replace: bool = True) -> None:
    """Set tags on a run; ``replace=False`` keeps existing values."""
    verb = "INSERT OR REPLACE" if replace else "INSERT OR IGNORE"
    connection.executemany(
        f"{verb} INTO tags (key, value, run_uuid) VALUES (?, ?, ?)",
        [(storable(key, NAME_LIMIT), storable(value, TAG_LIMIT), run_id) for key, value in tags.items()],
    )


def add_params(connection: sqlite3.Connection, run_id: str, params: Mapping[str, Any]) -> None:
    """Log the parameters that the run lacks, as text as ``mlflow.log_param`` writes them."""
    connection.executemany(
        "INSERT OR IGNORE INTO params (key, value, run_uuid) VALUES (?, ?, ?)",
        [(key, param_text(value), run_id) for key, value in params.items() if len(key) <= NAME_LIMIT],
    )


def take_params(connection: sqlite3.Connection, run_id: str) -> Dict[str, str]:
    """Remove a run's params and return them, so that a continued run can log its own."""
    params = dict(connection.execute("SELECT key, value FROM params WHERE run_uuid = ?", (run_id,)).fetchall())
    connection.execute("DELETE FROM params WHERE run_uuid = ?", (run_id,))
    return params


def keep_artifacts_below(connection: sqlite3.Connection, folder: Path) -> None:
    """Set the artifact location of every experiment to a folder below this one."""
    for (number,) in connection.execute("SELECT experiment_id FROM experiments").fetchall():
        connection.execute(
            "UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?", (location_of(folder / str(number)), number)
        )


def param_text(value: Any) -> str:
    """Return the text that ``mlflow.log_param`` stores for a value."""
    return storable(str(value), PARAM_LIMIT)


def end_run(connection: sqlite3.Connection, run_id: str, status: str, end_ms: int) -> None:
    """Set how and when a run ended."""
    connection.execute("UPDATE runs SET status = ?, end_time = ? WHERE run_uuid = ?", (status, end_ms, run_id))


def revive(connection: sqlite3.Connection, run_id: str) -> None:
    """Set an ended run back to RUNNING."""
    connection.execute("UPDATE runs SET status = 'RUNNING', end_time = NULL WHERE run_uuid = ?", (run_id,))


def storable(text: str, limit: int) -> str:
    """Return a text that SQLite and MLflow accept: valid Unicode, at most ``limit`` characters."""
    return text[:limit].encode("utf-8", "backslashreplace").decode("utf-8")[:limit]


def local_path(uri: str) -> Optional[Path]:
    """Return the path of an artifact location or URI; None if it is not on this filesystem.

    MLflow unquotes plain paths as well (`mlflow.utils.file_utils.local_file_uri_to_path`).
    """
    if uri.startswith("file:"):
        parts = urlsplit(uri)
        return Path(unquote(parts.path, errors="surrogateescape")) if parts.netloc in ("", "localhost") else None
    return Path(unquote(uri, errors="surrogateescape")) if uri.startswith("/") else None


def location_of(path: Path) -> str:
    """Return a folder as an artifact location that MLflow reads as the same folder."""
    text = os.fspath(path)
    try:
        text.encode()
    except UnicodeEncodeError:
        return path.as_uri()
    return path.as_uri() if "%" in text else text


def _insert(connection: sqlite3.Connection, table: str, values: Dict[str, Any], automatic: Collection[str] = ()) -> int:
    """Insert the values that the table has columns for; return the rowid."""
    info = _table_info(connection, table)
    for _number, name, _type, required, default, _key in info:
        if required and default is None and name not in values and name not in automatic:
            raise StoreError(f"the MLflow store requires {table}.{name}, which is unknown")
    names = [row[1] for row in info if row[1] in values]
    statement = f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"  # noqa: S608 - names of the schema
    inserted = connection.execute(statement, [values[name] for name in names])
    return int(inserted.lastrowid or 0)


def _table_info(connection: sqlite3.Connection, table: str) -> List[Any]:
    return connection.execute(f"PRAGMA table_info({table})").fetchall()

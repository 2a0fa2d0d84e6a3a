"""Open a project's MLflow store read-only; wait a little for a writer, then read the last committed state and say so.

Reads `.lossi/mlflow.db` and, attached, `.lossi/lossi.db`; writes neither. Of a store with an unknown schema revision the known
columns are read; a store that does not exist reads as an empty one.
"""

# ruff: noqa: S608  (statements contain only names from this package; values are always bound)
from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from lossi.errors import Forbidden, Unavailable
from lossi.projects import Project, stores
from lossi.projects.facts import FACTS
from lossi.tracking.query import last_state

T = TypeVar("T")

PATIENCE_S = 0.6
"""How long to wait for a writer before reading the last committed state (a page answers within a second)."""
LIMIT_S = 20.0
"""Longest time that one query may take: a hostile store can be made so that reading it never ends."""

COLUMNS = {
    "runs": "run_uuid name user_id status start_time end_time lifecycle_stage artifact_uri experiment_id",
    "experiments": "experiment_id name artifact_location lifecycle_stage creation_time last_update_time",
    "experiment_tags": "experiment_id key value",
    "params": "run_uuid key value",
    "tags": "run_uuid key value",
    "latest_metrics": "run_uuid key value timestamp step is_nan",
    "metrics": "run_uuid key value timestamp step is_nan",
    "inputs": "input_uuid source_id destination_id",
    "input_tags": "input_uuid name value",
    "datasets": "dataset_uuid name digest dataset_source_type",
    "logged_models": "model_id name model_type source_run_id lifecycle_stage creation_timestamp_ms",
}
"""The columns read of MLflow's schema (mlflow/store/tracking/dbmodels/models.py, 3.17), by table."""
DEFAULTS = {"lifecycle_stage": "'active'", "step": "0", "is_nan": "0", "creation_timestamp_ms": "0"}
"""SQL for a missing column; NULL for the others."""


class FactsUnavailable(Unavailable):
    """The project's index, which has the facts of tasks, cannot be read."""


@dataclass(frozen=True)
class Store:
    """An open store.

    Attributes
    ----------
    connection
        In one read transaction, so that all statements of an answer see the same state.
    relations
        MLflow table → its SQL in a FROM clause: the table, or a selection with all columns of `COLUMNS` if the schema differs.
    job_join
        Joins that give a run ``r`` its task ``l`` (job_id, task) and that task's facts ``t``; empty unless requested.
    stale
        The connection is to a copy of the last committed state.
    unknown_revision
        Schema revision of the store, if it is not a known one.
    """

    connection: sqlite3.Connection
    relations: dict[str, str]
    job_join: str = ""
    stale: bool = False
    unknown_revision: str | None = None

    def rows(self, sql: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Return all rows of a statement."""
        return self.connection.execute(sql, values).fetchall()

    @property
    def marks(self) -> dict[str, Any]:
        """Return the fields of `models.Answer`."""
        return {"stale": self.stale, "read_only_revision": self.unknown_revision}


def read(project: Project, query: Callable[[Store], T], *, with_jobs: bool = False, jobs_required: bool = False) -> T:
    """Return the result of ``query`` on the project's store.

    Parameters
    ----------
    project
        The store's project.
    query
        Called with the open store, and again if a writer interfered: it must have no effect but its result.
    with_jobs
        Attach the project's index, so that `Store.job_join` can be used.
    jobs_required
        Raise if the index cannot be read; otherwise the store is then read without it.

    Raises
    ------
    Forbidden
        If the user may not read the store.
    Unavailable
        If it is damaged, or locked and its last state cannot be copied; or for a required index.
    """
    _check_readable(project)
    try:
        return _read(project, query, with_jobs=with_jobs)
    except FactsUnavailable:
        if jobs_required:
            raise
    return _read(project, query, with_jobs=False)


def _read(project: Project, query: Callable[[Store], T], *, with_jobs: bool) -> T:
    deadline = time.monotonic() + PATIENCE_S
    pause = 0.01
    while True:
        try:
            with _opened(project.store, project.index if with_jobs else None) as store:
                return _run(store, query)
        except sqlite3.Error as error:
            if not _is_locked(error):
                raise _explain(error, project) from None
            if time.monotonic() + pause > deadline:
                break
        time.sleep(pause)
        pause = min(pause * 2, 0.1)
    with last_state.copied([project.store, project.index] if with_jobs else [project.store]) as copies:
        try:
            with _opened(copies[0], copies[1] if with_jobs else None, stale=True) as store:
                return _run(store, query)
        except sqlite3.Error as error:
            raise _explain(error, project) from None


def _run(store: Store, query: Callable[[Store], T]) -> T:
    try:
        return query(store)
    except sqlite3.OperationalError as error:
        if "decode to UTF-8" not in str(error):
            raise
    # A foreign store may contain anything; lenient decoding is slower, so only then.
    store.connection.text_factory = lambda data: data.decode("utf-8", "replace")
    return query(store)


@contextlib.contextmanager
def _opened(path: Path, index: Path | None, *, stale: bool = False) -> Iterator[Store]:
    exists = path.exists()
    connection = stores.connect_readonly(path) if exists else sqlite3.connect("file::memory:", uri=True)
    try:
        connection.row_factory = None
        connection.execute(f"PRAGMA busy_timeout={int(PATIENCE_S * 250)}")
        ends = time.monotonic() + LIMIT_S
        connection.set_progress_handler(lambda: time.monotonic() > ends, 1_000_000)
        job_join = _attach(connection, index) if index is not None else ""
        connection.execute("BEGIN")
        revision = _revision(connection)
        yield Store(
            connection=connection,
            relations=relations(connection),
            job_join=job_join,
            stale=stale,
            unknown_revision=revision if revision is not None and revision not in stores.KNOWN_REVISIONS else None,
        )
    finally:
        connection.close()


def relations(connection: sqlite3.Connection) -> dict[str, str]:
    """Return for each table of `COLUMNS` its SQL in a FROM clause."""
    return {
        name: _relation(f'main."{name}"', _columns(connection, "main", name), columns.split())
        for name, columns in COLUMNS.items()
    }


def _relation(table: str, present: set[str], needed: Sequence[str]) -> str:
    if present >= set(needed):
        return table
    if not present:
        nothing = ", ".join(f'NULL AS "{name}"' for name in needed)
        return f"(SELECT {nothing} WHERE 0)"
    columns = (f'"{name}"' if name in present else f'{DEFAULTS.get(name, "NULL")} AS "{name}"' for name in needed)
    return f"(SELECT {', '.join(columns)} FROM {table})"


def _columns(connection: sqlite3.Connection, schema: str, table: str) -> set[str]:
    """Return the columns of a real table; views and virtual tables of a foreign store are ignored."""
    row = connection.execute(f"SELECT sql FROM {schema}.sqlite_master WHERE type = 'table' AND name = ?", (table,)).fetchone()
    if row is None or not str(row[0]).lstrip().upper().startswith("CREATE TABLE"):
        return set()
    return {str(column[1]) for column in connection.execute(f'PRAGMA {schema}.table_info("{table}")')}


def _attach(connection: sqlite3.Connection, index: Path) -> str:
    names = {"task_runs": ("run_id", "job_id", "task"), "tasks": tuple(FACTS)}
    present: dict[str, set[str]] = {name: set() for name in names}
    try:
        if index.exists():
            connection.execute("ATTACH ? AS facts", (f"{index.as_uri()}?mode=ro",))
            present = {name: _columns(connection, "facts", name) for name in names}
    except (sqlite3.Error, OSError) as error:
        if isinstance(error, sqlite3.Error) and _is_locked(error):
            raise
        raise FactsUnavailable(
            f"the index {index} cannot be read",
            why=str(error),
            hint="check its permissions; if it is damaged, delete it: it is rebuilt from the job directories",
        ) from error
    joins = []
    for (name, columns), alias, condition in zip(
        names.items(), ("l", "t"), ("l.run_id = r.run_uuid", "t.job_id = l.job_id AND t.task = l.task"), strict=True
    ):
        relation = _relation(f'facts."{name}"', present[name], columns)
        joins.append(f" LEFT JOIN {relation} {alias} ON {condition}")
    return "".join(joins)


def _revision(connection: sqlite3.Connection) -> str | None:
    if not _columns(connection, "main", "alembic_version"):
        return None
    row = connection.execute("SELECT version_num FROM main.alembic_version").fetchone()
    return str(row[0]) if row else None


def _is_locked(error: sqlite3.Error) -> bool:
    """Return whether the cause is a lock, or a transaction that only a writer can roll back."""
    code = getattr(error, "sqlite_errorcode", 0)
    primary, extended = code & 0xFF, code >> 8
    if primary in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PROTOCOL):
        return True
    if primary == sqlite3.SQLITE_CANTOPEN:  # a store in WAL mode in a folder that the reader may not write to
        return True
    return primary == sqlite3.SQLITE_IOERR and extended in (8, 9, 14, 15)  # the filesystem refuses locks


def _check_readable(project: Project) -> None:
    for path in (project.home, project.store):
        try:
            path.stat()
            readable = os.access(path, os.X_OK if path.is_dir() else os.R_OK)
        except FileNotFoundError:
            return
        except OSError:
            readable = False
        if not readable:
            raise Forbidden(
                f"you may not read {path}",
                why=f"the permissions of {path.parent if path == project.home else path} do not allow it",
                hint="ask the owner of the project for read access to it",
            )


def _explain(error: sqlite3.Error, project: Project) -> Exception:
    if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_ERROR:
        return error  # our statement is wrong: a fault that no user can act on
    if "interrupted" in str(error):
        return Unavailable(
            f"the tracking store of {project.name!r} took longer than {LIMIT_S:g} s to answer",
            hint="select fewer runs or columns",
        )
    return Unavailable(
        f"the tracking store of {project.name!r} cannot be read",
        why=str(error),
        hint=f"check {project.store}; `sqlite3 {project.store.name} 'PRAGMA integrity_check'` tells whether it is damaged",
    )

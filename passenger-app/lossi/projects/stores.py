"""The project's embedded MLflow store and the stores that tasks log to: created, seeded and opened with sqlite3 alone.

Writes ``.lossi/mlflow.db``, ``.lossi/artifacts`` and task stores. The schema is MLflow's
(`mlflow/store/tracking/dbmodels/models.py`); columns are copied by name, so that a revision with more columns works.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lossi.contract.text import CONTROL
from lossi.errors import Conflict, InvalidInput, NotFound, NotSupported, Unavailable
from lossi.files import atomic, permissions
from lossi.projects.project import Project
from lossi.projects.store_paths import artifact_location, local_path, tracking_uri
from lossi.projects.store_template import template

__all__ = [
    "KNOWN_REVISIONS",
    "Experiment",
    "artifact_location",
    "connect_readonly",
    "ensure",
    "ensure_experiment",
    "local_path",
    "revision",
    "task_template",
    "template",
    "tracking_uri",
]

KNOWN_REVISIONS = {"dc11669786a5": "3.17"}
"""Alembic revision → MLflow version, for schemas that we write; others are only read."""

PAGE_BYTES = 4096
WRITE_TIMEOUT_S = 10.0
EXPERIMENT_NAME_LIMIT = 500
"""Characters (`mlflow.utils.validation.MAX_EXPERIMENT_NAME_LENGTH`)."""

REGISTRY_TABLES = (
    "registered_models",
    "registered_model_tags",
    "model_versions",
    "model_version_tags",
    "registered_model_aliases",
)
"""Parents before children, for foreign keys."""


@dataclass(frozen=True)
class Experiment:
    """A row of MLflow's table ``experiments``.

    Attributes
    ----------
    id
        Decimal number as text, as in MLflow.
    artifact_location
        Absolute path, or a ``file://`` URI if a plain path would be misread; `local_path` reads both.
    """

    id: str
    name: str
    artifact_location: str


def ensure(project: Project, template: Path) -> None:
    """Create the project's store from an empty one unless it exists. Of two concurrent creators, the first wins.

    The result is what MLflow would create: its schema at its revision, experiment 0 ("Default") with artifacts below
    ``.lossi/artifacts``, 4,096-byte pages, a rollback journal.

    Raises
    ------
    Forbidden, Unavailable
        When it cannot be written.
    """
    if project.store.exists():
        return
    project.make_home()
    with _temporary(project.store) as temporary:
        _copy(template, temporary, permissions.file_mode(project.home))
        with _writing(temporary) as connection:
            connection.execute(
                "UPDATE experiments SET artifact_location = ? WHERE experiment_id = 0", (artifact_location(project, "0"),)
            )
        _rebuild(temporary, PAGE_BYTES)
        _sync(temporary)
        try:
            with contextlib.suppress(FileExistsError):
                os.link(temporary, project.store)
            atomic.sync_folder(project.home)
        except OSError as error:
            raise atomic.explained(error, project.store) from error
    project.share(project.store)
    _artifact_folder(project, "0")


def ensure_experiment(project: Project, name: str) -> Experiment:
    """Return the experiment with this name in the project's store; create it if it does not exist.

    The new id is the one that MLflow's SQL store would use: the largest id plus 1 (SQLite's ``INTEGER PRIMARY KEY``).

    Raises
    ------
    InvalidInput
        When the name is empty, too long or contains control characters.
    Conflict
        When it was deleted in MLflow.
    NotFound
        When the project has no store yet.
    NotSupported
        When the store's schema must not be written.
    Unavailable
        When the store is locked or cannot be written.
    """
    _check_name(name)
    with contextlib.closing(connect_readonly(project.store)) as connection, _explaining(project.store):
        experiment = _experiment(connection, name)
    if experiment is not None:
        _artifact_folder(project, experiment.id)
        return experiment
    known = revision(project.store)
    if known not in KNOWN_REVISIONS:
        raise NotSupported(
            f"{project.store} has the schema of another MLflow (revision {known})",
            hint=f"use an environment with MLflow {' or '.join(KNOWN_REVISIONS.values())}; until then the store is read-only",
        )
    with _writing(project.store) as connection:
        experiment = _experiment(connection, name)
        if experiment is None:
            now = int(time.time() * 1000)
            row = {
                "name": name,
                "lifecycle_stage": "active",
                "creation_time": now,
                "last_update_time": now,
                "workspace": "default",
            }
            columns = [column for column in row if column in _columns(connection, "experiments")]
            inserted = connection.execute(
                f"INSERT INTO experiments ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})",  # noqa: S608
                [row[column] for column in columns],
            ).lastrowid
            location = artifact_location(project, str(inserted))
            connection.execute("UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?", (location, inserted))
            experiment = Experiment(str(inserted), name, location)
    _artifact_folder(project, experiment.id)
    return experiment


def task_template(project: Project, template: Path, experiment: Experiment, destination: Path) -> None:
    """Write the store that each task of a job starts with: empty except for the project's experiments and model registry.

    The experiments keep their ids, names and artifact locations, so that a task's run has the same location as in the project; the
    registry makes ``models:/name@alias`` work in tasks. Uses 1,024-byte pages. Atomic.

    Raises
    ------
    Conflict
        When the project's store does not have the experiment.
    NotFound
        When the project has no store.
    Unavailable
        When a file cannot be read or written.
    """
    with _temporary(destination) as temporary:
        _copy(template, temporary, 0o640)
        with contextlib.closing(connect_readonly(project.store)) as source, _explaining(project.store):
            source.execute("BEGIN")  # a consistent snapshot of the store
            with _writing(temporary) as target:
                target.execute("DELETE FROM experiments")
                for table in ("experiments", *REGISTRY_TABLES):
                    _copy_rows(source, target, table)
                if not target.execute("SELECT 1 FROM experiments WHERE experiment_id = ?", (int(experiment.id),)).fetchone():
                    raise Conflict(f"experiment {experiment.name!r} is no longer in {project.store}", hint="submit the job again")
        _sync(temporary)
        try:
            temporary.replace(destination)
            atomic.sync_folder(destination.parent)
        except OSError as error:
            raise atomic.explained(error, destination) from error


def connect_readonly(path: Path) -> sqlite3.Connection:
    """Open a SQLite store read-only, safe against hostile schemas and odd paths.

    Raises
    ------
    NotFound
        When the file does not exist.
    Unavailable
        When it cannot be opened.
    """
    uri = f"{Path(os.path.abspath(path)).as_uri()}?mode=ro"  # noqa: PTH100  (quotes `?`, `%` and `#`)
    try:
        if not path.exists():
            raise NotFound(f"there is no store {path}", hint="the project's first job creates it")
        connection = sqlite3.connect(uri, uri=True, timeout=2.0, isolation_level=None)
    except (sqlite3.Error, OSError) as error:
        raise Unavailable(f"cannot open {path}", why=str(error), hint="check its permissions and try again") from error
    connection.execute("PRAGMA trusted_schema=OFF")
    connection.execute("PRAGMA cell_size_check=ON")
    connection.row_factory = sqlite3.Row
    return connection


def revision(path: Path) -> str | None:
    """Return a store's alembic revision, or None if it has none or is not a store.

    Raises
    ------
    NotFound
        When the file does not exist.
    """
    with contextlib.closing(connect_readonly(path)) as connection:
        try:
            rows = connection.execute("SELECT version_num FROM alembic_version").fetchall()
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                return None
            raise Unavailable(f"cannot read {path}", why=str(error), hint="try again in a few seconds") from error
        except sqlite3.DatabaseError:
            return None
    return str(rows[0][0]) if len(rows) == 1 else None


def _check_name(name: str) -> None:
    if not name.strip() or len(name) > EXPERIMENT_NAME_LIMIT or CONTROL.search(name):
        raise InvalidInput(
            f"{name[:80]!r} is not a valid name for an experiment",
            hint=f"use 1 to {EXPERIMENT_NAME_LIMIT} characters on one line",
        )


def _experiment(connection: sqlite3.Connection, name: str) -> Experiment | None:
    where = " AND workspace = 'default'" if "workspace" in _columns(connection, "experiments") else ""
    row = connection.execute(
        f"SELECT experiment_id, name, artifact_location, lifecycle_stage FROM experiments WHERE name = ?{where}",  # noqa: S608
        (name,),
    ).fetchone()
    if row is None:
        return None
    if row[3] == "deleted":
        raise Conflict(
            f"experiment {name!r} was deleted",
            hint=f"restore it with `mlflow experiments restore --experiment-id {row[0]}`, or choose another name",
            experiment_id=str(row[0]),
        )
    return Experiment(str(row[0]), row[1], row[2])


def _columns(connection: sqlite3.Connection, table: str) -> list[str]:
    return [row[1] for row in connection.execute(f'PRAGMA table_info("{table}")')]


def _copy_rows(source: sqlite3.Connection, target: sqlite3.Connection, table: str) -> None:
    there = set(_columns(source, table))
    columns = [column for column in _columns(target, table) if column in there]
    if not columns:  # a revision without this table
        return
    names = ", ".join(f'"{column}"' for column in columns)
    rows = source.execute(f'SELECT {names} FROM "{table}"')  # noqa: S608
    marks = ", ".join("?" * len(columns))
    target.executemany(f'INSERT INTO "{table}" ({names}) VALUES ({marks})', (tuple(row) for row in rows))  # noqa: S608


def _artifact_folder(project: Project, experiment_id: str) -> None:
    """Create the folder with the project's group, because MLflow would use the umask of the first user."""
    try:
        permissions.make_folder(project.artifacts, like=project.home)
        permissions.make_folder(project.artifacts / experiment_id, like=project.home)
    except OSError as error:
        raise atomic.explained(error, project.artifacts / experiment_id) from error


@contextlib.contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    temporary = atomic.temporary_name(path)
    try:
        yield temporary
    finally:
        for leftover in (temporary, temporary.with_name(f"{temporary.name}-journal")):
            with contextlib.suppress(OSError):
                leftover.unlink()


def _copy(source: Path, target: Path, mode: int) -> None:
    try:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with source.open("rb") as reader, os.fdopen(descriptor, "wb") as writer:
            shutil.copyfileobj(reader, writer)
    except OSError as error:
        raise atomic.explained(error, target) from error


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[sqlite3.Connection]:
    """Yield a connection inside one write transaction on an existing store."""
    with _explaining(path):
        uri = f"{Path(os.path.abspath(path)).as_uri()}?mode=rw"  # noqa: PTH100
        connection = sqlite3.connect(uri, uri=True, timeout=WRITE_TIMEOUT_S, isolation_level=None)
        try:
            connection.execute("PRAGMA trusted_schema=OFF")
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")
        finally:
            connection.close()


def _rebuild(path: Path, page_bytes: int) -> None:
    with _explaining(path), contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA page_size={page_bytes}")
        connection.execute("VACUUM")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        raise atomic.explained(error, path) from error
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _explaining(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        text = str(error)
        if "locked" in text:
            hint = "another process is writing to it; try again in a few seconds"
        elif "readonly" in text or "unable to open" in text:
            hint = "check that you can write to it and its folder"
        elif "full" in text or "I/O" in text:
            hint = "free some space there and try again"
        else:
            hint = "check the file; `mlflow.db` of a project can be restored from a backup"
        raise Unavailable(f"the store {path} cannot be used", why=text, hint=hint) from error

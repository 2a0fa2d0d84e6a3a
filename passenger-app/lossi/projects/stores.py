"""The project's embedded MLflow store and the small stores that tasks log to: made, seeded and opened with sqlite3 alone.

Touches ``.lossi/mlflow.db``, ``.lossi/artifacts`` and the files it is told to write. The schema is MLflow's own
(`mlflow/store/tracking/dbmodels/models.py`); columns are copied by name, so a revision with more of them still works.
"""

from __future__ import annotations

import contextlib
import os
import secrets
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
"""Alembic revision → MLflow version, for the schemas that are written here; others are read only."""

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
"""Parents before children, as foreign keys want it."""


@dataclass(frozen=True)
class Experiment:
    """A row of MLflow's table ``experiments``.

    Attributes
    ----------
    id
        As MLflow shows it: a decimal number as text.
    artifact_location
        Absolute path, or a ``file://`` URI where a plain path would be misread; `local_path` understands both.
    """

    id: str
    name: str
    artifact_location: str


def ensure(project: Project, template: Path) -> None:
    """Make the project's store from an empty one if there is none. Two creators at once are fine: the first one's stays.

    The result is what MLflow itself would have made: its schema at its revision, experiment 0 ("Default") with artifacts
    below ``.lossi/artifacts``, 4,096-byte pages, a rollback journal.

    Raises
    ------
    Forbidden, Unavailable
        When it cannot be written.
    """
    if project.store.exists():
        return
    project.make_home()
    with _beside(project.store) as beside:
        _copy(template, beside, permissions.file_mode(project.home))
        with _changing(beside) as connection:
            connection.execute(
                "UPDATE experiments SET artifact_location = ? WHERE experiment_id = 0", (artifact_location(project, "0"),)
            )
        _rebuild(beside, PAGE_BYTES)
        _sync(beside)
        try:
            with contextlib.suppress(FileExistsError):
                os.link(beside, project.store)
            atomic.sync_folder(project.home)
        except OSError as error:
            raise atomic.explained(error, project.store) from error
    project.share(project.store)
    _artifact_folder(project, "0")


def ensure_experiment(project: Project, name: str) -> Experiment:
    """Return the experiment of this name in the project's store, creating it when it is missing.

    The id is the one that MLflow's SQL store would give: the greatest one plus 1 (``INTEGER PRIMARY KEY`` of SQLite).

    Raises
    ------
    InvalidInput
        When the name is empty, too long or holds control characters.
    Conflict
        When it was deleted in MLflow and not restored.
    NotFound
        When the project has no store yet.
    NotSupported
        When the store's schema is one that must not be written.
    Unavailable
        When the store is locked or cannot be written.
    """
    _check_name(name)
    with contextlib.closing(connect_readonly(project.store)) as connection, _explaining(project.store):
        found = _experiment(connection, name)
    if found is not None:
        _artifact_folder(project, found.id)
        return found
    known = revision(project.store)
    if known not in KNOWN_REVISIONS:
        raise NotSupported(
            f"{project.store} has the schema of another MLflow (revision {known})",
            hint=f"use an environment with MLflow {' or '.join(KNOWN_REVISIONS.values())}; until then the store is read only",
        )
    with _changing(project.store) as connection:
        found = _experiment(connection, name)
        if found is None:
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
            found = Experiment(str(inserted), name, location)
    _artifact_folder(project, found.id)
    return found


def task_template(project: Project, template: Path, experiment: Experiment, destination: Path) -> None:
    """Write the store that each task of a job starts from: an empty one with the project's experiments and model registry.

    The experiments keep their ids, names and artifact locations, so that a run logged in a task has the place it will have
    in the project; the registry lets ``models:/name@alias`` work there. 1,024-byte pages; whole or not at all.

    Raises
    ------
    Conflict
        When the project's store does not have the experiment.
    NotFound
        When the project has no store.
    Unavailable
        When something cannot be read or written.
    """
    with _beside(destination) as beside:
        _copy(template, beside, 0o640)
        with contextlib.closing(connect_readonly(project.store)) as source, _explaining(project.store):
            source.execute("BEGIN")  # one state of the store, whatever is written meanwhile
            with _changing(beside) as target:
                target.execute("DELETE FROM experiments")
                for table in ("experiments", *REGISTRY_TABLES):
                    _copy_rows(source, target, table)
                if not target.execute("SELECT 1 FROM experiments WHERE experiment_id = ?", (int(experiment.id),)).fetchone():
                    raise Conflict(f"experiment {experiment.name!r} is no longer in {project.store}", hint="submit the job again")
        _sync(beside)
        try:
            beside.replace(destination)
            atomic.sync_folder(destination.parent)
        except OSError as error:
            raise atomic.explained(error, destination) from error


def connect_readonly(path: Path) -> sqlite3.Connection:
    """Open a SQLite store for reading, so that neither a hostile schema nor an odd path can do anything.

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
            raise NotFound(f"there is no store {path}", hint="it is made by the first job of the project")
        connection = sqlite3.connect(uri, uri=True, timeout=2.0, isolation_level=None)
    except (sqlite3.Error, OSError) as error:
        raise Unavailable(f"cannot open {path}", why=str(error), hint="check its permissions and try again") from error
    connection.execute("PRAGMA trusted_schema=OFF")
    connection.execute("PRAGMA cell_size_check=ON")
    connection.row_factory = sqlite3.Row
    return connection


def revision(path: Path) -> str | None:
    """Return alembic's revision of a store, or None when it has none (or is no store).

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
            f"{name[:80]!r} cannot be the name of an experiment",
            hint=f"give it 1 to {EXPERIMENT_NAME_LIMIT} characters on one line",
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
    """Make the folder now, with the project's group, because MLflow would make it by the umask of whoever comes first."""
    try:
        permissions.make_folder(project.artifacts, like=project.home)
        permissions.make_folder(project.artifacts / experiment_id, like=project.home)
    except OSError as error:
        raise atomic.explained(error, project.artifacts / experiment_id) from error


@contextlib.contextmanager
def _beside(path: Path) -> Iterator[Path]:
    beside = path.with_name(f".{path.name}.{secrets.token_hex(6)}.part")
    try:
        yield beside
    finally:
        for leftover in (beside, beside.with_name(f"{beside.name}-journal")):
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
def _changing(path: Path) -> Iterator[sqlite3.Connection]:
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
            hint = "check that you may write to it and its folder"
        elif "full" in text or "I/O" in text:
            hint = "free some space there and try again"
        else:
            hint = "check the file; `mlflow.db` of a project can be restored from a backup"
        raise Unavailable(f"the store {path} cannot be used", why=text, hint=hint) from error

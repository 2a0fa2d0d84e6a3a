"""``.lossi/lossi.db``: job facts and the ledger of ingest. Defines the schema; jobs/ and tracking/ write the rows.

Uses a rollback journal, because WAL needs shared memory and does not work across nodes. No STRICT tables: EL9 has SQLite 3.34.
The columns of ``tasks`` are those of `facts.TaskFacts`; an older index gets missing columns when it is next written.
"""

from __future__ import annotations

import contextlib
import functools
import sqlite3
from collections.abc import Iterator

from lossi.errors import Unavailable
from lossi.projects import facts
from lossi.projects.project import Project

SCHEMA = (
    """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    kind TEXT NOT NULL,
    source TEXT,
    experiment TEXT NOT NULL,
    environment TEXT NOT NULL,
    image_digest TEXT,
    commit_id TEXT,
    dirty INTEGER NOT NULL DEFAULT 0,
    user TEXT NOT NULL,
    scheduler TEXT,
    scheduler_id TEXT,
    cluster TEXT,
    tasks INTEGER NOT NULL,
    state TEXT NOT NULL,
    scheduler_state TEXT NOT NULL DEFAULT '',
    reason TEXT NOT NULL DEFAULT '',
    counts TEXT NOT NULL DEFAULT '{}',          -- JSON: state -> number of tasks
    created TEXT NOT NULL,
    started TEXT,
    ended TEXT,
    sweep INTEGER NOT NULL DEFAULT 0,
    resubmitted_from TEXT,
    expected_start TEXT,                        -- while it waits, if the scheduler says so
    refreshed REAL NOT NULL DEFAULT 0           -- time of the last query of the scheduler, seconds since the epoch
);
CREATE INDEX IF NOT EXISTS jobs_created ON jobs (created);
-- A task gets its row with the first news of it; a task without a row is queued.
CREATE TABLE IF NOT EXISTS tasks (
"""
    + facts.sql_columns()
    + """    PRIMARY KEY (job_id, task)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS tasks_open ON tasks (job_id) WHERE final = 0;
-- Which MLflow runs belong to which task; position 0 is the task's own run.
CREATE TABLE IF NOT EXISTS task_runs (
    run_id TEXT PRIMARY KEY,
    job_id TEXT NOT NULL,
    task INTEGER NOT NULL,
    position INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS task_runs_task ON task_runs (job_id, task);
-- The ledger: what was ingested.
CREATE TABLE IF NOT EXISTS ingested_jobs (
    job_id TEXT PRIMARY KEY,
    complete INTEGER NOT NULL DEFAULT 0         -- every task is final and its last snapshot is ingested
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS ingested_snapshots (
    job_id TEXT NOT NULL,
    task INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    digest TEXT NOT NULL,
    final INTEGER NOT NULL DEFAULT 0,           -- 0 live, 1 the last one is ingested, 2 and its file is removed
    PRIMARY KEY (job_id, task)
) WITHOUT ROWID;
-- Every run ever ingested, with its last ingested state: a run missing from the store was removed there for good.
CREATE TABLE IF NOT EXISTS ingested_runs (
    run_id TEXT PRIMARY KEY,
    name TEXT,
    status TEXT,
    end_time INTEGER,
    lifecycle TEXT
) WITHOUT ROWID;
-- What was ingested last from a task that is still running (tags, aliases, ids …), so that a later snapshot is
-- compared with it and edits in the store win. Job '' and task -1: what ingest wrote last to things that tasks share.
CREATE TABLE IF NOT EXISTS ingested_values (
    job_id TEXT NOT NULL,
    task INTEGER NOT NULL,
    kind TEXT NOT NULL,
    owner TEXT NOT NULL,
    key TEXT NOT NULL,
    value TEXT,
    PRIMARY KEY (job_id, task, kind, owner, key)
) WITHOUT ROWID;
-- Snapshots that could not be ingested, so that they are not read again each time.
CREATE TABLE IF NOT EXISTS refused_snapshots (
    job_id TEXT NOT NULL,
    task INTEGER NOT NULL,
    name TEXT NOT NULL,                         -- of the file
    stamp TEXT NOT NULL,                        -- its size, time and what this version could read
    reason TEXT NOT NULL,
    PRIMARY KEY (job_id, task, name)
) WITHOUT ROWID;
"""
)


def connect(project: Project) -> sqlite3.Connection:
    """Open the index for writing; create it if it is missing.

    The connection is in autocommit mode (``isolation_level=None``): callers run ``BEGIN IMMEDIATE`` themselves.

    Raises
    ------
    Unavailable
        When it is locked for more than five seconds or cannot be written.
    """
    project.make_home()
    try:
        connection = sqlite3.connect(project.index, timeout=5.0, isolation_level=None)
    except sqlite3.Error as error:
        raise _explained(error, project) from error
    try:
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA trusted_schema=OFF")
        if _missing(connection):
            connection.execute("PRAGMA journal_mode=DELETE")
            _bring_up_to_date(connection)
            project.share(project.index)
    except sqlite3.Error as error:
        connection.close()
        raise _explained(error, project) from error
    return connection


@functools.cache
def _columns() -> dict[str, dict[str, str]]:
    """Return the columns of every table: name → type and default, if any."""
    with contextlib.closing(sqlite3.connect(":memory:")) as model:
        model.executescript(SCHEMA)
        tables = [row[0] for row in model.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {
            table: {
                name: kind + (f" NOT NULL DEFAULT {default}" if default is not None else "")
                for _, name, kind, _, default, _ in model.execute(f"PRAGMA table_info({table})")
            }
            for table in tables
        }


def _missing(connection: sqlite3.Connection) -> list[tuple[str, str]]:
    """Return (table, column) of everything that a new or older index lacks."""
    return [
        (table, column)
        for table, columns in _columns().items()
        for column in columns.keys() - {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
    ]


def _bring_up_to_date(connection: sqlite3.Connection) -> None:
    """Create the tables of a new index; add missing columns to an older one."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement in SCHEMA.split(";\n"):
            connection.execute(statement)
        for table, column in _missing(connection):
            connection.execute(f"ALTER TABLE {table} ADD COLUMN {column} {_columns()[table][column]}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def writing(project: Project) -> Iterator[sqlite3.Connection]:
    """Yield a connection inside one write transaction, which is committed at the end or rolled back on an exception."""
    connection = connect(project)
    try:
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield connection
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        raise _explained(error, project) from error
    finally:
        connection.close()


@contextlib.contextmanager
def reading(project: Project) -> Iterator[sqlite3.Connection]:
    """Yield a read-only connection; a missing index reads as an empty one."""
    try:
        if project.index.exists():
            connection = sqlite3.connect(f"{project.index.as_uri()}?mode=ro", uri=True, timeout=2.0, isolation_level=None)
        else:
            connection = sqlite3.connect(":memory:", isolation_level=None)
            connection.executescript(SCHEMA)
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA trusted_schema=OFF")
        try:
            yield connection
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise _explained(error, project) from error


def _explained(error: sqlite3.Error, project: Project) -> Unavailable:
    if isinstance(error, sqlite3.DatabaseError) and "not a database" in str(error):
        hint = f"delete {project.index}: Lossi makes it again from the job directories"
    elif "locked" in str(error):
        hint = "another Lossi process is writing to it; try again in a few seconds"
    else:
        hint = f"check free space and permissions of {project.home}, then try again"
    return Unavailable(f"the index of project {project.name!r} cannot be used", why=str(error), hint=hint)

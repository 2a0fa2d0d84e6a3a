"""Ingest a project: merge what its tasks published into its store, exactly once, whatever happens in between.

Reads the job directories; writes ``.lossi/mlflow.db`` and ``.lossi/lossi.db`` in one transaction, then removes snapshot files.
Both databases use a rollback journal, so SQLite commits them together by a super-journal
(https://sqlite.org/atomiccommit.html, section 5): a process killed at any point loses nothing and doubles nothing. There is one
writer at a time, under a lease.
"""

from __future__ import annotations

import os
import sqlite3

import lossi
from lossi.contract import records
from lossi.errors import Forbidden, LossiError, Unavailable
from lossi.projects import Project, index, stores
from lossi.tracking.ingest import lease as leases
from lossi.tracking.ingest.ledger import Ledger
from lossi.tracking.ingest.progress import REVISION_HINT, IngestReport, Progress
from lossi.tracking.ingest.scan import Scan
from lossi.tracking.ingest.session import Session, is_environment

READABLE = f"{lossi.__version__} {' '.join(sorted(stores.KNOWN_REVISIONS))}"
"""What this Lossi can read: a refused snapshot is tried again when this changes."""


def ingest_runs(project: Project, *, budget_s: float | None = None, lease: leases.Lease | None = None) -> IngestReport:
    """Merge what the project's tasks published into its store.

    Cheap when there is nothing new. Repeating it changes nothing, and any number of processes may call it at once.

    Parameters
    ----------
    project
        Project to ingest.
    budget_s
        Stop after about this many seconds; ``remaining`` of the report counts the tasks that are left.
    lease
        A lease that the caller already holds; it stays held.

    Returns
    -------
    IngestReport
        Faults of a snapshot, a job, the store or the disk are in its ``problems``; none of them raises.
    """
    progress = Progress(budget_s)
    try:
        if not project.jobs.is_dir() or _is_idle(project, progress):
            return progress.report()
        if not _is_writable(project):
            progress.read_only = True
        elif lease is not None:
            _ingest(project, lease, progress)
        elif (acquired := leases.acquire_lease(project.home)) is None:
            progress.busy = True
        else:
            with acquired:
                _ingest(project, acquired, progress)
    except leases.LeaseLost:
        progress.busy = True
    except Forbidden:
        progress.read_only = True
    except LossiError as error:
        progress.add_problem(error.what, error.why, error.hint)
    except sqlite3.Error as error:
        if not is_environment(error):
            raise
        _add_store_error(error, project, progress)
    return progress.report()


def _is_idle(project: Project, progress: Progress) -> bool:
    """Return whether there is nothing to do, without a lease and without writing.

    A journal means that a writer is active or died: then the store must be opened for writing, which recovers it.
    """
    if any(path.with_name(f"{path.name}-journal").exists() for path in (project.store, project.index)):
        return False
    try:
        with index.reading(project) as connection:
            scan = Scan(project, Ledger(connection), READABLE)
            if next(iter(scan), None) is not None or scan.finished_jobs():
                return False
    except Unavailable:
        return False
    _add_skipped(scan, progress)
    return True


def _is_writable(project: Project) -> bool:
    return os.access(project.home, os.W_OK) and all(
        os.access(path, os.W_OK) for path in (project.store, project.index) if path.exists()
    )


def _ingest(project: Project, lease: leases.Lease, progress: Progress) -> None:
    index.connect(project).close()
    if not project.store.exists() and not _create_store(project, progress):
        return
    with Session(project, lease, progress, READABLE) as session:
        if session.revision not in stores.KNOWN_REVISIONS:
            progress.add_problem(
                f"the store {project.store} is read-only: its schema revision {session.revision} is not known",
                "it was created or upgraded by another version of MLflow",
                REVISION_HINT,
            )
            return
        if not session.disable_wal():
            progress.add_problem(
                f"the store {project.store} or its index uses a write-ahead log, which ingest cannot write safely",
                "another program enabled it and is using the store now",
                "stop that program and try again",
            )
            return
        session.prepare()
        scan = Scan(project, session.ledger, READABLE)
        session.ingest(scan)
        progress.remaining += scan.remaining
        _add_skipped(scan, progress)
        session.finish(scan)


def _create_store(project: Project, progress: Progress) -> bool:
    """Create a missing store from the template of the newest job that has one."""
    for job in sorted(project.jobs.iterdir(), reverse=True):
        template = job / records.TEMPLATE
        if template.is_file():
            stores.ensure(project, template)
            return True
    progress.add_problem(
        f"there is no store {project.store}", "and no job has a template to create it from", "submit a job: it creates the store"
    )
    return False


def _add_skipped(scan: Scan, progress: Progress) -> None:
    for (job, reason), count in scan.refused.items():
        progress.add_refused(job, reason, count)
    for job in dict.fromkeys(scan.unreadable_jobs):
        progress.add_problem(
            f"the results of job {job} cannot be read", "you may not read its folder", "its owner's Lossi ingests them", job
        )


def _add_store_error(error: sqlite3.Error, project: Project, progress: Progress) -> None:
    code = error.sqlite_errorcode & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        progress.busy = True
    elif code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
        progress.read_only = True
    elif code == sqlite3.SQLITE_FULL:
        progress.add_problem("results could not be ingested", "the filesystem is full", "free some space; nothing is lost")
    elif code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        progress.add_problem(
            f"the store {project.store} or its index is damaged",
            str(error),
            f"if it is {project.index}, delete it (it is rebuilt); otherwise restore the store from a backup",
        )
    else:
        progress.add_problem(
            "results could not be ingested", str(error), f"check the filesystem of {project.home}; nothing is lost"
        )

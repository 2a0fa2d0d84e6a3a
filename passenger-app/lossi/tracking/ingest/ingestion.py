"""Ingest: what tasks published is taken into the project's store, once, whatever happens in between.

Room: tracking. Reads the job directories; writes ``.lossi/mlflow.db`` and ``.lossi/lossi.db`` in one transaction (both have a
rollback journal, so SQLite commits them together by a super-journal: https://sqlite.org/atomiccommit.html, section 5) and
removes snapshot files after that. So a process that is killed at any point loses and doubles nothing. One writer at a time,
under a lease.

``python -m lossi.tracking.ingest --project PATH [--budget S]`` does it from outside and prints the report as a line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import sys
from collections.abc import Sequence
from pathlib import Path

import lossi
from lossi import jsonable
from lossi.contract import records
from lossi.errors import Forbidden, LossiError, Unavailable
from lossi.projects import Project, index, stores
from lossi.tracking.ingest import lease as leases
from lossi.tracking.ingest.batches import Session, is_environment
from lossi.tracking.ingest.job_folders import Look
from lossi.tracking.ingest.ledger import Ledger
from lossi.tracking.ingest.report import REVISION_HINT, IngestReport, Problem, Tally

__all__ = ["IngestReport", "Problem", "ingest_runs", "main"]

READABLE = f"{lossi.__version__} {' '.join(sorted(stores.KNOWN_REVISIONS))}"
"""What this Lossi can read: a snapshot that was refused is tried again when this changes."""


def ingest_runs(project: Project, *, budget_s: float | None = None, lease: leases.Lease | None = None) -> IngestReport:
    """Take what tasks published into the project's store.

    Cheap when there is nothing new. Repeating it changes nothing, and any number of processes may call it at once.

    Parameters
    ----------
    project
        Whose results.
    budget_s
        Stop after about this many seconds; ``remaining`` of the report says whether anything is left.
    lease
        The lease of a caller that holds it already; it stays held.

    Returns
    -------
    IngestReport
        What one snapshot or job, the store or the disk brings about is in its ``problems``; no exception is raised for it.
    """
    tally = Tally(budget_s)
    try:
        if not project.jobs.is_dir() or _idle(project, tally):
            return tally.report()
        if not _writable(project):
            tally.read_only = True
            return tally.report()
        if lease is not None:
            _under_lease(project, lease, tally)
            return tally.report()
        taken = leases.acquire_lease(project.home)
        if taken is None:
            tally.busy = True
            return tally.report()
        with taken:
            _under_lease(project, taken, tally)
    except leases.LeaseLost:
        tally.busy = True
    except Forbidden:
        tally.read_only = True
    except LossiError as error:
        tally.problem(error.what, error.why, error.hint)
    except sqlite3.Error as error:
        if not is_environment(error):
            raise
        _explain(error, project, tally)
    return tally.report()


def _idle(project: Project, tally: Tally) -> bool:
    """Whether there is nothing to do, found out without a lease and without writing.

    A journal means that a writer is at work or died at it: then the store is opened for writing, which mends it.
    """
    if any(path.with_name(f"{path.name}-journal").exists() for path in (project.store, project.index)):
        return False
    try:
        with index.reading(project) as connection:
            look = Look(project, Ledger(connection), READABLE)
            if next(iter(look), None) is not None or look.finished():
                return False
    except Unavailable:
        return False
    _count_refused(look, tally)
    return True


def _writable(project: Project) -> bool:
    return os.access(project.home, os.W_OK) and all(
        os.access(path, os.W_OK) for path in (project.store, project.index) if path.exists()
    )


def _under_lease(project: Project, lease: leases.Lease, tally: Tally) -> None:
    index.connect(project).close()
    if not project.store.exists() and not _make_store(project, tally):
        return
    with Session(project, lease, tally, READABLE) as session:
        if session.revision not in stores.KNOWN_REVISIONS:
            tally.problem(
                f"the store {project.store} is read only: its schema revision {session.revision} is not known",
                "it was made or upgraded by another version of MLflow",
                REVISION_HINT,
            )
            return
        if not session.in_step():
            tally.problem(
                f"the store {project.store} or its index uses a write-ahead log, with which results cannot be taken in safely",
                "another program switched it on and is using the store now",
                "end that program and try again",
            )
            return
        session.prepare()
        look = Look(project, session.ledger, READABLE)
        session.take(look)
        tally.remaining += look.remaining
        _count_refused(look, tally)
        session.finish(look)


def _make_store(project: Project, tally: Tally) -> bool:
    """Make a store that is missing from the template of the newest job that has one."""
    for job in sorted(project.jobs.iterdir(), reverse=True):
        template = job / records.TEMPLATE
        if template.is_file():
            stores.ensure(project, template)
            return True
    tally.problem(
        f"there is no store {project.store}", "and no job has a template to make it from", "submit a job: it makes the store"
    )
    return False


def _count_refused(look: Look, tally: Tally) -> None:
    for (job, reason), count in look.refused.items():
        tally.refused(job, reason, count)
    for job in dict.fromkeys(look.hidden):
        tally.problem(
            f"the results of job {job} cannot be read", "you may not read its folder", "its owner's Lossi takes them in", job
        )


def _explain(error: sqlite3.Error, project: Project, tally: Tally) -> None:
    """Say what an error of the store means."""
    code = error.sqlite_errorcode & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        tally.busy = True
    elif code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
        tally.read_only = True
    elif code == sqlite3.SQLITE_FULL:
        tally.problem("results could not be taken in", "the filesystem is full", "free some space; nothing is lost")
    elif code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        tally.problem(
            f"the store {project.store} or its index is damaged",
            str(error),
            f"delete {project.index} if it is that one (it is made again); restore the store from a backup otherwise",
        )
    else:
        tally.problem("results could not be taken in", str(error), f"check the filesystem of {project.home}; nothing is lost")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ingest from the command line; prints the report as one line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m lossi.tracking.ingest", description="take in what tasks published")
    parser.add_argument("--project", type=Path, required=True, help="the project's folder")
    parser.add_argument("--budget", type=float, default=None, help="stop after about this many seconds")
    options = parser.parse_args(arguments)
    report = ingest_runs(Project(options.project.resolve()), budget_s=options.budget)
    sys.stdout.write(json.dumps(jsonable.plain(report), ensure_ascii=False) + "\n")
    return 0

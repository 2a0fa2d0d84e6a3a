"""The newest jobs of several projects, from their indexes alone: no scheduler is asked and nothing is written.

For a list that must be there at once, such as a box on another page.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from lossi.errors import LossiError
from lossi.jobs.models import Job
from lossi.jobs.state.queries import job_of_row
from lossi.projects import Project, index

MOST_PROJECTS = 20
"""Indexes that are opened for one answer: those written to last."""


@dataclass(frozen=True)
class RecentJob:
    """A job of one of several projects, as its index has it.

    Attributes
    ----------
    project
        Where it is.
    job
        Without its progress.
    runs
        MLflow runs ingested so far.
    """

    project: Project
    job: Job
    runs: int


def recent(projects: Sequence[Project], limit: int) -> list[RecentJob]:
    """Return the newest jobs of all the projects together, at most ``limit``.

    Only the `MOST_PROJECTS` projects in which something happened last are read. One whose index is missing, locked or damaged is
    left out: its own page says so.
    """
    jobs: list[RecentJob] = []
    for project in sorted(projects, key=_last_written, reverse=True)[:MOST_PROJECTS]:
        with suppress(LossiError, ValueError):
            jobs += _newest(project, limit)
    jobs.sort(key=lambda item: (item.job.created, item.job.id), reverse=True)
    return jobs[:limit]


def _last_written(project: Project) -> float:
    try:
        return project.index.stat().st_mtime
    except OSError:
        return 0.0


def _newest(project: Project, limit: int) -> list[RecentJob]:
    with index.reading(project) as connection:
        rows: list[sqlite3.Row] = connection.execute(
            "SELECT *, (SELECT COUNT(*) FROM task_runs WHERE job_id = jobs.id) AS runs FROM jobs ORDER BY id DESC LIMIT ?",
            (limit,),
        ).fetchall()
    return [RecentJob(project, job_of_row(project, row), row["runs"]) for row in rows]

"""The newest jobs over several projects, as their indexes say it: nothing is refreshed, no scheduler is asked, nothing is written.

For a list that must be there at once, such as a box on another page. Touches the indexes, read-only.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from lossi.errors import LossiError
from lossi.projects import Project, index

MOST_PROJECTS = 20
"""Indexes that are opened for one answer: those that were written to last."""

_COLUMNS = "id, name, kind, source, user, scheduler, cluster, tasks, state, reason, counts, created, started, ended"


@dataclass(frozen=True)
class RecentJob:
    """A job of one of several projects, as it was when somebody last looked.

    Attributes
    ----------
    project
        Where it is.
    facts
        Its row in the index: id, name, kind, source, user, scheduler, cluster, tasks, state, reason, counts (state → number of tasks), and
        created, started and ended in ISO 8601.
    runs
        MLflow runs taken in so far.
    """

    project: Project
    facts: dict[str, Any]
    runs: int


def recent(projects: Sequence[Project], limit: int) -> list[RecentJob]:
    """Return the newest jobs of all the projects together, at most ``limit``.

    Only the `MOST_PROJECTS` projects in which something happened last are read. One whose index is missing, locked for long or
    unusable is passed over: its own page tells of it.
    """
    found: list[RecentJob] = []
    for project in sorted(projects, key=_last_written, reverse=True)[:MOST_PROJECTS]:
        with suppress(LossiError, ValueError):
            found += _newest(project, limit)
    found.sort(key=lambda job: (job.facts["created"], job.facts["id"]), reverse=True)
    return found[:limit]


def _last_written(project: Project) -> float:
    try:
        return project.index.stat().st_mtime
    except OSError:
        return 0.0


def _newest(project: Project, limit: int) -> list[RecentJob]:
    with index.reading(project) as connection:
        rows: list[sqlite3.Row] = connection.execute(
            f"SELECT {_COLUMNS}, (SELECT COUNT(*) FROM task_runs WHERE job_id = jobs.id) AS runs FROM jobs"  # noqa: S608 fixed words
            " ORDER BY id DESC LIMIT ?",
            (limit,),
        ).fetchall()
    jobs = []
    for row in rows:
        facts = dict(row)
        facts["counts"] = json.loads(facts["counts"])
        jobs.append(RecentJob(project, facts, facts.pop("runs")))
    return jobs

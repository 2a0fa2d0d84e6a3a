"""How long the user's own tasks waited in each partition. Reads the indexes of projects; asks no scheduler."""

from __future__ import annotations

import datetime
import sqlite3
import statistics
import time
from collections import defaultdict
from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict, Field

from lossi import processes
from lossi.errors import LossiError
from lossi.projects import Project, index as store

DAYS = 90
BUCKETS: tuple[tuple[str, float], ...] = (
    ("< 1 min", 60),
    ("1–5 min", 300),
    ("5–15 min", 900),
    ("15–60 min", 3600),
    ("1–4 h", 4 * 3600),
    ("4–12 h", 12 * 3600),
    ("12–24 h", 86400),
    ("> 1 day", float("inf")),
)
"""Name and upper bound in seconds."""


class Bucket(BaseModel):
    """Number of tasks with such a wait."""

    model_config = ConfigDict(frozen=True)

    name: str
    count: int


class PartitionWaits(BaseModel):
    """How long tasks waited in one partition, in seconds."""

    model_config = ConfigDict(frozen=True)

    cluster: str | None
    partition: str
    count: int = Field(description="Tasks that started.")
    first_quartile_s: float
    median_s: float
    third_quartile_s: float
    longest_s: float
    buckets: list[Bucket]


class QueueWaits(BaseModel):
    """The waits in all partitions, most used first."""

    model_config = ConfigDict(frozen=True)

    items: list[PartitionWaits]
    since: str = Field(description="Start of the period: tasks that started later count.")
    left_out: list[str] = Field(default=[], description="Projects whose index could not be read, and why.")


def queue_waits(projects: Iterable[Project], *, days: int = DAYS) -> QueueWaits:
    """Return how long the user's tasks waited in each partition.

    The wait begins when a task could have started, or at submission if the scheduler does not say when that was. Restarted
    tasks are left out.

    Parameters
    ----------
    projects
        Projects to read; the answer names those that could not be read.
    days
        Length of the period.
    """
    since = datetime.datetime.fromtimestamp(time.time() - days * 86400, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    waits: dict[tuple[str | None, str], list[float]] = defaultdict(list)
    left_out: list[str] = []
    for project in projects:
        try:
            for cluster, partition, wait_s in _rows(project, since):
                waits[cluster, partition].append(wait_s)
        except LossiError as error:
            left_out.append(f"{project.name}: {error.why or error.what}")
    items = [_summary(cluster, partition, sorted(values)) for (cluster, partition), values in waits.items()]
    return QueueWaits(items=sorted(items, key=lambda item: (-item.count, item.partition)), since=since, left_out=left_out)


def _rows(project: Project, since: str) -> list[tuple[str | None, str, float]]:
    with store.reading(project) as connection:
        if not _has_partitions(connection):
            return []
        rows = connection.execute(
            """
            SELECT jobs.cluster, tasks.partition, tasks.wait_s FROM tasks JOIN jobs ON jobs.id = tasks.job_id
            WHERE tasks.partition IS NOT NULL AND tasks.partition != '' AND tasks.wait_s < 1e12
                  AND tasks.started >= ? AND COALESCE(tasks.restarts, 0) = 0 AND jobs.user = ?
            """,
            (since, processes.user().name),
        )
        return [tuple(row) for row in rows]


def _has_partitions(connection: sqlite3.Connection) -> bool:
    """Return whether the index has partitions: those of older versions do not."""
    return any(row[1] == "partition" for row in connection.execute("PRAGMA table_info(tasks)"))


def _summary(cluster: str | None, partition: str, waits: list[float]) -> PartitionWaits:
    first, median, third = statistics.quantiles(waits, n=4, method="inclusive") if len(waits) > 1 else waits * 3
    counts = [0] * len(BUCKETS)
    for wait_s in waits:
        counts[next(number for number, (_, end) in enumerate(BUCKETS) if wait_s < end)] += 1
    return PartitionWaits(
        cluster=cluster,
        partition=partition,
        count=len(waits),
        first_quartile_s=round(first, 3),
        median_s=round(median, 3),
        third_quartile_s=round(third, 3),
        longest_s=round(waits[-1], 3),
        buckets=[Bucket(name=name, count=count) for (name, _), count in zip(BUCKETS, counts, strict=True)],
    )

"""The ledger of ingest: what was taken in, so that nothing comes twice, comes back or overwrites a person's edit.

Room: tracking. SQL on the ``ingested_*``, ``refused_snapshots`` and ``task_runs`` tables of the project's index, through a
connection that the caller opened; in ingest itself the index is attached to the store's connection, so that ledger and
store change in one transaction.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from datetime import UTC, datetime
from typing import Any

from lossi.contract import records
from lossi.runner import adoption, store
from lossi.tracking.ingest.snapshots import Mark

LIVE, TAKEN, CLEANED = 0, 1, 2
"""Values of ``ingested_snapshots.final``."""
SHARED = ("", -1)
"""The "task" under which it is kept what ingest wrote to things that tasks share."""
CHUNK = 500
"""Values in one SQL list."""

Values = dict[str, object]


@dataclass(frozen=True)
class Known:
    """The last snapshot taken in of a task."""

    seq: int
    digest: str
    final: int


@dataclass
class Base:
    """What was taken in last from one task, and what will be remembered of it next.

    Attributes
    ----------
    seed
        What the task was given at its start, for what was never taken in from it.
    """

    values: Mapping[tuple[str, str], Values]
    seed: Mapping[tuple[str, str], Values] = field(default_factory=dict)
    following: dict[tuple[str, str], Values] = field(default_factory=dict)

    def of(self, kind: str, owner: str) -> Values:
        """Return the values that this task is known to have had; empty when it had none."""
        found = self.values.get((kind, owner))
        return found if found is not None else self.seed.get((kind, owner), {})

    def has(self, kind: str, owner: str) -> bool:
        """Whether this thing was taken in from this task before, or was given to it at its start."""
        return (kind, owner) in self.values or (kind, owner) in self.seed

    def remember(self, kind: str, owner: str, values: Mapping[str, object] | None = None) -> None:
        """Keep what the task has now, for its next snapshot; what it was given needs no keeping."""
        if self.seed.get((kind, owner)) != values or values is None:
            self.following[kind, owner] = dict(values or {})


class Ledger:
    """The ledger behind one connection.

    Parameters
    ----------
    schema
        Name under which the index is attached; MLflow has a table ``jobs`` too.
    """

    def __init__(self, connection: sqlite3.Connection, schema: str = "main") -> None:
        self._sql = connection
        self._jobs = f"{schema}.jobs"

    def complete_jobs(self) -> set[str]:
        """Return the jobs that need not be looked at any more."""
        return {job for (job,) in self._plain("SELECT job_id FROM ingested_jobs WHERE complete = 1")}

    def known(self, job_id: str) -> dict[int, Known]:
        """Return the last snapshot taken in of each task of a job."""
        rows = self._plain("SELECT task, seq, digest, final FROM ingested_snapshots WHERE job_id = ?", job_id)
        return {task: Known(seq, digest, final) for task, seq, digest, final in rows}

    def refused(self, job_id: str) -> dict[tuple[int, str], tuple[str, str]]:
        """Return (stamp, reason) of each refused snapshot of a job by task and file name."""
        rows = self._plain("SELECT task, name, stamp, reason FROM refused_snapshots WHERE job_id = ?", job_id)
        return {(task, name): (stamp, reason) for task, name, stamp, reason in rows}

    def refuse(self, job_id: str, task: int, name: str, stamp: str, reason: str) -> None:
        """Remember a snapshot that cannot be taken in."""
        self._sql.execute(
            "INSERT INTO refused_snapshots VALUES (?, ?, ?, ?, ?) ON CONFLICT (job_id, task, name) DO UPDATE SET"
            " stamp = excluded.stamp, reason = excluded.reason",
            (job_id, task, name, stamp, reason),
        )

    def taken(self, job_id: str, task: int, seq: int, digest: str, *, final: bool) -> None:
        """Remember the snapshot that was just taken in; what was refused before it is forgotten when it is the last."""
        self._sql.execute(
            "INSERT INTO ingested_snapshots VALUES (?, ?, ?, ?, ?) ON CONFLICT (job_id, task) DO UPDATE SET"
            " seq = max(seq, excluded.seq), digest = iif(excluded.seq >= seq, excluded.digest, digest), final = excluded.final",
            (job_id, task, seq, digest, TAKEN if final else LIVE),
        )
        if final:
            self._sql.execute("DELETE FROM refused_snapshots WHERE job_id = ? AND task = ?", (job_id, task))

    def cleaned(self, tasks: Iterable[tuple[str, int]]) -> None:
        """Remember that the files of these final tasks are gone."""
        self._sql.executemany(f"UPDATE ingested_snapshots SET final = {CLEANED} WHERE job_id = ? AND task = ?", tasks)  # noqa: S608

    def cleaned_count(self, job_id: str) -> int:
        """Return how many tasks of a job need not be looked at any more."""
        row = self._sql.execute(
            "SELECT count(*) FROM ingested_snapshots WHERE job_id = ? AND final = ?", (job_id, CLEANED)
        ).fetchone()
        return int(row[0])

    def is_settled(self, job_id: str, task: int) -> bool:
        """Return whether the index says that nothing will change any more about how a task ended."""
        rows = self._plain("SELECT final FROM tasks WHERE job_id = ? AND task = ?", job_id, task)
        return bool(rows and rows[0][0])

    def job_state(self, job_id: str) -> tuple[str, str | None]:
        """Return state and end of a job as the index has them, ("", None) when it has none."""
        rows = self._plain(f"SELECT state, ended FROM {self._jobs} WHERE id = ?", job_id)  # noqa: S608
        return (rows[0][0], rows[0][1]) if rows else ("", None)

    def complete(self, job_id: str) -> None:
        """Remember that a job is done with; its tasks' rows are not needed any more."""
        self._sql.execute("INSERT INTO ingested_jobs VALUES (?, 1) ON CONFLICT (job_id) DO UPDATE SET complete = 1", (job_id,))
        self._sql.execute("DELETE FROM ingested_snapshots WHERE job_id = ?", (job_id,))

    def base(self, job_id: str, task: int) -> Base:
        """Return what was taken in last from a task that was seen running."""
        values: dict[tuple[str, str], Values] = {}
        sql = "SELECT kind, owner, key, value FROM ingested_values WHERE job_id = ? AND task = ?"
        for kind, owner, key, value in self._sql.execute(sql, (job_id, task)):
            owned = values.setdefault((kind, owner), {})
            if key:  # the row without a key says that the owner is known, even if it has nothing
                owned[key[1:]] = value
        return Base(values)

    def keep(self, job_id: str, task: int, base: Base, *, final: bool) -> None:
        """Write down a task's values for its next snapshot; a final one has no next."""
        if base.values:
            self._sql.execute("DELETE FROM ingested_values WHERE job_id = ? AND task = ?", (job_id, task))
        if not final:
            self._sql.executemany(
                "INSERT INTO ingested_values VALUES (?, ?, ?, ?, ?, ?)",
                (
                    (job_id, task, kind, owner, key, value)
                    for (kind, owner), values in base.following.items()
                    for key, value in [("", None), *((f"={key}", value) for key, value in values.items())]
                ),
            )

    def written(self, kind: str, owner: str) -> Values:
        """Return what ingest wrote last to a thing that tasks share."""
        sql = "SELECT key, value FROM ingested_values WHERE job_id = ? AND task = ? AND kind = ? AND owner = ?"
        return dict(self._plain(sql, *SHARED, kind, owner))

    def write(self, kind: str, owner: str, key: str, value: object) -> None:
        """Remember what ingest wrote to a thing that tasks share."""
        self._sql.execute(
            "INSERT INTO ingested_values VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (job_id, task, kind, owner, key)"
            " DO UPDATE SET value = excluded.value",
            (*SHARED, kind, owner, key, value),
        )

    def unwrite(self, kind: str, owner: str, key: str) -> None:
        """Remember that ingest removed it."""
        self._sql.execute(
            "DELETE FROM ingested_values WHERE job_id = ? AND task = ? AND kind = ? AND owner = ? AND key = ?",
            (*SHARED, kind, owner, key),
        )

    def runs(self, run_ids: Sequence[str]) -> dict[str, Values]:
        """Return what was taken in last of those runs that were ever taken in."""
        found: dict[str, Values] = {}
        for marks, part in chunks(run_ids):
            sql = f"SELECT run_id, name, status, end_time, lifecycle FROM ingested_runs WHERE run_id IN ({marks})"  # noqa: S608
            for run_id, name, status, end_time, lifecycle in self._plain(sql, *part):
                found[run_id] = {"name": name, "status": status, "end_time": end_time, "lifecycle_stage": lifecycle}
        return found

    def took_runs(self, rows: Iterable[tuple[object, ...]]) -> None:
        """Remember runs as (run id, name, status, end time, lifecycle stage)."""
        self._sql.executemany(
            "INSERT INTO ingested_runs VALUES (?, ?, ?, ?, ?) ON CONFLICT (run_id) DO UPDATE SET name = excluded.name,"
            " status = excluded.status, end_time = excluded.end_time, lifecycle = excluded.lifecycle",
            rows,
        )

    def place_runs(self, job_id: str, task: int, run_ids: Iterable[str]) -> None:
        """Write down which runs belong to a task, the task's own first."""
        self._sql.executemany(
            "INSERT INTO task_runs (run_id, job_id, task, position) VALUES (?, ?, ?, ?) ON CONFLICT (run_id) DO UPDATE SET"
            " job_id = excluded.job_id, task = excluded.task, position = excluded.position",
            ((run_id, job_id, task, position) for position, run_id in enumerate(run_ids)),
        )

    def task_run_ids(self, job_id: str, task: int) -> list[str]:
        """Return the runs of a task as they were placed."""
        sql = "SELECT run_id FROM task_runs WHERE job_id = ? AND task = ? ORDER BY position, run_id"
        return [run_id for (run_id,) in self._plain(sql, job_id, task)]

    def end_runs(self, job_id: str, task: int) -> None:
        """End the runs that an ended task left open, because its runner was killed together with it."""
        rows = self._plain("SELECT state, ended FROM tasks WHERE job_id = ? AND task = ?", job_id, task)
        state, ended = rows[0] if rows else (records.FAILED, None)
        if state == records.SUCCEEDED:
            return
        moment = datetime.fromisoformat(ended) if ended else datetime.now(UTC)
        values = (adoption.RUN_STATUS.get(state, store.FAILED), int(moment.timestamp() * 1000))
        for run_id in self.task_run_ids(job_id, task):
            if not self._plain("SELECT 1 FROM main.runs WHERE run_uuid = ? AND status = ?", run_id, store.RUNNING):
                continue
            self._sql.execute("UPDATE main.runs SET status = ?, end_time = ? WHERE run_uuid = ?", (*values, run_id))
            self._sql.execute("UPDATE ingested_runs SET status = ?, end_time = ? WHERE run_id = ?", (*values, run_id))

    def adopt(self) -> None:
        """Fill a ledger that was lost (the index was deleted) from the tags of the runs in the store.

        So runs find their tasks again, and what is removed from the store from now on stays removed.
        """
        if self._plain("SELECT 1 FROM ingested_runs LIMIT 1"):
            return
        self._sql.execute(
            "INSERT INTO ingested_runs SELECT r.run_uuid, r.name, r.status, r.end_time, r.lifecycle_stage FROM main.runs r"
            " JOIN main.tags t ON t.run_uuid = r.run_uuid AND t.key = 'lossi.job_id' WHERE 1 ON CONFLICT DO NOTHING"
        )
        self._sql.execute(
            "INSERT INTO task_runs (run_id, job_id, task, position) SELECT r.run_uuid, j.value, CAST(n.value AS INTEGER),"
            " row_number() OVER (PARTITION BY j.value, n.value ORDER BY r.start_time, r.run_uuid) - 1 FROM main.runs r"
            " JOIN main.tags j ON j.run_uuid = r.run_uuid AND j.key = 'lossi.job_id'"
            " JOIN main.tags n ON n.run_uuid = r.run_uuid AND n.key = 'lossi.task' WHERE 1 ON CONFLICT DO NOTHING"
        )

    def _plain(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in self._sql.execute(sql, values)]


def as_text(value: object) -> str | None:
    """Return a value as the ledger keeps it."""
    return None if value is None else str(value)


def chunks(values: Sequence[str]) -> Iterable[tuple[str, Sequence[str]]]:
    """Split a long list of values for SQL; yields (question marks, part)."""
    for start in range(0, len(values), CHUNK):
        part = values[start : start + CHUNK]
        yield ", ".join("?" * len(part)), part


def mark_to_values(mark: Mark | None) -> Values:
    """Return a mark as it is kept in the ledger."""
    return {"mark": json.dumps(astuple(mark))} if mark else {}


def mark_from(base: Base) -> Mark | None:
    """Return the mark of a task's last snapshot, None when there is none."""
    text = base.of("metrics", "").get("mark")
    return Mark(*json.loads(text)) if isinstance(text, str) else None

"""The ledger of ingest: what was ingested, so that nothing comes twice, comes back or overwrites a person's edit.

SQL on the tables ``ingested_*``, ``refused_snapshots`` and ``task_runs`` of the project's index. During ingest the index is
attached to the store's connection, so that ledger and store change in one transaction.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from datetime import UTC, datetime
from typing import Any

from lossi.contract import run_status
from lossi.contract.states import FAILED, SUCCEEDED
from lossi.tracking.ingest.snapshots import Mark

LIVE, INGESTED, CLEANED = 0, 1, 2
"""Values of ``ingested_snapshots.final``."""
SHARED = ("", -1)
"""The "task" whose values are those that ingest wrote to what tasks share."""
CHUNK = 500
"""Values in one SQL list."""

Values = dict[str, object]


@dataclass(frozen=True)
class IngestedSnapshot:
    """The last snapshot ingested from a task."""

    seq: int
    digest: str
    final: int


@dataclass
class Base:
    """The base of a three-way merge: what was last ingested from a task, and what to store as its next base.

    Attributes
    ----------
    seed
        The job's template: the base of what was never ingested from the task.
    """

    values: Mapping[tuple[str, str], Values]
    seed: Mapping[tuple[str, str], Values] = field(default_factory=dict)
    following: dict[tuple[str, str], Values] = field(default_factory=dict)

    def of(self, kind: str, owner: str) -> Values:
        """Return the values that the task last had; empty if it had none."""
        values = self.values.get((kind, owner))
        return values if values is not None else self.seed.get((kind, owner), {})

    def has(self, kind: str, owner: str) -> bool:
        """Return whether the owner was ingested from this task before, or was in its template."""
        return (kind, owner) in self.values or (kind, owner) in self.seed

    def remember(self, kind: str, owner: str, values: Mapping[str, object] | None = None) -> None:
        """Set the values of the next base; those equal to the template need not be stored."""
        if self.seed.get((kind, owner)) != values or values is None:
            self.following[kind, owner] = dict(values or {})

    @property
    def metrics_mark(self) -> Mark | None:
        """Return the newest metric row of the task's last snapshot, if known."""
        text = self.of("metrics", "").get("mark")
        return Mark(*json.loads(text)) if isinstance(text, str) else None

    def remember_metrics_mark(self, mark: Mark | None) -> None:
        """Set the mark of the next base."""
        self.remember("metrics", "", {"mark": json.dumps(astuple(mark))} if mark else {})


class Ledger:
    """The ledger of one connection; ``schema`` is the name under which the index is attached (MLflow has a table ``jobs`` too)."""

    def __init__(self, connection: sqlite3.Connection, schema: str = "main") -> None:
        self._sql = connection
        self._jobs = f"{schema}.jobs"

    def completed_jobs(self) -> set[str]:
        """Return the jobs that need no further scan."""
        return {job for (job,) in self._rows("SELECT job_id FROM ingested_jobs WHERE complete = 1")}

    def ingested(self, job_id: str) -> dict[int, IngestedSnapshot]:
        """Return the last snapshot ingested from each task of a job."""
        rows = self._rows("SELECT task, seq, digest, final FROM ingested_snapshots WHERE job_id = ?", job_id)
        return {task: IngestedSnapshot(seq, digest, final) for task, seq, digest, final in rows}

    def refused(self, job_id: str) -> dict[tuple[int, str], tuple[str, str]]:
        """Return (stamp, reason) of each refused snapshot of a job by task and file name."""
        rows = self._rows("SELECT task, name, stamp, reason FROM refused_snapshots WHERE job_id = ?", job_id)
        return {(task, name): (stamp, reason) for task, name, stamp, reason in rows}

    def refuse(self, job_id: str, task: int, name: str, stamp: str, reason: str) -> None:
        """Record a snapshot that cannot be ingested."""
        self._sql.execute(
            "INSERT INTO refused_snapshots VALUES (?, ?, ?, ?, ?) ON CONFLICT (job_id, task, name) DO UPDATE SET"
            " stamp = excluded.stamp, reason = excluded.reason",
            (job_id, task, name, stamp, reason),
        )

    def record_snapshot(self, job_id: str, task: int, seq: int, digest: str, *, final: bool) -> None:
        """Record an ingested snapshot; the final one clears the task's refused ones."""
        self._sql.execute(
            "INSERT INTO ingested_snapshots VALUES (?, ?, ?, ?, ?) ON CONFLICT (job_id, task) DO UPDATE SET"
            " seq = max(seq, excluded.seq), digest = iif(excluded.seq >= seq, excluded.digest, digest), final = excluded.final",
            (job_id, task, seq, digest, INGESTED if final else LIVE),
        )
        if final:
            self._sql.execute("DELETE FROM refused_snapshots WHERE job_id = ? AND task = ?", (job_id, task))

    def record_cleaned(self, tasks: Iterable[tuple[str, int]]) -> None:
        """Record that the files of these final tasks are removed."""
        self._sql.executemany(f"UPDATE ingested_snapshots SET final = {CLEANED} WHERE job_id = ? AND task = ?", tasks)  # noqa: S608

    def cleaned_count(self, job_id: str) -> int:
        """Return how many tasks of a job are done."""
        return int(self._rows("SELECT count(*) FROM ingested_snapshots WHERE job_id = ? AND final = ?", job_id, CLEANED)[0][0])

    def is_settled(self, job_id: str, task: int) -> bool:
        """Return whether the index has the task's final state."""
        rows = self._rows("SELECT final FROM tasks WHERE job_id = ? AND task = ?", job_id, task)
        return bool(rows and rows[0][0])

    def job_state(self, job_id: str) -> tuple[str, str | None]:
        """Return state and end of a job in the index, ("", None) if it is not there."""
        rows = self._rows(f"SELECT state, ended FROM {self._jobs} WHERE id = ?", job_id)  # noqa: S608
        return (rows[0][0], rows[0][1]) if rows else ("", None)

    def complete(self, job_id: str) -> None:
        """Record that a job is done; its tasks' rows are no longer needed."""
        self._sql.execute("INSERT INTO ingested_jobs VALUES (?, 1) ON CONFLICT (job_id) DO UPDATE SET complete = 1", (job_id,))
        self._sql.execute("DELETE FROM ingested_snapshots WHERE job_id = ?", (job_id,))

    def base(self, job_id: str, task: int) -> Base:
        """Return what was last ingested from a task while it was running."""
        values: dict[tuple[str, str], Values] = {}
        sql = "SELECT kind, owner, key, value FROM ingested_values WHERE job_id = ? AND task = ?"
        for kind, owner, key, value in self._sql.execute(sql, (job_id, task)):
            of_owner = values.setdefault((kind, owner), {})
            if key:  # a row without a key: the owner exists, even if it has no values
                of_owner[key[1:]] = value
        return Base(values)

    def store_base(self, job_id: str, task: int, base: Base, *, final: bool) -> None:
        """Store the base of a task's next snapshot; none follows a final one."""
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
        """Return what ingest last wrote to a shared owner."""
        sql = "SELECT key, value FROM ingested_values WHERE job_id = ? AND task = ? AND kind = ? AND owner = ?"
        return dict(self._rows(sql, *SHARED, kind, owner))

    def write(self, kind: str, owner: str, key: str, value: object) -> None:
        """Record a value that ingest wrote to a shared owner."""
        self._sql.execute(
            "INSERT INTO ingested_values VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (job_id, task, kind, owner, key)"
            " DO UPDATE SET value = excluded.value",
            (*SHARED, kind, owner, key, value),
        )

    def unwrite(self, kind: str, owner: str, key: str) -> None:
        """Record that ingest removed a value."""
        self._sql.execute(
            "DELETE FROM ingested_values WHERE job_id = ? AND task = ? AND kind = ? AND owner = ? AND key = ?",
            (*SHARED, kind, owner, key),
        )

    def runs(self, run_ids: Sequence[str]) -> dict[str, Values]:
        """Return the facts last ingested of these runs; runs never ingested are left out."""
        facts: dict[str, Values] = {}
        for marks, part in chunks(run_ids):
            sql = f"SELECT run_id, name, status, end_time, lifecycle FROM ingested_runs WHERE run_id IN ({marks})"  # noqa: S608
            for run_id, name, status, end_time, lifecycle in self._rows(sql, *part):
                facts[run_id] = {"name": name, "status": status, "end_time": end_time, "lifecycle_stage": lifecycle}
        return facts

    def record_runs(self, rows: Iterable[tuple[object, ...]]) -> None:
        """Record ingested runs: (run id, name, status, end time, lifecycle stage)."""
        self._sql.executemany(
            "INSERT INTO ingested_runs VALUES (?, ?, ?, ?, ?) ON CONFLICT (run_id) DO UPDATE SET name = excluded.name,"
            " status = excluded.status, end_time = excluded.end_time, lifecycle = excluded.lifecycle",
            rows,
        )

    def assign_runs(self, job_id: str, task: int, run_ids: Iterable[str]) -> None:
        """Record which runs belong to a task, the task's own first."""
        self._sql.executemany(
            "INSERT INTO task_runs (run_id, job_id, task, position) VALUES (?, ?, ?, ?) ON CONFLICT (run_id) DO UPDATE SET"
            " job_id = excluded.job_id, task = excluded.task, position = excluded.position",
            ((run_id, job_id, task, position) for position, run_id in enumerate(run_ids)),
        )

    def task_run_ids(self, job_id: str, task: int) -> list[str]:
        """Return the runs of a task, its own first."""
        sql = "SELECT run_id FROM task_runs WHERE job_id = ? AND task = ? ORDER BY position, run_id"
        return [run_id for (run_id,) in self._rows(sql, job_id, task)]

    def end_runs(self, job_id: str, task: int) -> None:
        """End the runs that a task left open because its runner was killed."""
        rows = self._rows("SELECT state, ended FROM tasks WHERE job_id = ? AND task = ?", job_id, task)
        state, ended = rows[0] if rows else (FAILED, None)
        if state == SUCCEEDED:
            return
        end = datetime.fromisoformat(ended) if ended else datetime.now(UTC)
        values = (run_status.of_state(state), int(end.timestamp() * 1000))
        for run_id in self.task_run_ids(job_id, task):
            if not self._rows("SELECT 1 FROM main.runs WHERE run_uuid = ? AND status = ?", run_id, run_status.RUNNING):
                continue
            self._sql.execute("UPDATE main.runs SET status = ?, end_time = ? WHERE run_uuid = ?", (*values, run_id))
            self._sql.execute("UPDATE ingested_runs SET status = ?, end_time = ? WHERE run_id = ?", (*values, run_id))

    def restore(self) -> None:
        """Fill an empty ledger (the index was deleted) from the tags of the runs in the store.

        Runs are assigned to their tasks again, and what is removed from the store from now on stays removed.
        """
        if self._rows("SELECT 1 FROM ingested_runs LIMIT 1"):
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

    def _rows(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in self._sql.execute(sql, values)]


def as_text(value: object) -> str | None:
    """Return a value as the ledger stores it."""
    return None if value is None else str(value)


def chunks(values: Sequence[str]) -> Iterable[tuple[str, Sequence[str]]]:
    """Split a long list of SQL values; yields (question marks, part)."""
    for start in range(0, len(values), CHUNK):
        part = values[start : start + CHUNK]
        yield ", ".join("?" * len(part)), part

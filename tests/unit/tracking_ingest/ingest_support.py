"""Tasks that log to stores of their own, row by row as MLflow's SQL store does, and a project that ingests them."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lossi.contract import records
from lossi.projects import Project, stores
from lossi.runner import publish

NAN = float("nan")
LEDGER = ("task_runs", "ingested_jobs", "ingested_snapshots", "ingested_runs", "ingested_values", "refused_snapshots")


def job_id(number: int) -> str:
    """A job id (26 characters); greater numbers were submitted later."""
    return f"01job{number:021d}"


def id_of(name: str) -> str:
    """The run id of a name: the same wherever it is logged."""
    return hashlib.sha256(name.encode()).hexdigest()[:32]


class Log:
    """A store, written as MLflow's SQL store does (mlflow/store/tracking/sqlalchemy_store.py, 3.17)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sql = sqlite3.connect(path, isolation_level=None)
        self.sql.execute("PRAGMA synchronous=OFF")

    def close(self) -> None:
        self.sql.close()

    def add(self, table: str, **values: Any) -> int:
        names = ", ".join(f'"{name}"' for name in values)
        cursor = self.sql.execute(
            f'INSERT INTO "{table}" ({names}) VALUES ({", ".join("?" * len(values))})', list(values.values())
        )
        return int(cursor.lastrowid or 0)

    def value(self, sql: str, *values: object) -> Any:
        row = self.sql.execute(sql, values).fetchone()
        return row[0] if row else None

    def experiment(self, name: str, time: int = 1) -> int:
        existing = self.value("SELECT experiment_id FROM experiments WHERE name = ?", name)
        if existing is not None:
            return int(existing)
        return self.add(
            "experiments",
            name=name,
            artifact_location=f"/artifacts/{name}",
            lifecycle_stage="active",
            creation_time=time,
            last_update_time=time,
            workspace="default",
        )

    def run(self, name: str, experiment: str = "Default", time: int = 1) -> str:
        run_id = id_of(name)
        self.add(
            "runs",
            run_uuid=run_id,
            name=name,
            source_type="UNKNOWN",
            source_name="",
            entry_point_name="",
            user_id="ada",
            status="RUNNING",
            start_time=time,
            source_version="",
            lifecycle_stage="active",
            artifact_uri=f"/artifacts/{experiment}/{run_id}/artifacts",
            experiment_id=self.experiment(experiment, time),
        )
        return run_id

    def end(self, run_id: str, status: str = "FINISHED", time: int = 9) -> None:
        self.sql.execute("UPDATE runs SET status = ?, end_time = ? WHERE run_uuid = ?", (status, time, run_id))

    def tag(self, run_id: str, key: str, value: str | None) -> None:
        self.sql.execute("DELETE FROM tags WHERE run_uuid = ? AND key = ?", (run_id, key))
        if value is not None:
            self.add("tags", run_uuid=run_id, key=key, value=value)

    def param(self, run_id: str, key: str, value: str) -> None:
        self.sql.execute(
            "INSERT INTO params (run_uuid, key, value) VALUES (?, ?, ?) ON CONFLICT DO NOTHING", (run_id, key, value)
        )

    def metric(self, run_id: str, key: str, value: float, step: int = 0, time: int = 1) -> None:
        is_nan = value != value
        value = 0.0 if is_nan else min(max(value, -1.7976931348623157e308), 1.7976931348623157e308)
        row = (key, value, time, run_id, step, is_nan)
        names = "(key, value, timestamp, run_uuid, step, is_nan) VALUES (?, ?, ?, ?, ?, ?)"
        self.sql.execute(f"INSERT INTO metrics {names} ON CONFLICT DO NOTHING", row)
        old = self.sql.execute("SELECT step, timestamp, value FROM latest_metrics WHERE run_uuid = ? AND key = ?", (run_id, key))
        latest = old.fetchone()
        if latest is None or (step, time, value) > latest:
            self.sql.execute("DELETE FROM latest_metrics WHERE run_uuid = ? AND key = ?", (run_id, key))
            self.sql.execute(f"INSERT INTO latest_metrics {names}", row)

    def dataset(self, run_id: str, name: str, digest: str, context: str = "training") -> None:
        experiment = self.value("SELECT experiment_id FROM runs WHERE run_uuid = ?", run_id)
        own = self.value(
            "SELECT dataset_uuid FROM datasets WHERE experiment_id = ? AND name = ? AND digest = ?", experiment, name, digest
        )
        if own is None:
            own = id_of(f"{self.path}{experiment}{name}{digest}")
            self.add(
                "datasets",
                dataset_uuid=own,
                experiment_id=experiment,
                name=name,
                digest=digest,
                dataset_source_type="local",
                dataset_source="{}",
            )
        where = (own, run_id)
        if self.value("SELECT 1 FROM inputs WHERE source_id = ? AND destination_id = ?", *where) is None:
            edge = id_of(f"{own}{run_id}")
            self.add(
                "inputs", input_uuid=edge, source_type="DATASET", source_id=own, destination_type="RUN", destination_id=run_id
            )
            self.add("input_tags", input_uuid=edge, name="mlflow.data.context", value=context)

    def model(self, name: str, run_id: str, time: int) -> str:
        """Log a model; return its id."""
        model = f"m-{id_of(name)}"
        experiment = self.value("SELECT experiment_id FROM runs WHERE run_uuid = ?", run_id)
        self.add(
            "logged_models",
            model_id=model,
            experiment_id=experiment,
            name=name,
            artifact_location=f"/artifacts/models/{model}",
            creation_timestamp_ms=time,
            last_updated_timestamp_ms=time,
            status=2,
            lifecycle_stage="active",
            source_run_id=run_id,
        )
        self.add("logged_model_params", model_id=model, experiment_id=experiment, param_key="depth", param_value="3")
        self.add(
            "inputs",
            input_uuid=f"o{model[2:]}",
            source_type="RUN_OUTPUT",
            source_id=run_id,
            destination_type="MODEL_OUTPUT",
            destination_id=model,
        )
        self.add(
            "logged_model_metrics",
            model_id=model,
            metric_name="acc",
            metric_timestamp_ms=time,
            metric_step=0,
            metric_value=0.5,
            experiment_id=experiment,
            run_id=run_id,
        )
        return model

    def model_tag(self, model: str, key: str, value: str) -> None:
        experiment = self.value("SELECT experiment_id FROM logged_models WHERE model_id = ?", model)
        self.sql.execute("DELETE FROM logged_model_tags WHERE model_id = ? AND tag_key = ?", (model, key))
        self.add("logged_model_tags", model_id=model, experiment_id=experiment, tag_key=key, tag_value=value)

    def register(self, name: str, run_id: str | None, time: int, source: str = "runs:/x/model") -> int:
        """Register a model version; return its number."""
        if self.value("SELECT 1 FROM registered_models WHERE name = ?", name) is None:
            self.add("registered_models", name=name, creation_time=time, last_updated_time=time, workspace="default")
        self.sql.execute("UPDATE registered_models SET last_updated_time = ? WHERE name = ?", (time, name))
        version = int(self.value("SELECT coalesce(max(version), 0) + 1 FROM model_versions WHERE name = ?", name))
        self.add(
            "model_versions",
            name=name,
            version=version,
            creation_time=time,
            last_updated_time=time,
            current_stage="None",
            source=source,
            run_id=run_id,
            status="READY",
            storage_location=source,
            workspace="default",
        )
        return version

    def alias(self, name: str, alias: str, version: int | None) -> None:
        self.sql.execute("DELETE FROM registered_model_aliases WHERE name = ? AND alias = ?", (name, alias))
        if version is not None:
            self.add("registered_model_aliases", name=name, alias=alias, version=version, workspace="default")

    def version_tag(self, name: str, version: int, key: str, value: str) -> None:
        self.sql.execute("DELETE FROM model_version_tags WHERE name = ? AND version = ? AND key = ?", (name, version, key))
        self.add("model_version_tags", name=name, version=version, key=key, value=value, workspace="default")

    def experiment_tag(self, experiment: str, key: str, value: str | None) -> None:
        own = self.experiment(experiment)
        self.sql.execute("DELETE FROM experiment_tags WHERE experiment_id = ? AND key = ?", (own, key))
        if value is not None:
            self.add("experiment_tags", experiment_id=own, key=key, value=value)

    def trace(self, name: str, experiment: str = "Default", time: int = 1, status: str = "OK") -> str:
        trace = f"tr-{id_of(name)}"
        own = self.experiment(experiment, time)
        self.sql.execute("DELETE FROM trace_info WHERE request_id = ?", (trace,))
        self.add("trace_info", request_id=trace, experiment_id=own, timestamp_ms=time, execution_time_ms=5, status=status)
        self.sql.execute("DELETE FROM spans WHERE trace_id = ?", (trace,))
        self.add(
            "spans",
            trace_id=trace,
            experiment_id=own,
            span_id="s1",
            name=name,
            type="LLM",
            status=status,
            start_time_unix_nano=time,
            end_time_unix_nano=time + 7,
            content="{}",
        )
        return trace

    def trace_tag(self, trace: str, key: str, value: str) -> None:
        self.sql.execute("DELETE FROM trace_tags WHERE request_id = ? AND key = ?", (trace, key))
        self.add("trace_tags", request_id=trace, key=key, value=value)


@dataclass
class Task:
    """One task: its folder in the job directory and its own store on the node."""

    job: str
    number: int
    folder: Path
    log: Log
    seq: int = 0

    def publish(self) -> Path:
        """Publish the store as the runner does."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.seq += 1
        return publish.publish(self.log.path, self.folder, self.seq)

    def exit(self, *run_ids: str, state: str = "succeeded") -> None:
        """Write the exit record."""
        self.folder.mkdir(parents=True, exist_ok=True)
        record = records.TaskExit(task=self.number, state=state, run_ids=list(run_ids))
        (self.folder / records.EXIT).write_bytes(records.dump(record))

    def finish(self, *run_ids: str) -> None:
        """Publish a last time and end."""
        self.publish()
        self.exit(*run_ids)


@dataclass
class World:
    """A project, its jobs and the local disk of their nodes."""

    project: Project
    template: Path
    node: Path
    jobs: dict[int, dict[int, Task]] = field(default_factory=dict)

    def job(self, number: int = 1, tasks: int = 1, *, with_template: bool = True) -> str:
        """Create a job directory whose tasks start from the project's present store."""
        folder = self.project.jobs / job_id(number)
        (folder / records.TASK_FOLDER).mkdir(parents=True, exist_ok=True)
        spec = records.PreparedJob(
            id=job_id(number),
            name="job",
            kind="command",
            project=str(self.project.root),
            user="ada",
            created="2024-01-01T00:00:00Z",
            tasks=tasks,
        )
        (folder / records.SPEC).write_bytes(records.dump(spec))
        if with_template:
            default = stores.Experiment("0", "Default", "")
            stores.task_template(self.project, self.template, default, folder / records.TEMPLATE)
        return job_id(number)

    def task(self, number: int = 0, job: int = 1) -> Task:
        """Return a task of a job; create both if they are missing."""
        tasks = self.jobs.setdefault(job, {})
        if number not in tasks:
            folder = self.project.jobs / job_id(job)
            if not folder.exists():
                self.job(job)
            store = self.node / f"{job}-{number}" / "store.db"
            store.parent.mkdir(parents=True)
            template = folder / records.TEMPLATE
            store.write_bytes((template if template.exists() else self.template).read_bytes())
            tasks[number] = Task(job_id(job), number, folder / records.TASK_FOLDER / str(number), Log(store))
        return tasks[number]

    @contextmanager
    def store(self) -> Iterator[Log]:
        """Open the project's store, as a person edits it."""
        log = Log(self.project.store)
        try:
            yield log
        finally:
            log.close()

    def rows(self, table: str, columns: str = "*", where: str = "") -> list[tuple[Any, ...]]:
        """Rows of the project's store, sorted."""
        with closing(sqlite3.connect(self.project.store)) as connection:
            return sorted(connection.execute(f"SELECT {columns} FROM {table} {where}").fetchall(), key=repr)

    def ledger(self, table: str) -> list[tuple[Any, ...]]:
        """Rows of the ledger, sorted."""
        with closing(sqlite3.connect(self.project.index)) as connection:
            return sorted(connection.execute(f"SELECT * FROM {table}").fetchall(), key=repr)

    def files(self) -> list[str]:
        """Names of the snapshot files."""
        return sorted(path.name for path in self.project.jobs.rglob("tracking-*.db"))


def dump(project: Project, *, ledger: bool = True) -> dict[str, list[tuple[Any, ...]]]:
    """Return everything in the store and the ledger; assert that both are intact."""
    rows: dict[str, list[tuple[Any, ...]]] = {}
    with closing(sqlite3.connect(project.store)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        for table in tables(connection):
            rows[table] = sorted(connection.execute(f'SELECT * FROM "{table}"').fetchall(), key=repr)
    if ledger:
        with closing(sqlite3.connect(project.index)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            for table in LEDGER:
                rows[f"lossi.{table}"] = sorted(connection.execute(f"SELECT * FROM {table}").fetchall(), key=repr)
    return rows


def tables(connection: sqlite3.Connection) -> list[str]:
    return [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]

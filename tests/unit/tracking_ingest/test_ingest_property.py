"""Whatever is published when and ingested in whatever order, the rows are those of direct logging."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from ingest_support import LEDGER, NAN, Log, World, dump

from lossi.projects import Project, stores
from lossi.tracking.ingest.entry import ingest_runs

TASKS = [(1, 0), (1, 1), (2, 0)]
EXPERIMENTS = ["Default", "tuning", "new a", "new b"]
VALUES = [0.0, 1.0, -2.5, NAN, float("inf"), -float("inf")]

task = st.sampled_from(TASKS)
few = st.integers(0, 3)
step = st.one_of(
    st.tuples(st.just("run"), task, st.sampled_from(EXPERIMENTS)),
    st.tuples(st.just("metric"), task, few, few, st.sampled_from(VALUES), few),
    st.tuples(st.just("param"), task, few, few, few),
    st.tuples(st.just("tag"), task, few, few, st.one_of(st.none(), few)),
    st.tuples(st.just("end"), task, few),
    st.tuples(st.just("delete"), task, few),
    st.tuples(st.just("dataset"), task, few, few),
    st.tuples(st.just("model"), task, few),
    st.tuples(st.just("model tag"), task, few, few),
    st.tuples(st.just("register"), task, st.sampled_from(["digits", "other"])),
    st.tuples(st.just("alias"), task, st.one_of(st.none(), few)),
    st.tuples(st.just("version tag"), task, few, few),
    st.tuples(st.just("experiment tag"), task, st.sampled_from(EXPERIMENTS), st.one_of(st.none(), few)),
    st.tuples(st.just("trace"), task, st.sampled_from(EXPERIMENTS)),
    st.tuples(st.just("trace tag"), task, few, few),
    st.tuples(st.just("publish"), task),
    st.tuples(st.just("publish"), task),
    st.tuples(st.just("ingest")),
)


class BothStores:
    """Logs everything to a task's own store and to one store that all share."""

    def __init__(self, world: World, direct: Log) -> None:
        self.world = world
        self.direct = direct
        self.clock = 100
        self.runs: dict[tuple[int, int], list[str]] = {key: [] for key in TASKS}
        self.models: dict[tuple[int, int], list[str]] = {key: [] for key in TASKS}
        self.traces: dict[tuple[int, int], list[tuple[str, str]]] = {key: [] for key in TASKS}
        self.versions: dict[tuple[int, int], list[tuple[str, int, int]]] = {key: [] for key in TASKS}

    def log(self, call: tuple[Any, ...]) -> None:
        self.clock += 1
        kind, *rest = call
        if kind == "ingest":
            assert ingest_runs(self.world.project).problems == ()
        elif kind == "publish":
            self.world.task(rest[0][1], rest[0][0]).publish()
        else:
            key, *values = rest
            getattr(self, kind.replace(" ", "_"))(key, *values)

    def both(self, key: tuple[int, int]) -> Iterator[Log]:
        yield self.world.task(key[1], key[0]).log
        yield self.direct

    def same(self, key: tuple[int, int], act: Callable[[Log], str]) -> str:
        own, shared = (act(log) for log in self.both(key))
        assert own == shared
        return own

    def pick(self, things: list[Any], number: int) -> Any:
        return things[number % len(things)] if things else None

    def run(self, key: tuple[int, int], experiment: str) -> None:
        name = f"r{key[0]}{key[1]}{len(self.runs[key])}"
        self.runs[key].append(self.same(key, lambda log: log.run(name, experiment, self.clock)))

    def on_run(self, key: tuple[int, int], number: int, act: Callable[[Log, str], object]) -> None:
        if run := self.pick(self.runs[key], number):
            for log in self.both(key):
                act(log, run)

    def metric(self, key: tuple[int, int], number: int, name: int, value: float, at: int) -> None:
        self.on_run(key, number, lambda log, run: log.metric(run, f"m{name}", value, at, 100 + at % 2))

    def param(self, key: tuple[int, int], number: int, name: int, value: int) -> None:
        self.on_run(key, number, lambda log, run: log.param(run, f"p{name}", str(value)))

    def tag(self, key: tuple[int, int], number: int, name: int, value: int | None) -> None:
        self.on_run(key, number, lambda log, run: log.tag(run, f"t{name}", None if value is None else str(value)))

    def end(self, key: tuple[int, int], number: int) -> None:
        self.on_run(key, number, lambda log, run: log.end(run, "FINISHED", self.clock))

    def delete(self, key: tuple[int, int], number: int) -> None:
        sql = "UPDATE runs SET lifecycle_stage = 'deleted', deleted_time = ? WHERE run_uuid = ?"
        self.on_run(key, number, lambda log, run: log.sql.execute(sql, (self.clock, run)))

    def dataset(self, key: tuple[int, int], number: int, digest: int) -> None:
        self.on_run(key, number, lambda log, run: log.dataset(run, "d", str(digest)))

    def model(self, key: tuple[int, int], number: int) -> None:
        name = f"m{key[0]}{key[1]}{len(self.models[key])}"
        if run := self.pick(self.runs[key], number):
            self.models[key].append(self.same(key, lambda log: log.model(name, run, self.clock)))

    def model_tag(self, key: tuple[int, int], number: int, value: int) -> None:
        if model := self.pick(self.models[key], number):
            for log in self.both(key):
                log.model_tag(model, "k", str(value))

    def register(self, key: tuple[int, int], name: str) -> None:
        own, shared = [log.register(name, None, self.clock) for log in self.both(key)]
        self.versions[key].append((name, own, shared))
        numbers = json.dumps([{"name": name, "version": own}]), json.dumps([{"name": name, "version": shared}])
        if model := self.pick(self.models[key], 0):
            for log, text in zip(self.both(key), numbers, strict=True):
                log.model_tag(model, "mlflow.modelVersions", text)

    def alias(self, key: tuple[int, int], number: int | None) -> None:
        for name in ("digits", "other"):
            versions = [version for version in self.versions[key] if version[0] == name]
            picked = self.pick(versions, number or 0)
            if picked:
                for log, version in zip(self.both(key), picked[1:], strict=True):
                    log.alias(name, f"a{key[0]}{key[1]}", None if number is None else version)

    def version_tag(self, key: tuple[int, int], number: int, value: int) -> None:
        if picked := self.pick(self.versions[key], number):
            for log, version in zip(self.both(key), picked[1:], strict=True):
                log.version_tag(picked[0], version, "k", str(value))

    def experiment_tag(self, key: tuple[int, int], experiment: str, value: int | None) -> None:
        for log in self.both(key):
            log.experiment_tag(experiment, f"k{key[0]}{key[1]}", None if value is None else str(value))

    def trace(self, key: tuple[int, int], experiment: str) -> None:
        name = f"{key[0]}{key[1]}{len(self.traces[key])}"
        self.traces[key].append((self.same(key, lambda log: log.trace(name, experiment, self.clock)), experiment))

    def trace_tag(self, key: tuple[int, int], number: int, value: int) -> None:
        if picked := self.pick(self.traces[key], number):
            for log in self.both(key):
                log.trace_tag(picked[0], "k", str(value))


NORMALISED = {
    "experiments": "SELECT name, artifact_location, lifecycle_stage FROM experiments",
    "experiment tags": "SELECT e.name, t.key, t.value FROM experiment_tags t JOIN experiments e USING (experiment_id)",
    "runs": "SELECT e.name, r.run_uuid, r.name, status, start_time, end_time, r.lifecycle_stage, deleted_time, artifact_uri"
    " FROM runs r JOIN experiments e USING (experiment_id)",
    "tags": "SELECT * FROM tags",
    "params": "SELECT * FROM params",
    "metrics": "SELECT * FROM metrics",
    "latest": "SELECT * FROM latest_metrics",
    "datasets": "SELECT e.name, d.name, d.digest FROM datasets d JOIN experiments e USING (experiment_id)",
    "inputs": "SELECT i.source_type, coalesce(e.name || d.name || d.digest, i.source_id), i.destination_type, i.destination_id, t.name, t.value"
    " FROM inputs i LEFT JOIN datasets d ON d.dataset_uuid = i.source_id LEFT JOIN experiments e USING (experiment_id)"
    " LEFT JOIN input_tags t USING (input_uuid)",
    "logged models": "SELECT e.name, m.model_id, m.name, m.status, m.source_run_id, p.param_value, x.metric_name, x.metric_value, x.run_id"
    " FROM logged_models m JOIN experiments e USING (experiment_id) LEFT JOIN logged_model_params p USING (model_id)"
    " LEFT JOIN logged_model_metrics x USING (model_id)",
    "logged model tags": "SELECT model_id, tag_key, CASE tag_key WHEN 'mlflow.modelVersions' THEN (SELECT v.creation_time FROM model_versions v"
    " WHERE v.name = json_extract(tag_value, '$[0].name') AND v.version = json_extract(tag_value, '$[0].version')) ELSE tag_value END"
    " FROM logged_model_tags",
    "registered models": "SELECT name, last_updated_time, description FROM registered_models",
    "versions": "SELECT name, creation_time, run_id, source, status, current_stage FROM model_versions",
    "numbers": "SELECT name, version FROM model_versions",
    "version tags": "SELECT v.name, v.creation_time, t.key, t.value FROM model_version_tags t JOIN model_versions v USING (name, version)",
    "aliases": "SELECT v.name, v.creation_time, a.alias FROM registered_model_aliases a JOIN model_versions v USING (name, version)",
    "traces": "SELECT e.name, i.request_id, i.status, i.timestamp_ms, s.content, s.duration_ns, t.key, t.value FROM trace_info i"
    " JOIN experiments e USING (experiment_id) JOIN spans s ON s.trace_id = i.request_id LEFT JOIN trace_tags t USING (request_id)",
}


def normalised(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Return the rows of a store without the ids that it assigns."""
    with closing(sqlite3.connect(path)) as connection:
        return {name: sorted(connection.execute(sql).fetchall(), key=repr) for name, sql in NORMALISED.items()}


@pytest.fixture(scope="module")
def start(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with one experiment, one registered model and two jobs that start with them."""
    root = tmp_path_factory.mktemp("start") / "project"
    root.mkdir()
    world = World(Project(root), template, root / "node")
    stores.ensure(world.project, template)
    with world.store() as store:
        store.experiment("tuning")
        store.register("digits", None, 1)
    world.job(1, tasks=2)
    world.job(2, tasks=1)
    return root


class Example:
    """One example's project, a copy of the start, and a store that is logged to directly."""

    def __init__(self, start: Path, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(start, folder)
        direct = folder / "direct.db"
        shutil.copy(folder / ".lossi" / "mlflow.db", direct)
        self.world = World(Project(folder), start, folder / "node")
        self.both_stores = BothStores(self.world, Log(direct))

    def finish(self, order: list[tuple[int, int]], *, each: bool) -> None:
        for job, number in order:
            task = self.world.task(number, job)
            task.finish()
            if each:
                assert ingest_runs(self.world.project).problems == ()
        assert ingest_runs(self.world.project).problems == ()

    def check(self, *, all_at_once: bool = False) -> None:
        ours, direct = normalised(self.world.project.store), normalised(self.both_stores.direct.path)
        assert ours == direct
        if all_at_once:
            with self.world.store() as store:
                for name, version, time in store.sql.execute("SELECT name, version, creation_time FROM model_versions"):
                    sql = "SELECT version FROM model_versions WHERE name = ? AND creation_time = ?"
                    assert self.both_stores.direct.value(sql, name, time) == version
        before = dump(self.world.project)
        assert ingest_runs(self.world.project).taken == 0
        assert dump(self.world.project) == before
        assert self.world.files() == []
        assert {table: before[f"lossi.{table}"] for table in LEDGER if table.endswith("values")} == {
            "ingested_values": [row for row in before["lossi.ingested_values"] if row[0] == ""]
        }

    def close(self) -> None:
        self.both_stores.direct.close()
        for tasks in self.world.jobs.values():
            for task in tasks.values():
                task.log.close()


SLOW = settings(max_examples=60)


@pytest.mark.slow
@SLOW
@given(steps=st.lists(step, max_size=45), order=st.permutations(TASKS), each=st.booleans())
def test_ingest_in_any_order_gives_the_rows_of_direct_logging(
    start: Path, tmp_path: Path, steps: list[tuple[Any, ...]], order: list[tuple[int, int]], each: bool
) -> None:
    example = Example(start, tmp_path / "example")
    for call in steps:
        example.both_stores.log(call)
    example.finish(order, each=each)
    example.check()
    example.close()


@pytest.mark.slow
@settings(SLOW, max_examples=20)
@given(steps=st.lists(step.filter(lambda call: call[0] != "ingest"), max_size=45), order=st.permutations(TASKS))
def test_ingested_all_at_once_even_the_version_numbers_are_those_of_direct_logging(
    start: Path, tmp_path: Path, steps: list[tuple[Any, ...]], order: list[tuple[int, int]]
) -> None:
    example = Example(start, tmp_path / "example")
    for call in steps:
        example.both_stores.log(call)
    example.finish(order, each=False)
    example.check(all_at_once=True)
    example.close()

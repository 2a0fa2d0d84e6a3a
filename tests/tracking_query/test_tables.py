"""Runs as columns: selection, pages, facts of tasks, exports."""

from __future__ import annotations

import csv
import io
import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from lossi import tracking
from lossi.errors import InvalidInput, NotFound
from lossi.projects import Project, index


@pytest.fixture
def runs(client: MlflowClient) -> list[str]:
    """Seven runs of two experiments; the fourth has no metric, the last has NaN."""
    ids = []
    first, second = client.create_experiment("digits"), client.create_experiment("iris")
    for number in range(7):
        run = client.create_run(
            first if number < 5 else second, start_time=1000 + number, run_name=f"run {number}", tags={"team": "x"}
        )
        ids.append(run.info.run_id)
        client.log_param(run.info.run_id, "lr", number / 10)
        if number != 3:
            client.log_metric(run.info.run_id, "acc", math.nan if number == 6 else number * 0.1)
    client.set_tag(ids[0], "mlflow.note.content", "a note")
    client.set_tag(ids[0], "mlflow.source.git.commit", "abc")
    client.log_param(ids[5], "only here", "1")
    return ids


def give_task(project: Project, run_id: str, task: int, **facts: object) -> None:
    """Assign a run to a task of job ``j``."""
    names = ["job_id", "task", *facts]
    with index.writing(project) as connection:
        connection.execute("INSERT INTO task_runs VALUES (?, 'j', ?, 0)", (run_id, task))
        connection.execute(
            f"INSERT INTO tasks ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})", ("j", task, *facts.values())
        )


def test_by_default_all_keys_that_occur_are_shown_without_mlflows_own_tags(project: Project, runs: list[str]) -> None:
    table = tracking.search(project)
    assert list(table.columns) == [
        "run_id",
        "run_name",
        "experiment_id",
        "status",
        "start_time",
        "end_time",
        "params.lr",
        "params.only here",
        "metrics.acc",
        "tags.mlflow.runName",
        "tags.mlflow.source.git.commit",
        "tags.team",
    ]
    assert table.columns["run_id"] == runs[::-1], "newest first"
    assert table.columns["experiment_id"] == ["2", "2", "1", "1", "1", "1", "1"]
    assert table.columns["metrics.acc"] == ["NaN", 0.5, 0.4, None, 0.2, 0.1, 0.0]
    assert table.total == 7 and table.next_cursor is None and not table.stale and table.read_only_revision is None
    json.loads(table.model_dump_json())


def test_selected_columns_are_shown_in_their_order(project: Project, runs: list[str]) -> None:
    table = tracking.search(project, columns=["metrics.acc", "attributes.run_id", "params.absent", "params.*"], limit=1)
    assert list(table.columns) == ["metrics.acc", "run_id", "params.absent", "params.lr", "params.only here"]
    assert table.columns["params.absent"] == [None]
    assert list(tracking.search(project, columns=["tags.*"]).columns)[1] == "tags.mlflow.runName"


@pytest.mark.parametrize(
    ("column", "hint"), [("metric_acc", "params.x"), ("start_tim", "start_time"), ("parms.lr", "params"), ("job.stat", "state")]
)
def test_an_unknown_column_is_refused(project: Project, column: str, hint: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        tracking.search(project, columns=[column])
    assert hint in raised.value.hint


def test_experiments_by_name_or_id(project: Project, runs: list[str]) -> None:
    assert tracking.search(project, experiments=["iris"]).columns["run_id"] == runs[:4:-1]
    assert tracking.search(project, experiments=["2", "digits"]).total == 7
    assert tracking.search(project, experiments=[]).total == 0
    with pytest.raises(NotFound, match="digit") as raised:
        tracking.search(project, experiments=["digit"])
    assert "digits" in raised.value.hint
    assert [(e.name, e.runs) for e in tracking.list_experiments(project).items] == [("iris", 2), ("digits", 5), ("Default", 0)]


def test_deleted_runs_and_experiments(project: Project, client: MlflowClient, runs: list[str]) -> None:
    client.delete_run(runs[0])
    client.delete_experiment("2")
    assert tracking.search(project).total == 4
    assert set(tracking.search(project, view="deleted").columns["run_id"]) == {runs[0], *runs[5:]}
    assert tracking.search(project, view="all").total == 7
    assert [e.name for e in tracking.list_experiments(project).items] == ["digits", "Default"]
    assert tracking.run(project, runs[0]).lifecycle_stage == "deleted"


def test_all_pages_have_the_same_columns_and_each_run_once(project: Project, runs: list[str]) -> None:
    run_ids: list[object] = []
    cursor = None
    names: set[tuple[str, ...]] = set()
    for page in range(4):
        table = tracking.search(project, order_by=["metrics.acc DESC"], limit=2, cursor=cursor)
        names.add(tuple(table.columns))
        run_ids += table.columns["run_id"]
        cursor = table.next_cursor
        assert table.total == 7 and (cursor is None) == (page == 3)
    assert len(names) == 1
    assert run_ids == [runs[5], runs[4], runs[2], runs[1], runs[0], runs[6], runs[3]], "NaN after numbers, missing values last"


def test_a_new_run_between_two_pages_shifts_nothing(project: Project, client: MlflowClient, runs: list[str]) -> None:
    first = tracking.search(project, limit=3)
    client.create_run("1", start_time=5000)
    second = tracking.search(project, limit=10, cursor=first.next_cursor)
    assert [*first.columns["run_id"], *second.columns["run_id"]] == runs[::-1]


def test_a_cursor_stays_short_with_long_values(project: Project, client: MlflowClient) -> None:
    ids = []
    for number in range(5):
        run = client.create_run("0", start_time=number + 1)
        client.log_param(run.info.run_id, "text", "é" * 3000 + str(number % 2))
        ids.append(run.info.run_id)
    first = tracking.search(project, order_by=["params.text"], limit=3, columns=["run_id"])
    assert first.next_cursor is not None and len(first.next_cursor) < 512
    second = tracking.search(project, order_by=["params.text"], cursor=first.next_cursor, columns=["run_id"])
    assert [*first.columns["run_id"], *second.columns["run_id"]] == [ids[4], ids[2], ids[0], ids[3], ids[1]]


@pytest.mark.parametrize("cursor", ["x", "é", "W10", "bm90aGluZw", "eyJhIjoxfQ", "W1tbXV1d", "WyJ4IiwgWzFlOTk5LCAxLCAyLCAzXV0"])
def test_an_invalid_cursor_is_refused(project: Project, cursor: str) -> None:
    with pytest.raises(InvalidInput, match="cursor"):
        tracking.search(project, cursor=cursor)


def test_a_cursor_of_another_query_is_refused(project: Project, runs: list[str]) -> None:
    cursor = tracking.search(project, limit=1).next_cursor
    with pytest.raises(InvalidInput, match="another query"):
        tracking.search(project, cursor=cursor, filter="metrics.acc > 0")
    assert tracking.search(project, cursor=cursor, limit=2, columns=["run_id"]).total == 7, "size and columns may change"


def test_facts_of_tasks_filter_order_and_show(project: Project, runs: list[str]) -> None:
    for task, run_id in enumerate(runs[:3]):
        give_task(
            project, run_id, task, state=["failed", "succeeded", "succeeded"][task], elapsed_s=[5.0, 2.0, None][task], host="n1"
        )
    table = tracking.search(project)
    assert table.columns["job.state"] == [None] * 4 + ["succeeded", "succeeded", "failed"]
    assert "job.host" not in table.columns
    assert tracking.search(project, filter="job.elapsed_s > 3").columns["run_id"] == [runs[0]]
    assert tracking.search(project, filter="job.elapsed_s IS NULL AND job.job_id = 'j'").columns["run_id"] == [runs[2]]
    assert tracking.search(project, filter="job.state IN ('failed', 'x')").columns["job.task"] == [0]
    ordered = tracking.search(project, order_by=["job.elapsed_s"], columns=["run_id", "job.host"])
    assert ordered.columns["run_id"][:3] == [runs[1], runs[0], runs[6]]
    assert ordered.columns["job.host"][:3] == ["n1", "n1", None]
    assert next(iter(tracking.search(project, columns=["job.*"]).columns)) == "job.job_id"
    detail = tracking.run(project, runs[0])
    assert detail.job is not None and detail.job["state"] == "failed" and detail.job["elapsed_s"] == 5.0
    assert tracking.run(project, runs[4]).job is None


def test_one_run_has_everything_that_mlflow_logged(project: Project, client: MlflowClient, rows: Callable[..., None]) -> None:
    experiment = client.create_experiment("digits")
    run_id = client.create_run(experiment, run_name="best", start_time=1).info.run_id
    client.log_batch(
        run_id,
        [Metric("loss", value, 10 + step, step) for step, value in enumerate([3.0, 1.0, 1.0, 2.0])]
        + [Metric("odd", math.inf, 1, 0)],
        [Param("lr", "0.1")],
        [RunTag("lossi.dataset.digits", "v1")],
    )
    client.log_metric(run_id, "loss", math.nan, step=4)
    rows(
        "datasets",
        dataset_uuid="d",
        experiment_id=experiment,
        name="digits",
        digest="77",
        dataset_source_type="local",
        dataset_source="{}",
    )
    rows("inputs", input_uuid="i", source_type="DATASET", source_id="d", destination_type="RUN", destination_id=run_id)
    rows("input_tags", input_uuid="i", name="mlflow.data.context", value="train")
    model = client.create_logged_model(experiment, name="classifier", source_run_id=run_id, model_type="sklearn")
    client.set_terminated(run_id, end_time=9)
    detail = tracking.run(project, run_id)
    assert (detail.run_name, detail.experiment, detail.status, detail.start_time, detail.end_time) == (
        "best",
        "digits",
        "FINISHED",
        1,
        9,
    )
    assert detail.params == {"lr": "0.1"} and detail.tags["lossi.dataset.digits"] == "v1"
    loss = detail.metrics["loss"]
    assert (loss.last, loss.last_step, loss.min, loss.min_step, loss.max, loss.max_step, loss.count) == (
        "NaN",
        4,
        1.0,
        1,
        3.0,
        0,
        5,
    )
    assert detail.metrics["odd"].max == "Infinity"
    assert [(d.name, d.digest, d.context) for d in detail.datasets] == [("digits", "77", "train")]
    assert [(m.model_id, m.name) for m in detail.models] == [(model.model_id, "classifier")]
    with pytest.raises(NotFound, match="ffff"):
        tracking.run(project, "ffff")


def test_ids_may_be_shortened(project: Project, runs: list[str]) -> None:
    assert tracking.resolve(project, [runs[2][:12], runs[0]]) == [runs[2], runs[0]]
    with pytest.raises(NotFound, match="zzzzz") as raised:
        tracking.resolve(project, [runs[0], "zzzzz", runs[1][:3], "\ud800abcd"])
    assert raised.value.details["run_ids"] == ["zzzzz", runs[1][:3], "\ud800abcd"]


def test_csv_is_harmless_and_complete(project: Project, client: MlflowClient, runs: list[str]) -> None:
    client.log_param(runs[0], "-formula", "=1+1")
    client.set_tag(runs[1], "team", 'quote " comma , line\nbreak')
    client.log_metric(runs[1], "low", -math.inf)
    client.log_metric(runs[2], "low", -0.5)
    text = "".join(tracking.export(project, order_by=["start_time ASC"], format="csv"))
    header, *lines = csv.reader(io.StringIO(text, newline=""))
    assert len(lines) == 7 and [line[0] for line in lines] == runs
    cells = [dict(zip(header, line, strict=True)) for line in lines]
    assert cells[0]["params.-formula"] == "'=1+1"
    assert cells[1]["tags.team"] == 'quote " comma , line\nbreak'
    assert [row["metrics.low"] for row in cells[:3]] == ["", "-Infinity", "-0.5"]
    assert cells[6]["metrics.acc"] == "NaN" and float(cells[5]["metrics.acc"]) == 0.5


def test_json_export_is_one_document_in_pieces(project: Project, runs: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from lossi.tracking.query import exports

    monkeypatch.setattr(exports, "ROWS", 2)
    pieces = list(tracking.export(project, format="json", columns=["run_id", "metrics.*"], filter="metrics.acc != 7"))
    assert len(pieces) > 3
    records = json.loads("".join(pieces))
    assert [row["run_id"] for row in records] == [runs[i] for i in (6, 5, 4, 2, 1, 0)]
    assert records[0] == {"run_id": runs[6], "metrics.acc": "NaN"}
    assert json.loads("".join(tracking.export(project, format="json", filter="metrics.acc > 7"))) == []


def test_an_export_holds_no_lock_between_pieces(
    project: Project, client: MlflowClient, runs: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from lossi.tracking.query import exports

    monkeypatch.setattr(exports, "ROWS", 2)
    pieces = tracking.export(project, columns=["run_id"])
    next(pieces)
    code = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], timeout=0); c.execute('BEGIN EXCLUSIVE'); c.rollback()"
    subprocess.run([sys.executable, "-c", code, str(project.store)], check=True)
    assert "".join(pieces).count("\n") >= 5


@pytest.mark.parametrize(
    "question",
    [
        {"filter": "acc > 1"},
        {"columns": ["nothing"]},
        {"experiments": ["none"]},
        {"format": "xml"},
        {"filter": "params.a = '\ud800'"},
    ],
)
def test_an_invalid_export_fails_before_its_first_piece(project: Project, question: dict[str, object]) -> None:
    with pytest.raises((InvalidInput, NotFound)):
        tracking.export(project, **question)  # type: ignore[arg-type]


def test_public_names_are_functions_whichever_module_was_imported_first(tmp_path: Path) -> None:
    code = (
        "import lossi.tracking.ingest, lossi.tracking.query, lossi.tracking.query.exports; from lossi import tracking;"
        "assert all(callable(getattr(tracking, name)) for name in tracking.__all__ if name.islower()), dir(tracking);"
        "from lossi.tracking import ingest_runs; assert callable(ingest_runs)"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, cwd=tmp_path)


def test_five_thousand_runs_are_sorted_and_paged(project: Project, rows: Callable[..., None]) -> None:
    import sqlite3

    with sqlite3.connect(project.store) as connection:
        for number in range(5000):
            run = f"{number * 7919 % 5003:032x}"
            connection.execute(
                "INSERT INTO runs (run_uuid, name, status, start_time, lifecycle_stage, experiment_id) VALUES (?, 'r', 'FINISHED', ?, 'active', 0)",
                (run, number),
            )
            connection.executemany(
                "INSERT INTO latest_metrics (key, value, timestamp, step, is_nan, run_uuid) VALUES (?, ?, 1, 1, 0, ?)",
                [(f"m{k}", number * k % 101 / 7, run) for k in range(20)],
            )
            connection.executemany(
                "INSERT INTO params (key, value, run_uuid) VALUES (?, ?, ?)",
                [(f"p{k}", str(number % (k + 2)), run) for k in range(20)],
            )
    connection.close()
    page = tracking.search(project, order_by=["metrics.m3 DESC"], limit=100)
    assert page.columns["metrics.m3"] == sorted((number * 3 % 101 / 7 for number in range(5000)), reverse=True)[:100]
    assert len(tracking.search(project, limit=None).columns["run_id"]) == 5000

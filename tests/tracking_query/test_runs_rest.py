"""Runs over REST, from a store filled by MLflow's client."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator

import pytest
from flask.testing import FlaskClient
from mlflow import MlflowClient
from mlflow.entities import Metric

from lossi import projects
from lossi.api import security
from lossi.app import create_app

TOKEN = "t" * 43


@pytest.fixture
def web(project: projects.Project) -> Iterator[FlaskClient]:
    app = create_app(security.AuthMode(secret="s" * 32, token=TOKEN), project=project)
    with app.test_client() as web:
        web.environ_base.update({"HTTP_AUTHORIZATION": f"Bearer {TOKEN}", "HTTP_HOST": "127.0.0.1:8477"})
        yield web


@pytest.fixture
def runs(client: MlflowClient) -> list[str]:
    experiment = client.create_experiment("digits")
    ids = []
    for number in range(3):
        run_id = client.create_run(experiment, start_time=1 + number).info.run_id
        client.log_param(run_id, "lr", number)
        client.log_metric(run_id, "acc", [0.5, math.nan, math.inf][number])
        ids.append(str(run_id))
    return ids


def test_list_filter_order_columns_and_pages(web: FlaskClient, runs: list[str]) -> None:
    answer = web.get(
        "/api/v1/runs", query_string={"filter": "params.lr != '7'", "order_by": ["metrics.acc DESC", "run_id"], "limit": 2}
    )
    table = answer.get_json()
    assert answer.status_code == 200 and table["total"] == 3 and table["stale"] is False
    assert table["columns"]["run_id"] == [runs[2], runs[0]] and table["columns"]["metrics.acc"] == ["Infinity", 0.5]
    rest = web.get(
        "/api/v1/runs",
        query_string={
            "filter": "params.lr != '7'",
            "order_by": ["metrics.acc DESC", "run_id"],
            "cursor": table["next_cursor"],
            "columns": ["run_id", "metrics.*"],
        },
    ).get_json()
    assert rest["columns"] == {"run_id": [runs[1]], "metrics.acc": ["NaN"]} and rest["next_cursor"] is None
    unchanged = web.get("/api/v1/runs", headers={"If-None-Match": web.get("/api/v1/runs").headers["ETag"]})
    assert unchanged.status_code == 304


def test_experiments(web: FlaskClient, runs: list[str]) -> None:
    items = web.get("/api/v1/experiments").get_json()["items"]
    assert [(item["name"], item["runs"]) for item in items] == [("digits", 3), ("Default", 0)]
    assert web.get("/api/v1/runs", query_string={"experiments": ["Default"]}).get_json()["total"] == 0


@pytest.mark.parametrize(
    ("query", "status", "words"),
    [
        ({"filter": "metrics.acc >> 3"}, 422, "character 14"),
        ({"filter": "a\ud800".encode("utf-8", "surrogatepass")}, 422, ""),
        ({"order_by": ["acc"]}, 422, "order_by"),
        ({"columns": ["nothing"]}, 422, "not a column"),
        ({"cursor": "x"}, 422, "cursor"),
        ({"experiments": ["none"]}, 404, "none"),
        ({"view": "some"}, 422, "view"),
        ({"limit": 0}, 422, "limit"),
        ({"colums": ["run_id"]}, 422, "colums"),
    ],
)
def test_invalid_requests_are_problems_with_a_hint(
    web: FlaskClient, runs: list[str], query: dict[str, object], status: int, words: str
) -> None:
    answer = web.get("/api/v1/runs", query_string=query)  # type: ignore[arg-type]
    problem = answer.get_json()
    assert answer.status_code == status and answer.mimetype == "application/problem+json"
    assert words in problem["detail"] and problem["hint"]


def test_one_run(web: FlaskClient, runs: list[str]) -> None:
    run = web.get(f"/api/v1/runs/{runs[1]}").get_json()
    assert run["run_id"] == runs[1] and run["metrics"]["acc"]["last"] == "NaN" and run["params"] == {"lr": "1"}
    missing = web.get("/api/v1/runs/" + "0" * 32)
    assert missing.status_code == 404 and missing.get_json()["run_ids"] == ["0" * 32]


def test_compare_and_history(web: FlaskClient, client: MlflowClient, runs: list[str]) -> None:
    compared = web.post("/api/v1/runs/compare", json={"run_ids": runs[:2]}).get_json()
    assert compared["differing"] == {"params.lr": ["0", "1"]} and compared["metrics"]["acc"]["last"] == [0.5, "NaN"]
    unknown = web.post("/api/v1/runs/compare", json={"run_ids": [runs[0], "nope"]})
    assert unknown.status_code == 404 and unknown.get_json()["run_ids"] == ["nope"]
    client.log_batch(runs[0], [Metric("loss", 1 / (1 + step), step, step) for step in range(50)])
    histories = web.post("/api/v1/metrics/history", json={"run_ids": runs, "keys": ["loss"], "buckets": 10}).get_json()
    [series] = histories["series"]
    assert series["run_id"] == runs[0] and len(series["x"]) == 10 and sum(series["count"]) == 50 and series["exact"] is False
    assert web.post("/api/v1/metrics/history", json={"run_ids": [], "keys": ["loss"]}).status_code == 422


def test_export(web: FlaskClient, runs: list[str]) -> None:
    answer = web.get("/api/v1/runs/export", query_string={"order_by": "start_time ASC", "columns": ["run_id", "metrics.acc"]})
    assert answer.mimetype == "text/csv" and answer.headers["Content-Disposition"].startswith(
        'attachment; filename="a project-runs.csv"'
    )
    assert list(csv.reader(io.StringIO(answer.text))) == [
        ["run_id", "metrics.acc"],
        [runs[0], "0.5"],
        [runs[1], "NaN"],
        [runs[2], "Infinity"],
    ]
    rows = json.loads(web.get("/api/v1/runs/export", query_string={"format": "json"}).data)
    assert [row["run_id"] for row in rows] == runs[::-1]
    assert web.get("/api/v1/runs/export", query_string={"filter": "acc > 1"}).status_code == 422


def test_artifacts_are_sent_inert(web: FlaskClient, client: MlflowClient) -> None:
    run_id = client.create_run("0").info.run_id
    client.log_text(run_id, "<script>fetch('/api/v1/jobs')</script>", "page/evil.html")
    client.log_text(run_id, "0123456789", "numbers.txt")
    base = f"/api/v1/runs/{run_id}/artifacts"
    assert [(item["name"], item["kind"]) for item in web.get(base).get_json()["items"]] == [
        ("page", "folder"),
        ("numbers.txt", "file"),
    ]
    evil = web.get(f"{base}/content", query_string={"path": "page/evil.html"})
    assert evil.status_code == 200 and evil.headers["Content-Disposition"].startswith("attachment")
    assert "html" not in evil.headers["Content-Type"] and evil.headers["Content-Security-Policy"].startswith("sandbox")
    assert evil.headers["X-Content-Type-Options"] == "nosniff"
    whole = web.get(f"{base}/content", query_string={"path": "numbers.txt"})
    assert whole.data == b"0123456789" and whole.content_length == 10
    part = web.get(f"{base}/content", query_string={"path": "numbers.txt"}, headers={"Range": "bytes=2-4"})
    assert (part.status_code, part.data, part.headers["Content-Range"]) == (206, b"234", "bytes 2-4/10")
    same = web.get(f"{base}/content", query_string={"path": "numbers.txt"}, headers={"If-None-Match": whole.headers["ETag"]})
    assert same.status_code == 304
    for path, status in (("../../../mlflow.db", 403), ("/etc/passwd", 403), ("nothing", 404), ("page", 422)):
        assert web.get(f"{base}/content", query_string={"path": path}).status_code == status, path
    assert web.get(base, query_string={"path": ".."}).status_code == 403

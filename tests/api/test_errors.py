"""Every error is a problem document that says what to do."""

from __future__ import annotations

import json

import pytest
from flask.testing import FlaskClient

from lossi import jobs, projects


def test_unexpected_error_shows_an_incident_and_no_traceback(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("an internal detail")

    monkeypatch.setattr(jobs, "list_jobs", broken, raising=False)
    answer = client.get("/api/v1/jobs")
    assert answer.status_code == 500
    assert "internal detail" not in answer.get_data(as_text=True) and "Traceback" not in answer.get_data(as_text=True)
    incident = answer.get_json()["incident"]
    assert incident in capsys.readouterr().err


def test_unknown_path_and_method_are_problem_documents(client: FlaskClient) -> None:
    for answer, status in ((client.get("/api/v1/nowhere"), 404), (client.delete("/api/v1/jobs", json={}), 405)):
        assert answer.status_code == status
        assert answer.mimetype == "application/problem+json"
        assert answer.get_json()["status"] == status


def test_browser_gets_a_page(client: FlaskClient) -> None:
    answer = client.get("/nowhere", headers={"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    assert answer.status_code == 404 and answer.mimetype == "text/html"
    assert "<h1>Not Found</h1>" in answer.get_data(as_text=True)
    assert client.get("/nowhere").mimetype == "application/problem+json"


def test_unknown_field_of_a_job_is_named(client: FlaskClient) -> None:
    answer = client.post("/api/v1/jobs", json={"notebok": "train.ipynb"})
    assert answer.status_code == 422
    assert any("notebok" in item["field"] for item in answer.get_json()["errors"])


def test_misspelt_parameter_gets_a_hint(client: FlaskClient, project: projects.Project) -> None:
    notebook = json.loads((project.root / "train.ipynb").read_text())
    notebook["cells"][0]["source"] = "learning_rate: float = 0.1"
    (project.root / "train.ipynb").write_text(json.dumps(notebook))
    answer = client.post("/api/v1/jobs/preview", json={"notebook": "train.ipynb", "parameters": {"learnin_rate": 1.0}})
    assert answer.status_code == 422
    assert "learning_rate" in json.dumps(answer.get_json())


def test_unchanged_response_has_no_body(client: FlaskClient) -> None:
    first = client.get("/api/v1/jobs")
    again = client.get("/api/v1/jobs", headers={"If-None-Match": first.headers["ETag"]})
    assert again.status_code == 304 and not again.data


def test_project_outside_the_roots_is_not_found(client: FlaskClient) -> None:
    answer = client.get("/api/v1/jobs", query_string={"project": "/etc"})
    assert answer.status_code == 404

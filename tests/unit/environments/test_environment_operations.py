"""``GET /environments`` and ``GET /environments/{name}``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from lossi.api import security
from lossi.app import create_app


@pytest.fixture
def client(home: Path) -> FlaskClient:
    return create_app(security.AuthMode(secret="s" * 32)).test_client()


def test_list_holds_every_environment_with_its_ways(client: FlaskClient, user_catalog: Callable[[str], Path]) -> None:
    user_catalog("environments:\n  wrong: {title: T}\n  mine: {title: Mine, local: {python: auto}}\n")
    answer = client.get("/api/v1/environments")
    assert answer.status_code == 200
    data = answer.get_json()
    assert [item["name"] for item in data["environments"]] == ["python", "sklearn", "pytorch", "tensorflow", "mine"]
    assert data["environments"][1]["ways"][0]["variant"] == "local"
    assert (data["problems"][0]["line"], data["problems"][0]["key"]) == (2, "environments.wrong")


def test_one_environment_and_the_answers_to_wrong_names(client: FlaskClient, user_catalog: Callable[[str], Path]) -> None:
    user_catalog("environments:\n  wrong: {title: T}\n")
    assert client.get("/api/v1/environments/pytorch").get_json()["variants"]["x86_64"]["rocm"]["frameworks"] == {
        "torch": "2.10.0"
    }
    missing = client.get("/api/v1/environments/sklaern")
    assert (missing.status_code, missing.mimetype) == (404, "application/problem+json")
    assert "did you mean 'sklearn'?" in missing.get_json()["hint"]
    assert client.get("/api/v1/environments/wrong").status_code == 422
    assert client.get("/api/v1/environments/%00%0A$(id)").status_code == 404
    assert client.get(f"/api/v1/environments/{'x' * 201}").status_code == 422


def test_environments_of_a_project_are_offered_in_it(client: FlaskClient, tmp_path: Path) -> None:
    from lossi import projects

    folder = tmp_path / "project"
    folder.mkdir()
    project = projects.init(folder)
    (project.home / "catalog.yml").write_text("environments: {ours: {title: Ours, local: {python: auto}}}\n", "utf-8")
    assert client.get("/api/v1/environments/ours").status_code == 404
    answer = client.get("/api/v1/environments/ours", query_string={"project": str(project.root)})
    assert (answer.status_code, answer.get_json()["source"]) == (200, "project")


def test_answers_are_documented(client: FlaskClient) -> None:
    paths = client.application.api_doc["paths"]  # type: ignore[attr-defined]
    assert set(paths) >= {"/api/v1/environments", "/api/v1/environments/{name}"}

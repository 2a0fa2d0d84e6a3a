"""``/api/v1/notebooks`` through the web application, on a real project."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from lossi import projects
from lossi.api import notebooks as resource, security
from lossi.app import create_app
from lossi.notebooks.document import LIMIT_BYTES

TOKEN = "t" * 43


@pytest.fixture
def project(home: Path, tmp_path: Path, notebook: Any) -> projects.Project:
    folder = tmp_path / "my project 100%20?"
    folder.mkdir()
    (folder / "train é.ipynb").write_bytes(notebook("md:# Digits", ("lr = float('inf')  # rate", "parameters"), "print(1)"))
    return projects.init(folder)


@pytest.fixture
def client(project: projects.Project) -> Iterator[FlaskClient]:
    with create_app(security.AuthMode(secret="s" * 32, token=TOKEN), project=project).test_client() as client:
        client.environ_base.update({"HTTP_AUTHORIZATION": f"Bearer {TOKEN}", "HTTP_HOST": "127.0.0.1:8477"})
        yield client


def get(client: FlaskClient, operation: str, path: str, **query: str) -> Any:
    return client.get(f"/api/v1/notebooks/{operation}", query_string={"path": path, **query})


def rendered(client: FlaskClient, path: str) -> Any:
    """Ask until the page is there."""
    deadline = time.monotonic() + 300
    while True:
        answer = get(client, "render", path)
        if answer.status_code != 202 or time.monotonic() > deadline:
            return answer
        assert answer.headers["Retry-After"] == "1"
        assert 'http-equiv="refresh"' in answer.text
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


def test_parameters(client: FlaskClient, project: projects.Project) -> None:
    for query in ({}, {"project": str(project.root)}, {"project": project.name}):
        answer = get(client, "parameters", "train é.ipynb", **query)
        assert answer.status_code == 200, answer.text
        assert answer.json["title"] == "Digits"
        assert (answer.json["language"], answer.json["kernel"], answer.json["cell_index"]) == ("python", "python3", 1)
        (item,) = answer.json["parameters"]
        assert (item["name"], item["type"], item["default"], item["comment"]) == ("lr", "float", "Infinity", "rate")


def test_page_is_in_a_sandbox(client: FlaskClient) -> None:
    answer = rendered(client, "train é.ipynb")
    assert answer.status_code == 200
    assert answer.content_type == "text/html; charset=utf-8"
    assert answer.headers["Content-Security-Policy"] == "sandbox"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "Digits" in answer.text
    again = client.get(
        "/api/v1/notebooks/render", query_string={"path": "train é.ipynb"}, headers={"If-None-Match": answer.headers["ETag"]}
    )
    assert again.status_code == 304
    assert again.headers["Content-Security-Policy"] == "sandbox"


def test_slow_page_is_not_waited_for(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "WAIT_S", 0.01)
    assert get(client, "render", "train é.ipynb").status_code == 202
    assert rendered(client, "train é.ipynb").status_code == 200


@pytest.mark.parametrize("operation", ["parameters", "render"])
@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("../secret.ipynb", 403), ("a/../../secret.ipynb", 403), ("/etc/passwd.ipynb", 403), ("link.ipynb", 403), ("folder-link/secret.ipynb", 403),
        ("no.ipynb", 404), ("a\0b.ipynb", 403), ("folder.ipynb", 422), ("data.csv", 422), ("broken.ipynb", 422), ("old.ipynb", 422), ("", 422),
        ("%2e%2e/secret.ipynb", 404), ("x" * 5000 + ".ipynb", 422), ("pipe.ipynb", 403),
    ],
)  # fmt: skip
def test_only_notebooks_of_the_project(
    client: FlaskClient, project: projects.Project, notebook: Any, operation: str, path: str, status: int
) -> None:
    import os

    secret = project.root.parent / "secret.ipynb"
    secret.write_bytes(notebook("SECRET = 1"))
    (project.root / "link.ipynb").symlink_to(secret)
    (project.root / "folder-link").symlink_to(secret.parent)
    (project.root / "folder.ipynb").mkdir()
    (project.root / "a").mkdir()
    (project.root / "broken.ipynb").write_bytes(b"{")
    (project.root / "old.ipynb").write_bytes(b'{"nbformat": 3}')
    os.mkfifo(project.root / "pipe.ipynb")
    answer = get(client, operation, path)
    deadline = time.monotonic() + 300
    while answer.status_code == 202 and time.monotonic() < deadline:
        answer = get(client, operation, path)
    assert answer.status_code == status, answer.text
    assert answer.content_type == "application/problem+json"
    assert "SECRET" not in answer.text
    assert "Traceback" not in answer.text
    assert answer.json["hint"]


def test_large_notebook_is_refused(client: FlaskClient, project: projects.Project) -> None:
    with (project.root / "huge.ipynb").open("wb") as stream:
        stream.truncate(LIMIT_BYTES + 1)
    for operation in ("parameters", "render"):
        answer = get(client, operation, "huge.ipynb")
        assert (answer.status_code, "too large" in answer.json["detail"]) == (422, True)


def test_responses_match_the_openapi_document(client: FlaskClient) -> None:
    described = client.get("/api/v1/openapi.json").json
    assert {"/api/v1/notebooks/parameters", "/api/v1/notebooks/render"} <= set(described["paths"])
    schema = described["components"]["schemas"]["NotebookParameters"]
    answer = get(client, "parameters", "train é.ipynb").json
    assert set(answer) == set(schema["properties"])
    json.dumps(answer, allow_nan=False)

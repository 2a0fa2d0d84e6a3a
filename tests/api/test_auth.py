"""Authentication, and what a page of another site cannot do."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from lossi import projects
from lossi.api import security
from lossi.app import create_app


@pytest.fixture
def anonymous(project: projects.Project, auth: security.AuthMode) -> FlaskClient:
    client = create_app(auth, project=project).test_client()
    client.environ_base["HTTP_HOST"] = "127.0.0.1:8477"
    return client


def test_without_token_every_operation_is_refused_with_a_hint(anonymous: FlaskClient) -> None:
    for path in ("/", "/api/v1/health", "/api/v1/jobs", "/api/v1/openapi.json", "/api/v1/docs/"):
        answer = anonymous.get(path)
        assert answer.status_code == 401
        assert answer.mimetype == "application/problem+json"
        assert "lossi serve --link" in answer.get_json()["hint"]


def test_wrong_token_is_refused(anonymous: FlaskClient) -> None:
    assert anonymous.get("/api/v1/health", headers={"Authorization": "Bearer " + "u" * 43}).status_code == 401
    assert anonymous.get("/api/v1/health", headers={"Authorization": "Basic " + "t" * 43}).status_code == 401


def test_link_works_once(anonymous: FlaskClient, project: projects.Project, auth: security.AuthMode) -> None:
    code = security.new_code()
    first = anonymous.get(f"/?code={code}")
    assert first.status_code == 303
    assert code not in first.headers["Location"]
    assert anonymous.get("/api/v1/health").status_code == 200
    other = create_app(auth, project=project).test_client()
    other.environ_base["HTTP_HOST"] = "127.0.0.1:8477"
    assert other.get(f"/?code={code}").status_code == 401


def test_link_expires(anonymous: FlaskClient) -> None:
    code = security.new_code()
    for path in security.token_file().parent.glob("code-*"):
        old = time.time() - security.CODE_LIFETIME_S - 1
        os.utime(path, (old, old))
    assert anonymous.get(f"/?code={code}").status_code == 401


def test_code_and_token_files_are_private_and_hold_no_code(home: Path) -> None:
    code = security.new_code()
    security.token_mode()
    for path in security.token_file().parent.iterdir():
        assert path.stat().st_mode & 0o077 == 0
        assert code not in path.name and code not in path.read_text()
    assert security.token_file().parent.stat().st_mode & 0o077 == 0


def test_other_host_names_are_refused(client: FlaskClient) -> None:
    answer = client.get("/api/v1/health", headers={"Host": "evil.example:8477"})
    assert answer.status_code == 403


def test_browser_session_needs_the_csrf_token_for_writes(anonymous: FlaskClient) -> None:
    anonymous.get(f"/?code={security.new_code()}")
    assert anonymous.post("/api/v1/jobs", json={"command": ["true"]}).status_code == 403
    token = anonymous.get("/api/v1/session").get_json()["csrf_token"]
    answer = anonymous.post("/api/v1/jobs/preview", json={"notebook": "train.ipynb"}, headers={"X-CSRF-Token": token})
    assert answer.status_code == 200, answer.get_json()


def test_portal_mode_needs_the_csrf_token_too(project: projects.Project) -> None:
    client = create_app(security.AuthMode(secret="s" * 32), project=project).test_client()
    assert client.get("/api/v1/jobs").status_code == 200
    assert client.post("/api/v1/jobs", json={"command": ["true"]}).status_code == 403


def test_writes_from_other_sites_and_with_form_types_are_refused(client: FlaskClient) -> None:
    answer = client.post("/api/v1/jobs", json={"command": ["true"]}, headers={"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 403
    assert client.post("/api/v1/jobs", data={"command": "true"}).status_code == 415
    assert client.post("/api/v1/jobs", data="{}", content_type="text/plain").status_code == 415


def test_every_response_has_the_security_headers(client: FlaskClient) -> None:
    for path in ("/", "/api/v1/health", "/api/v1/nowhere", "/static/start.css"):
        headers = client.get(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "unsafe-inline" not in headers["Content-Security-Policy"]


def test_session_cookie_is_http_only_strict_and_below_the_mount(project: projects.Project, auth: security.AuthMode) -> None:
    client = create_app(auth, project=project).test_client()
    mounted = {"HTTP_HOST": "127.0.0.1:8477", "SCRIPT_NAME": "/pun/sys/lossi"}
    cookie = client.get(f"/?code={security.new_code()}", environ_overrides=mounted).headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and "Path=/pun/sys/lossi/" in cookie


def test_pages_link_below_the_mount(project: projects.Project) -> None:
    client = create_app(security.AuthMode(secret="s" * 32), project=project).test_client()
    for path in ("/", "/api/v1/docs/"):
        text = client.get(path, environ_overrides={"SCRIPT_NAME": "/pun/sys/lossi"}).get_data(as_text=True)
        for link in re.findall(r'(?:href|src|data-\w+)="(/[^"]*)"', text):
            assert link.startswith("/pun/sys/lossi/"), link

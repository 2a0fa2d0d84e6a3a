"""Which files Open OnDemand's nginx sends."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from flask import Flask, Response

from lossi.api import sending

NGINX = {"SERVER_SOFTWARE": "nginx/1.28.0 Phusion_Passenger/6.1.2"}


@pytest.fixture
def portal(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PASSENGER_BASE_URI", "/pun/sys/lossi")
    monkeypatch.setenv("ONDEMAND_VERSION", "4.2.3")
    monkeypatch.setattr(sending, "HANDED_OVER_BYTES", 10)


def sent(path: Path, **environ: str) -> Response:
    with Flask("test").test_request_context("/", environ_base=environ):
        answer = sending.file(os.open(path, os.O_RDONLY), path.name)
        answer.direct_passthrough = False
        answer.get_data()
        return answer


def test_the_portals_nginx_gets_the_path_and_the_browser_an_attachment(portal: None, tmp_path: Path) -> None:
    path = tmp_path / "a b%?#ü.html"
    path.write_bytes(b"x" * 10)
    answer = sent(path, **NGINX)
    assert answer.headers["X-Accel-Redirect"] == f"/sendfile{tmp_path}/a%20b%25%3F%23%C3%BC.html"
    assert answer.headers["Content-Disposition"].startswith("attachment; ") and answer.get_data() == b""


def test_small_files_and_other_servers_get_the_content(portal: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"x" * 9)
    assert sent(path, **NGINX).get_data() == b"x" * 9
    path.write_bytes(b"x" * 10)
    assert sent(path, SERVER_SOFTWARE="Apache/2.4.62 (Debian) Phusion_Passenger/6.0.17").get_data() == b"x" * 10
    monkeypatch.setenv("LOSSI_ACCEL_REDIRECT", "")
    assert sent(path, **NGINX).get_data() == b"x" * 10


def test_swapped_files_and_files_outside_the_sites_folders_are_not_handed_over(
    portal: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"x" * 10)
    with Flask("test").test_request_context("/", environ_base=NGINX):
        descriptor = os.open(path, os.O_RDONLY)
        path.unlink()
        path.write_bytes(b"y" * 10)
        answer = sending.file(descriptor, "a.txt")
        answer.direct_passthrough = False
        assert "X-Accel-Redirect" not in answer.headers and answer.get_data() == b"x" * 10
    monkeypatch.setenv("OOD_ALLOWLIST_PATH", str(tmp_path / "elsewhere"))
    assert "X-Accel-Redirect" not in sent(path, **NGINX).headers

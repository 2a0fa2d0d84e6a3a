"""Large files sent by Debian's nginx, set up like Open OnDemand's: by X-Accel-Redirect, always as attachments."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import host
import httpx
import pytest
from passenger import free_port, until

from lossi import projects
from lossi.api import security
from lossi.api.sending import HANDED_OVER_BYTES

NGINX = host.which("nginx")
pytestmark = pytest.mark.skipif(NGINX is None, reason="no nginx on this machine (tests/provision.sh)")

NAMES = ["big model 100%.bin", "page.html", "run ünïcode;?#.log", "line\nbreak.png"]
LOGGED = """
import sys
import mlflow
from pathlib import Path
store, artifacts = sys.argv[1:3]
mlflow.set_tracking_uri("sqlite:///" + store)
mlflow.set_experiment(experiment_id=mlflow.create_experiment("files", artifact_location=artifacts))
with mlflow.start_run() as run:
    mlflow.log_param("a", 1)
    print(run.info.run_id, run.info.artifact_uri)
"""


@dataclass(frozen=True)
class Site:
    """nginx before `lossi serve`, and a run with artifacts."""

    client: httpx.Client
    project: projects.Project
    run_id: str
    folder: Path
    environment: dict[str, str]
    """That of its `lossi serve`."""

    def content(self, name: str, **headers: str) -> httpx.Response:
        ask = {"path": name}
        return self.client.get(f"/api/v1/runs/{self.run_id}/artifacts/content", params=ask, headers=headers)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    place = tmp_path_factory.mktemp("accel")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
            (place / name.lower()).mkdir()
            patch.setenv(name, str(place / name.lower()))
        patch.setenv("LOSSI_SITE", str(place / "no-site.yml"))
        yield from _site(place)


def _site(place: Path) -> Iterator[Site]:
    project = projects.init(place / "project")
    argv = [sys.executable, "-c", LOGGED, str(project.home / "mlflow.db"), str(project.artifacts)]
    logged = subprocess.run(
        argv, capture_output=True, text=True, check=True, env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"}
    )
    run_id, uri = logged.stdout.split()[-2:]
    folder = Path(uri.removeprefix("file://"))
    folder.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        (folder / name).write_bytes(bytes(range(256)) * (HANDED_OVER_BYTES // 256) + b"end")
    (folder / "small.txt").write_text("small")
    with contextlib.ExitStack() as stack:
        upstream = stack.enter_context(served(project, {"LOSSI_ACCEL_REDIRECT": "/sendfile"}))
        before = stack.enter_context(nginx(place / "nginx", upstream))
        token = security.token_file().read_text().strip()
        client = httpx.Client(
            base_url=f"http://127.0.0.1:{before}", trust_env=False, headers={"Authorization": f"Bearer {token}"}, timeout=300
        )
        yield Site(stack.enter_context(client), project, run_id, folder, dict(os.environ))


@contextlib.contextmanager
def served(project: projects.Project, settings: dict[str, str]) -> Iterator[int]:
    """Run `lossi serve` for a project and yield its port."""
    argv = [sys.executable, "-m", "lossi", "serve", "--port", "0"]
    environment = {**os.environ, **settings, "PYTHONUNBUFFERED": "1"}
    server = subprocess.Popen(argv, cwd=project.root, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        assert server.stdout is not None
        match = next(match for line in server.stdout if (match := re.search(r"http://127\.0\.0\.1:(\d+)/\?code=", line)))
        until(lambda: _listens(int(match[1])), "it listens")
        yield int(match[1])
    finally:
        server.terminate()
        server.communicate(timeout=300)


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@contextlib.contextmanager
def nginx(folder: Path, upstream: int) -> Iterator[int]:
    """Run an nginx with the internal location that Open OnDemand's has, and yield its port."""
    assert NGINX is not None
    folder.mkdir()
    port = free_port()
    user = "user root;" if os.geteuid() == 0 else ""  # in the portal, nginx runs as the user, like the app
    temporary = "".join(f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    (folder / "nginx.conf").write_text(
        f"""{user} daemon off; pid {folder}/pid; error_log {folder}/error.log;
        events {{}}
        http {{
          access_log off; {temporary}
          server {{
            listen 127.0.0.1:{port};
            location / {{ proxy_pass http://127.0.0.1:{upstream}; proxy_set_header Host 127.0.0.1; }}
            location ^~ /sendfile {{ internal; alias /; }}
          }}
        }}"""
    )
    server = subprocess.Popen([NGINX, "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log")], cwd="/")
    try:
        until((folder / "pid").exists, "nginx runs")
        yield port
    finally:
        server.terminate()
        server.wait(300)


def test_nginx_sends_large_files_whole_and_as_attachments(site: Site) -> None:
    for name in NAMES:
        answer = site.content(name)
        assert answer.status_code == 200 and answer.content == (site.folder / name).read_bytes(), name
        assert answer.headers["Server"].startswith("nginx") and answer.headers["ETag"].count("-") == 1
        assert "X-Accel-Redirect" not in answer.headers
        disposition = answer.headers["Content-Disposition"]
        assert disposition.startswith("attachment; ") and f"filename*=UTF-8''{quote(name, safe='!#$&+-.^_`|~')}" in disposition
        assert "html" not in answer.headers["Content-Type"]
    small = site.content("small.txt")
    assert small.text == "small" and small.headers["Content-Disposition"].startswith("inline")
    assert "sandbox" in small.headers["Content-Security-Policy"]


def test_ranges_of_large_files_are_served(site: Site) -> None:
    name = NAMES[0]
    whole = (site.folder / name).read_bytes()
    part = site.content(name, Range="bytes=1000-1999")
    assert (part.status_code, part.content) == (206, whole[1000:2000])
    assert part.headers["Content-Range"] == f"bytes 1000-1999/{len(whole)}"
    assert part.headers["Content-Disposition"].startswith("attachment; ")
    assert site.content(name, Range="bytes=-3").content == b"end"
    assert site.content(name, Range=f"bytes={len(whole)}-").status_code == 416
    tag = site.content(name).headers["ETag"]
    assert site.content(name, **{"If-None-Match": tag}).status_code == 304


def test_no_file_outside_the_run_is_sent(site: Site, tmp_path: Path) -> None:
    outside = tmp_path / "outside.bin"
    outside.write_bytes(bytes(HANDED_OVER_BYTES))
    (site.folder / "link.bin").symlink_to(outside)
    for name in ("link.bin", "../../outside.bin", str(outside), "../../../../outside.bin", "%2e%2e/outside.bin"):
        assert site.content(name).status_code in (403, 404), name
    for path in (f"/sendfile{outside}", f"/sendfile/{outside}", f"/%73endfile{outside}"):
        assert site.client.get(path).status_code == 404, "the location is for nginx alone"


def test_without_that_nginx_location_the_process_sends_the_file(site: Site) -> None:
    settings = {**site.environment, "PASSENGER_BASE_URI": "/pun/sys/lossi", "ONDEMAND_VERSION": "4.2.3"}
    with served(site.project, settings) as port:
        place = f"http://127.0.0.1:{port}/api/v1/runs/{site.run_id}/artifacts/content"
        answer = httpx.get(place, params={"path": NAMES[0]}, headers=dict(site.client.headers), trust_env=False)
        assert answer.content == (site.folder / NAMES[0]).read_bytes() and "X-Accel-Redirect" not in answer.headers

"""Nobody gets past the gate of an MLflow session without its secret, and what is behind shows nothing but the store's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import mlflow_store
import pytest
from batch_connect import Proxied
from passenger import free_port, until

from lossi.mlflow_ui import gate
from lossi.projects import Project
from lossi.tracking import lease

pytestmark = pytest.mark.slow

SECRET = "0123456789abcdefABCDEF0123456789"
SEARCH = "api/2.0/mlflow/runs/search"


@dataclass(frozen=True)
class Running:
    """A session on the loopback, and what is in its store."""

    proxied: Proxied
    project: Project
    folder: Path
    ids: dict[str, Any]
    process: int
    environment: dict[str, str]

    def program(self, token: str = SECRET) -> httpx.Client:
        """Return a client on the cluster."""
        base = f"http://localhost:{self.proxied.port}{self.proxied.base}"
        return httpx.Client(base_url=base, headers={"Authorization": f"Bearer {token}"}, timeout=60, trust_env=False)

    def browser(self) -> httpx.Client:
        """Return a browser that has used the card's button."""
        headers = {"Origin": "https://portal.example", "Sec-Fetch-Site": "same-origin"}
        with self.proxied.browser(**headers) as card:
            done = card.post("lossi-login", data={"secret": SECRET})
        assert done.status_code == 303, done.text
        # httpx keeps no Secure cookie over http; a browser speaks https with the portal.
        return self.proxied.browser(Cookie=done.headers["Set-Cookie"].partition(";")[0], **headers)

    def search(self, client: httpx.Client) -> httpx.Response:
        return client.post(SEARCH, json={"experiment_ids": [self.ids["experiment"]]})


def start(folder: Path, store: Path, environment: dict[str, str]) -> tuple[subprocess.Popen[bytes], int, str]:
    """Start a session as its job does and return its process, its port and the mode."""
    folder.mkdir(mode=0o700)
    (folder / "user_defined_context.json").write_text(json.dumps({"store": str(store)}))
    secret = {"LOSSI_SESSION_SECRET": SECRET, "LOSSI_SESSION_HOST": "localhost", "LOSSI_SESSION_PORT": str(free_port())}
    with (folder / "output.log").open("wb") as output:
        argv = [sys.executable, "-I", "-m", "lossi.mlflow_ui.session", str(folder)]
        process = subprocess.Popen(argv, env={**environment, **secret}, stdout=output, stderr=output)

    def ready() -> bool:
        assert process.poll() is None, (folder / "output.log").read_text()
        return (folder / "ready").exists()

    try:
        until(ready, "the session is ready", 180)
    except BaseException:
        process.kill()
        process.wait()
        raise
    port, mode = (folder / "ready").read_text().split()
    return process, int(port), mode


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("mlflow")
    (folder / "private").mkdir()
    (folder / "private" / "secret.txt").write_text("private")
    environment = {"PATH": os.defpath, "HOME": str(folder / "home"), "TMPDIR": str(folder / "home")}
    (folder / "home").mkdir()
    project = Project(folder / "project")
    ids = mlflow_store.logged(project.root, folder / "private" / "secret.txt", environment)
    process, port, mode = start(folder / "session", project.root, environment)
    try:
        assert mode == "writable", (folder / "session" / "output.log").read_text()
        yield Running(Proxied("localhost", port), project, folder / "session", ids, process.pid, environment)
    finally:
        stop(process)


# -- who gets in --------------------------------------------------------------------------------------------------------


def test_nothing_is_answered_without_the_secret(running: Running) -> None:
    with running.proxied.browser() as stranger:
        for path in ("", "health", "version", "static-files/index.html", "graphql", "get-artifact?run_uuid=x&path=y", "../../x"):
            assert stranger.get(path).status_code == 403, path
        assert running.search(stranger).status_code == 403
        assert stranger.get(f"http://localhost:{running.proxied.port}/").status_code == 403
        page = stranger.get("", headers={"Accept": "text/html"})
        assert page.status_code == 403 and f'action="{running.proxied.base}lossi-login"' in page.text
        assert "default-src 'none'" in page.headers["Content-Security-Policy"]


@pytest.mark.parametrize("wrong", ["", "0", SECRET[:-1], SECRET + "0", SECRET.lower(), "ä" * 32])
def test_a_wrong_secret_opens_nothing_in_any_way(running: Running, wrong: str) -> None:
    with running.proxied.browser() as stranger:
        refused = stranger.post("lossi-login", data={"secret": wrong})
        assert refused.status_code == 403 and "Set-Cookie" not in refused.headers
        name = gate.SecretGate(lambda environ, start: [], SECRET, running.proxied.base)._name
        for value in (wrong, SECRET):  # the secret is not the cookie
            cookie = f"{name}={value}".encode()
            assert stranger.get("version", headers=[(b"Cookie", cookie)]).status_code == 403
        assert stranger.get("version", headers=[(b"Authorization", b"Bearer " + (wrong or "x").encode())]).status_code == 403
        assert stranger.get("version", params={"secret": SECRET, "token": SECRET}).status_code == 403


def test_the_cards_form_becomes_a_cookie_that_is_not_the_secret(running: Running) -> None:
    with running.proxied.browser() as browser:
        done = browser.post("lossi-login", data={"secret": SECRET})
        assert (done.status_code, done.headers["Location"]) == (303, running.proxied.base)
        cookie = done.headers["Set-Cookie"]
        assert SECRET not in cookie
        assert cookie.split("; ")[1:] == [f"Path={running.proxied.base.rstrip('/')}", "HttpOnly", "SameSite=Strict", "Secure"]
    with running.browser() as browser:
        assert "<title>MLflow</title>" in browser.get("").text
        found = running.search(browser)
        assert found.status_code == 200, found.text
        assert [run["info"]["run_id"] for run in found.json()["runs"]] == [running.ids["run"]]
        assert browser.get(str(browser.base_url).rstrip("/")).headers["Location"] == running.proxied.base


def test_programs_on_the_cluster_use_the_token(running: Running) -> None:
    with running.program() as program:
        assert program.get("version").text == "3.17.2"
        assert running.search(program).status_code == 200
    code = "import mlflow, sys; print(mlflow.MlflowClient().get_run(sys.argv[1]).data.metrics['loss'])"
    address = f"http://localhost:{running.proxied.port}{running.proxied.base.rstrip('/')}"
    told = {**running.environment, "MLFLOW_TRACKING_URI": address, "MLFLOW_TRACKING_TOKEN": SECRET}
    assert mlflow_store.python(code, running.ids["run"], **told) == "0.5"


def test_secrets_are_compared_in_constant_time_and_must_be_long() -> None:
    assert gate.is_same(SECRET, SECRET) and not gate.is_same("\udcff", SECRET) and not gate.is_same("", SECRET)
    assert "compare_digest" in gate.is_same.__code__.co_names
    with pytest.raises(ValueError, match="too short"):
        gate.SecretGate(lambda environ, start: [], "short", "/node/a/1")


def test_a_form_that_is_not_the_cards_is_not_read(running: Running) -> None:
    with running.proxied.browser() as stranger:
        assert stranger.post("lossi-login", content=b"secret=" + b"x" * 5000).status_code == 413


def test_the_secret_is_in_no_command_line_and_no_file(running: Running) -> None:
    children = [running.process, *map(int, Path(f"/proc/{running.process}/task/{running.process}/children").read_text().split())]
    for process in children:
        assert SECRET.encode() not in Path(f"/proc/{process}/cmdline").read_bytes()
    for path in running.folder.rglob("*"):
        assert path.is_dir() or SECRET.encode() not in path.read_bytes(), path


# -- pages of other sites -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"},
        {"Origin": "https://evil.example", "Sec-Fetch-Site": "same-origin"},
        {"Origin": "http://localhost:3000", "Sec-Fetch-Site": "same-site"},
        {"Origin": "null", "Sec-Fetch-Site": "cross-site"},
        {"Origin": "http://portal.example", "Sec-Fetch-Site": "same-origin"},
    ],
)
def test_pages_of_another_origin_can_do_nothing_with_the_cookie(running: Running, headers: dict[str, str]) -> None:
    with running.browser() as browser:
        browser.headers.update(headers)
        refused = running.search(browser)
        assert refused.status_code == 403 and "Access-Control-Allow-Origin" not in refused.headers
        assert browser.get("version").status_code == 403


def test_a_write_that_no_page_of_a_browser_sends_needs_the_token(running: Running) -> None:
    with running.browser() as browser:
        del browser.headers["Origin"], browser.headers["Sec-Fetch-Site"]
        assert browser.get("version").status_code == 200
        assert running.search(browser).status_code == 403


def test_another_host_name_and_foreign_frames_are_refused(running: Running) -> None:
    with running.program() as program:
        assert program.get("version", headers={"Host": "evil.example"}).status_code in (200, 403)  # MLflow says it to anybody
        assert program.post(SEARCH, json={}, headers={"Host": "evil.example"}).status_code == 403
        assert program.get("").headers["X-Frame-Options"] == "SAMEORIGIN"
        assert program.get("").headers["X-Content-Type-Options"] == "nosniff"


# -- what is behind -------------------------------------------------------------------------------------------------------


def test_artifacts_come_only_from_below_the_stores_own_folder(running: Running) -> None:
    with running.program() as program:

        def artifact(run: str, path: str) -> httpx.Response:
            return program.get("get-artifact", params={"run_uuid": running.ids[run], "path": path})

        own = artifact("run", "plot.txt")
        assert own.text == "a plot" and own.headers["Content-Disposition"].startswith("attachment")
        for run, path in (("run", "way-out"), ("hostile", "stolen.txt"), ("elsewhere", "x"), ("run", "../../../../mlflow.db")):
            refused = artifact(run, path)
            assert refused.status_code >= 400 and "private" not in refused.text, (run, path)
        listed = program.get("api/2.0/mlflow/artifacts/list", params={"run_id": running.ids["run"]}).json()
        assert [item["path"] for item in listed["files"]] == ["plot.txt"]
        hidden = program.get("api/2.0/mlflow/artifacts/list", params={"run_id": running.ids["hostile"]})
        assert hidden.status_code == 403 and "stolen" not in hidden.text


def test_the_session_holds_the_lease_and_takes_in_results(running: Running) -> None:
    assert lease.acquire(running.project.home) is None
    path = running.project.home / lease.LEASE
    before = path.stat().st_mtime_ns
    until(lambda: path.stat().st_mtime_ns > before, "it shows that it lives", 60)
    with running.program() as program:
        tagged = program.post("api/2.0/mlflow/runs/set-tag", json={"run_id": running.ids["run"], "key": "seen", "value": "yes"})
        assert tagged.status_code == 200, tagged.text


def test_a_second_session_on_the_project_gets_a_copy_for_reading(running: Running, tmp_path: Path) -> None:
    process, port, mode = start(tmp_path / "second", running.project.root, running.environment)
    try:
        assert mode == "copy"
        second = Running(Proxied("localhost", port), running.project, tmp_path, running.ids, process.pid, running.environment)
        with second.program() as program:
            assert second.search(program).json()["runs"]
            tag = {"run_id": running.ids["run"], "key": "from", "value": "the second"}
            assert program.post("api/2.0/mlflow/runs/set-tag", json=tag).status_code >= 500
    finally:
        stop(process)
    assert not list(Path(running.environment["TMPDIR"]).glob("lossi-mlflow-*/*.db"))


def test_a_lost_lease_ends_the_writing(running: Running) -> None:
    path = running.project.home / lease.LEASE
    path.rename(path.with_suffix(".away"))
    path.write_text(json.dumps({**json.loads(path.with_suffix(".away").read_text()), "token": "another"}))
    with running.program() as program:
        until(lambda: program.get("version").status_code == 503, "it stops", 30)
        assert "start another" in program.get("").text
    path.unlink()


# -- MLflow's inside ------------------------------------------------------------------------------------------------------


def test_the_names_of_mlflow_that_are_relied_on_are_there() -> None:
    code = """
import json
from mlflow.server import constants, handlers, app
from mlflow.store.artifact import artifact_repository_registry as registry
from mlflow.environment_variables import MLFLOW_SERVER_ALLOWED_HOSTS, MLFLOW_SERVER_X_FRAME_OPTIONS, MLFLOW_DISABLE_TELEMETRY
from lossi.mlflow_ui import server
assert server.STORE == constants.BACKEND_STORE_URI_ENV_VAR
assert server.ARTIFACT_ROOT == constants.ARTIFACT_ROOT_ENV_VAR
assert server.SERVE_ARTIFACTS == constants.SERVE_ARTIFACTS_ENV_VAR
assert server.ARTIFACT_DESTINATION == constants.ARTIFACTS_DESTINATION_ENV_VAR
for name in ("_tracking_store", "_model_registry_store", "_artifact_repo", "_job_store"):
    assert hasattr(handlers, name), name
assert callable(handlers._get_tracking_store) and callable(handlers._get_model_registry_store)
assert {"", "file", "runs", "models"} <= set(registry._artifact_repository_registry._registry)
from mlflow.store.db.utils import _get_latest_schema_revision
from lossi.projects import stores
assert stores.KNOWN_REVISIONS[_get_latest_schema_revision()] == "3.17"
print("as expected")
"""
    assert mlflow_store.python(code, PATH=os.defpath, HOME="/nonexistent") == "as expected"

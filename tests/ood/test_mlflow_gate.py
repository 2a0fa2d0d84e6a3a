"""Nobody passes the gate of an MLflow session without its secret, and MLflow behind it shows only the store's files."""

from __future__ import annotations

import contextlib
import html
import json
import os
import socketserver
import threading
import wsgiref.simple_server
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chromium
import httpx
import mlflow_store
import pytest
from batch_connect import Proxied
from mlflow_running import IMPATIENT, SEARCH, SECRET, Running, start, stop
from passenger import until

from lossi.mlflow_ui import gate
from lossi.projects import Project
from lossi.tracking.ingest import lease

pytestmark = pytest.mark.slow
needs_chromium = pytest.mark.skipif(not chromium.PROGRAM, reason="no Chromium")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with session(tmp_path_factory.mktemp("mlflow")) as running:
        yield running


@contextlib.contextmanager
def session(folder: Path) -> Iterator[Running]:
    """Start a session on a project with runs and a file next to it that nobody may see."""
    (folder / "private").mkdir()
    (folder / "private" / "secret.txt").write_text("private")
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder / "home"), "TMPDIR": str(folder / "home")}
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


def test_the_cards_form_sets_a_cookie_that_is_not_the_secret(running: Running) -> None:
    with running.proxied.browser() as browser:
        done = browser.post("lossi-login", data={"secret": SECRET})
        assert (done.status_code, done.headers["Location"]) == (303, running.proxied.base)
        cookie = done.headers["Set-Cookie"]
        assert SECRET not in cookie
        assert cookie.split("; ")[1:] == [f"Path={running.proxied.base.rstrip('/')}", "HttpOnly", "SameSite=Strict", "Secure"]
    with running.browser() as browser:
        assert "<title>MLflow</title>" in browser.get("").text
        answer = running.search(browser)
        assert answer.status_code == 200, answer.text
        assert [run["info"]["run_id"] for run in answer.json()["runs"]] == [running.ids["run"]]
        assert browser.get(str(browser.base_url).rstrip("/")).headers["Location"] == running.proxied.base


def test_programs_on_the_cluster_use_the_token(running: Running) -> None:
    with running.program() as program:
        assert program.get("version").text == "3.17.2"
        assert running.search(program).status_code == 200
    code = "import mlflow, sys; print(mlflow.MlflowClient().get_run(sys.argv[1]).data.metrics['loss'])"
    address = f"http://localhost:{running.proxied.port}{running.proxied.base.rstrip('/')}"
    environment = {**running.environment, "MLFLOW_TRACKING_URI": address, "MLFLOW_TRACKING_TOKEN": SECRET}
    assert mlflow_store.python(code, running.ids["run"], **environment) == "0.5"


def test_secrets_are_compared_in_constant_time_and_must_be_long() -> None:
    assert gate.is_same(SECRET, SECRET) and not gate.is_same("\udcff", SECRET) and not gate.is_same("", SECRET)
    assert "compare_digest" in gate.is_same.__code__.co_names
    with pytest.raises(ValueError, match="too short"):
        gate.SecretGate(lambda environ, start: [], "short", "/node/a/1")


def test_a_body_that_is_not_the_cards_form_is_not_read(running: Running) -> None:
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


def test_a_write_without_browser_headers_needs_the_token(running: Running) -> None:
    with running.browser() as browser:
        del browser.headers["Origin"], browser.headers["Sec-Fetch-Site"]
        assert browser.get("version").status_code == 200
        assert running.search(browser).status_code == 403


def test_another_host_name_and_foreign_frames_are_refused(running: Running) -> None:
    with running.program() as program:
        assert program.get("version", headers={"Host": "evil.example"}).status_code in (
            200,
            403,
        )  # MLflow answers this for any host
        assert program.post(SEARCH, json={}, headers={"Host": "evil.example"}).status_code == 403
        assert program.get("").headers["X-Frame-Options"] == "SAMEORIGIN"
        assert program.get("").headers["X-Content-Type-Options"] == "nosniff"


# -- what is behind -------------------------------------------------------------------------------------------------------


def test_only_artifacts_below_the_stores_folder_are_served(running: Running) -> None:
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


@pytest.fixture(scope="module")
def browser() -> Iterator[chromium.Page]:
    with chromium.chromium() as page:
        yield page


@needs_chromium
def test_scripts_of_an_artifact_cannot_act_as_the_user(running: Running, browser: chromium.Page) -> None:
    base = f"http://localhost:{running.proxied.port}{running.proxied.base.rstrip('/')}"
    files = mlflow_store.hostile_artifacts(running.project.root, running.ids, base)
    try:
        # As the card's button does.
        assert browser.open(f"{base}/") == 403
        browser.submit(f"document.querySelector('input').value = {SECRET!r}; document.forms[0].submit()")
        browser.run(mlflow_store.LISTEN)
        # MLflow's page shows it and its script runs, in a frame with its own origin.
        browser.run(
            f"location.hash = '#/experiments/{running.ids['experiment']}/runs/{running.ids['run']}/artifacts/hostile.html'"
        )
        browser.wait_until("window.told")
        outcome = browser.run("window.told")
        refused = {"cookie": "SecurityError", "parent": "SecurityError", "storage": "SecurityError"}
        assert outcome == {**refused, "read": "TypeError", "write": "TypeError", "blind": "opaque"}
        # Opened by its address it is downloaded.
        for path in files:
            with pytest.raises(AssertionError, match="ERR_ABORTED"):
                browser.open(f"{base}/get-artifact?run_uuid={running.ids['run']}&path={path.name}")
        with running.program() as program:
            for address in (
                f"get-artifact?run_uuid={running.ids['run']}&path=",
                f"ajax-api/2.0/mlflow-artifacts/artifacts/7/{running.ids['run']}/artifacts/",
            ):
                for path in files:
                    answer = program.get(address + path.name)
                    assert answer.status_code == 200 and answer.headers["Content-Disposition"].startswith("attachment;")
                    assert answer.headers["Content-Security-Policy"].startswith("sandbox; default-src 'none'")
                    assert answer.headers.get_list("X-Content-Type-Options", split_commas=True) == ["nosniff"]
            run = program.get("api/2.0/mlflow/runs/get", params={"run_id": running.ids["run"]}).json()["run"]
            assert "stolen" not in json.dumps(run)
    finally:
        for path in files:
            path.unlink()


@needs_chromium
def test_only_mlflows_own_program_acts_in_the_portals_origin(browser: chromium.Page) -> None:
    """Even if a later MLflow does not send artifacts as attachments."""
    script = (
        "new Image().src = '/ran?' + location.pathname + '&' + (() => { try { return document.cookie } catch { return '' } })()"
    )
    bodies = {
        "text/html": f"<!doctype html><script>{script}</script>",
        "image/svg+xml": f'<svg xmlns="http://www.w3.org/2000/svg"><script>{html.escape(script)}</script></svg>',
        "application/xhtml+xml": f'<html xmlns="http://www.w3.org/1999/xhtml"><script>{html.escape(script)}</script></html>',
    }
    ran: list[str] = []

    def mlflow(environ: Any, start_response: Any) -> list[bytes]:
        if environ["PATH_INFO"] == "/ran":
            ran.append(environ["QUERY_STRING"])
        kind = environ["QUERY_STRING"]
        start_response("200 OK", [("Content-Type", kind if kind in bodies else "text/plain"), ("Set-Cookie", "secret=1")])
        return [bodies.get(kind, "").encode()]

    inert = gate.Inert(mlflow)

    def application(environ: Any, start_response: Any) -> Any:
        return (inert if environ["PATH_INFO"].startswith("/inert") else mlflow)(environ, start_response)

    class Quiet(wsgiref.simple_server.WSGIRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    class Several(socketserver.ThreadingMixIn, wsgiref.simple_server.WSGIServer):
        """A browser opens connections before it needs them."""

        daemon_threads = True

    with wsgiref.simple_server.make_server("127.0.0.1", 0, application, Several, Quiet) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            for place in ("as-it-is", "inert"):
                for kind in bodies:
                    assert browser.open(f"http://127.0.0.1:{server.server_port}/{place}?{kind}") == 200
            until(lambda: len(ran) == 3, "the scripts of the first three ran")
        finally:
            server.shutdown()
            thread.join()
    assert ran == ["/as-it-is&secret=1"] * 3


def test_the_session_holds_the_lease_and_takes_in_results(running: Running) -> None:
    assert lease.acquire_lease(running.project.home) is None
    path = running.project.home / lease.LEASE
    before = path.stat().st_mtime_ns
    until(lambda: path.stat().st_mtime_ns > before, "it shows that it lives")
    with running.program() as program:
        tagged = program.post("api/2.0/mlflow/runs/set-tag", json={"run_id": running.ids["run"], "key": "seen", "value": "yes"})
        assert tagged.status_code == 200, tagged.text


def test_a_second_session_on_the_project_gets_a_read_only_copy(running: Running, tmp_path: Path) -> None:
    process, port, mode = start(tmp_path / "second", running.project.root, running.environment, IMPATIENT)
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


def test_a_lost_lease_stops_writes(tmp_path: Path) -> None:
    with session(tmp_path) as running:
        path = running.project.home / lease.LEASE
        path.rename(path.with_suffix(".away"))
        path.write_text(json.dumps({**json.loads(path.with_suffix(".away").read_text()), "token": "another"}))
        with running.program() as program:
            until(lambda: program.get("version").status_code == 503, "it stops")
            assert "start another" in program.get("").text
        path.unlink()


# -- MLflow's inside ------------------------------------------------------------------------------------------------------


def test_mlflow_has_the_internal_names_that_we_use() -> None:
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
    assert mlflow_store.python(code, PATH=os.environ["PATH"], HOME="/nonexistent") == "as expected"

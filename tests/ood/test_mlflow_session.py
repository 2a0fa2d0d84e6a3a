"""MLflow's session as Open OnDemand starts it: staged, run as a job of an ordinary user, used through the proxy, attacked by others."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import mlflow_store
import pytest
from batch_connect import App, Session, has_ruby
from real_cluster import OwnCluster

from lossi.tracking import lease

pytestmark = [pytest.mark.slow, pytest.mark.root, pytest.mark.skipif(not has_ruby(), reason="no Ruby")]

ATTACK = """
import sys, urllib.error, urllib.request
for address in sys.argv[1:]:
    for headers in ({}, {"X-Forwarded-User": "lossi-tester1"}, {"Authorization": "Bearer " + "x" * 32}):
        try:
            with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=60) as answer:
                print(answer.status)
        except urllib.error.HTTPError as error:
            print(error.code)
"""


def run_python(cluster: OwnCluster, user: str, code: str, *arguments: object) -> str:
    argv = [str(cluster.installation.python), "-c", code, *map(str, arguments)]
    return cluster.run_as(user, argv, timeout=300).stdout.strip()


def opened(session: Session) -> tuple[httpx.Client, str]:
    """Use the card's button and return a browser that is in, and the secret."""
    secret = str(session.connection()["password"])
    proxied = session.proxied
    same = {"Origin": "https://portal.example", "Sec-Fetch-Site": "same-origin"}
    card = session.app.template("view.html.erb", "struct", session.user, session.connection())["text"]
    (action,) = re.findall(r'<form action="([^"]+)" method="post"', card)
    (value,) = re.findall(r'name="secret" value="([^"]+)"', card)
    assert f"MLFLOW_TRACKING_URI=http://{proxied.host}:{proxied.port}{proxied.base.rstrip('/')}\n" in card
    with proxied.browser(**same) as browser:
        done = browser.post(f"http://{proxied.host}:{proxied.port}{action}", data={"secret": value})
    assert done.status_code == 303, done.text
    return proxied.browser(Cookie=done.headers["Set-Cookie"].partition(";")[0], **same), secret


def runs(browser: httpx.Client) -> list[dict[str, Any]]:
    experiments = browser.get("api/2.0/mlflow/experiments/search", params={"max_results": 100}).json()["experiments"]
    ids = [experiment["experiment_id"] for experiment in experiments]
    found: list[dict[str, Any]] = browser.post("api/2.0/mlflow/runs/search", json={"experiment_ids": ids}).json().get("runs", [])
    return found


def digest(folder: Path) -> str:
    """Return what changes when anything of a folder does: names, modes, times, contents."""
    told = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        status = path.stat()
        told.update(f"{path.relative_to(folder)} {status.st_mode} {status.st_mtime_ns} {status.st_size}\n".encode())
        if path.is_file():
            told.update(path.read_bytes())
    return told.hexdigest()


@pytest.fixture(scope="module")
def app(slurm: OwnCluster) -> App:
    installed = App.install(slurm, "mlflow-session", {})
    (installed.folder / "environment").rename(installed.folder / "template" / "environment")
    return installed


@pytest.fixture
def started(app: App) -> Iterator[Any]:
    """Start sessions that end with the test."""
    sessions: list[Session] = []

    def start(store: object, **context: Any) -> Session:
        sessions.append(app.start(app.cluster.users[0], {"store": str(store), "bc_num_hours": "1"}, **context))
        return sessions[-1]

    yield start
    for session in sessions:
        session.cancel()
        session.until_ended()


def test_a_project_is_opened_by_its_owner_alone(slurm: OwnCluster, started: Any) -> None:
    user, other = slurm.users
    project = slurm.project(user)
    uri = run_python(slurm, user, mlflow_store.PREPARING, project).splitlines()[-1]
    private = slurm.project(user) / "private.txt"
    private.write_text("private")
    logged = run_python(slurm, user, mlflow_store.LOGGING, uri, project / ".lossi" / "artifacts", private)
    ids = json.loads(logged.splitlines()[-1])

    session = started(project)
    assert session.connection()["mode"] == "writable", session.log()
    browser, secret = opened(session)
    with browser:
        page = browser.get("")
        assert "<title>MLflow</title>" in page.text
        scripts = re.findall(r'src="((?:\./)?static-files/[^"]+\.js)"', page.text)
        assert scripts and all(browser.get(script).status_code == 200 for script in scripts)
        assert ids["run"] in [run["info"]["run_id"] for run in runs(browser)]
        tag = {"run_id": ids["run"], "key": "seen", "value": "yes"}
        assert browser.post("ajax-api/2.0/mlflow/runs/set-tag", json=tag).status_code == 200
    assert (project / ".lossi" / lease.LEASE).exists()

    # Another user, directly and with what the portal's proxy would add.
    address = f"http://{session.proxied.host}:{session.proxied.port}"
    attacked = [f"{address}/", f"{address}{session.proxied.base}", f"{address}{session.proxied.base}version"]
    assert set(run_python(slurm, other, ATTACK, *attacked).split()) == {"403"}
    assert stat.S_IMODE((session.staged / "connection.yml").stat().st_mode) == 0o600
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert secret.encode() not in command.read_bytes(), command
        except OSError:
            continue
    assert secret not in slurm.run_as(user, ["scontrol", "show", "job", "-dd", session.job]).stdout
    assert secret not in session.log()

    session.cancel()
    session.until_ended()
    slurm.wait(lambda: not (project / ".lossi" / lease.LEASE).exists(), 60, "the lease is given back")
    assert "has ended" in session.card("completed.html.erb", completed=True)


def test_an_old_mlruns_is_migrated_into_a_copy_though_somebody_sits_on_the_port(slurm: OwnCluster, started: Any) -> None:
    user = slurm.users[0]
    folder = slurm.project(user)
    run = run_python(slurm, user, mlflow_store.OLD_RUNS, folder / "mlruns").splitlines()[-1]
    before = digest(folder)
    with socket.socket() as squatter:
        squatter.bind(("", 0))
        squatter.listen()
        taken = squatter.getsockname()[1]
        session = started(folder, min_port=taken, max_port=taken)
        told = session.connection()
    assert told["mode"] == "migrated" and told["port"] != taken
    browser, _ = opened(session)
    with browser:
        assert [found["info"]["run_id"] for found in runs(browser)] == [run]
        note = browser.get("get-artifact", params={"run_uuid": run, "path": "note.txt"})
        assert note.text == "from before"
        tag = {"run_id": run, "key": "seen", "value": "yes"}
        assert browser.post("ajax-api/2.0/mlflow/runs/set-tag", json=tag).status_code == 200
        sent = browser.post("ajax-api/2.0/mlflow/upload-artifact", params={"run_uuid": run, "path": "new.txt"}, content=b"x")
        assert sent.status_code == 403
    assert digest(folder) == before
    assert (session.staged / "mlflow.db").exists()


@pytest.mark.parametrize(
    ("store", "why"),
    [
        ('$(touch "$HOME/pwned"); `touch pwned`\n\'"../..', "is not a folder"),
        ("/usr/share", "holds neither runs of Lossi nor an old"),
    ],
)
def test_a_session_that_cannot_start_says_why_on_its_card(started: Any, store: str, why: str) -> None:
    session = started(store)
    session.until_ended()
    card = session.card("completed.html.erb", completed=True)
    assert why in card and "could not start" in card
    assert not (session.staged / "connection.yml").exists()
    assert not list(session.staged.glob("pwned")) and not (session.cluster.home(session.user) / "pwned").exists()


def test_a_site_without_an_environment_is_told_so_when_the_form_is_sent(app: App, slurm: OwnCluster) -> None:
    bare = App.install(slurm, "mlflow-session", {})
    staged = slurm.project(slurm.users[0])
    answer = bare.template("submit.yml.erb", "struct", slurm.users[0], {"staged_root": str(staged), "store": "/x"})
    assert "has not named an environment" in answer["error"]


def test_the_card_escapes_whatever_a_connection_file_says(app: App, slurm: OwnCluster) -> None:
    hostile = '"><script>alert(1)</script>'
    names = {"host": hostile, "port": hostile, "password": hostile, "mode": hostile}
    assert "<script>" not in app.template("view.html.erb", "struct", slurm.users[0], names)["text"]

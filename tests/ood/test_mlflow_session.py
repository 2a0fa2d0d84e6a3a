"""An MLflow session as Open OnDemand starts it: staged, run as an ordinary user's job, used through the proxy, attacked by others."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import mlflow_store
import pytest
import yaml
from batch_connect import App, Session, has_ruby
from real_cluster import OwnCluster
from test_mlflow_form import with_runs

from lossi.tracking.ingest import lease

pytestmark = [pytest.mark.slow, pytest.mark.root, pytest.mark.skipif(not has_ruby(), reason="no Ruby")]

ATTACK = """
import sys, urllib.error, urllib.request
for address in sys.argv[1:]:
    for headers in ({}, {"X-Forwarded-User": "lossi-tester1"}, {"Authorization": "Bearer " + "x" * 32}):
        try:
            with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=300) as answer:
                print(answer.status)
        except urllib.error.HTTPError as error:
            print(error.code)
"""

VALUES = {"cluster": "ci", "queue": "ci--small", "cores": "2", "memory_gb": "2", "hours": "1", "account": ""}


def run_python(cluster: OwnCluster, user: str, code: str, *arguments: object) -> str:
    argv = [str(cluster.installation.python), "-c", code, *map(str, arguments)]
    return cluster.run_as(user, argv, timeout=300).stdout.strip()


def opened(session: Session) -> tuple[httpx.Client, str]:
    """Use the card's button and return a logged-in browser, and the secret."""
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
    rows: list[dict[str, Any]] = browser.post("api/2.0/mlflow/runs/search", json={"experiment_ids": ids}).json().get("runs", [])
    return rows


def digest(folder: Path) -> str:
    """Return a fingerprint of a folder: names, modes, times, contents."""
    state = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        status = path.stat()
        state.update(f"{path.relative_to(folder)} {status.st_mode} {status.st_mtime_ns} {status.st_size}\n".encode())
        if path.is_file():
            state.update(path.read_bytes())
    return state.hexdigest()


@pytest.fixture(scope="module")
def app(slurm: OwnCluster) -> App:
    site = slurm.root / "mlflow-site.yml"
    partitions = [{"name": "small", "interactive": True, "max_time": "2:00:00", "max_cpus": 2}]
    clusters = {"ci": {"conf": str(slurm.conf), "partitions": partitions, "account": {"default": slurm.account}}}
    site.write_text(yaml.safe_dump({"clusters": clusters, "roots": [str(slurm.projects), "/home"]}))
    site.chmod(0o644)
    installed = App.install(slurm, "mlflow-session", {"LOSSI_SITE": str(site)})
    shutil.copy(installed.folder / "environment", installed.folder / "template" / "environment")
    return installed


@pytest.fixture
def started(app: App) -> Iterator[Any]:
    """Start sessions that end with the test."""
    sessions: list[Session] = []

    def start(store: object, **context: Any) -> Session:
        sessions.append(app.start(app.cluster.users[0], {**VALUES, "store": str(store)}, **context))
        return sessions[-1]

    yield start
    for session in sessions:
        session.cancel()
        session.until_ended()


def test_only_the_owner_opens_a_session_on_a_project(slurm: OwnCluster, started: Any) -> None:
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

    # Another user, directly and with the headers of the portal's proxy.
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
    slurm.wait(lambda: not (project / ".lossi" / lease.LEASE).exists(), "the lease is given back")
    assert "has ended" in session.card("completed.html.erb", completed=True)


def test_an_old_mlruns_is_migrated_into_a_copy_although_a_port_is_taken(slurm: OwnCluster, started: Any) -> None:
    user = slurm.users[0]
    folder = slurm.project(user)
    run = run_python(slurm, user, mlflow_store.OLD_RUNS, folder / "mlruns").splitlines()[-1]
    before = digest(folder)
    with socket.socket() as squatter:
        taken = beside_a_free_one(squatter)
        squatter.listen()
        session = started(folder, min_port=taken, max_port=taken + 1)
        connection = session.connection()
    assert connection["mode"] == "migrated" and connection["port"] == taken + 1
    assert stat.S_IMODE(session.staged.stat().st_mode) == 0o700
    browser, _ = opened(session)
    with browser:
        assert [row["info"]["run_id"] for row in runs(browser)] == [run]
        note = browser.get("get-artifact", params={"run_uuid": run, "path": "note.txt"})
        assert note.text == "from before"
        tag = {"run_id": run, "key": "seen", "value": "yes"}
        assert browser.post("ajax-api/2.0/mlflow/runs/set-tag", json=tag).status_code == 200
        sent = browser.post("ajax-api/2.0/mlflow/upload-artifact", params={"run_uuid": run, "path": "new.txt"}, content=b"x")
        assert sent.status_code == 403
    assert digest(folder) == before
    assert (session.staged / "mlflow.db").exists()


def beside_a_free_one(squatter: socket.socket) -> int:
    """Bind a port whose next one is free, and return it."""
    for port in range(20000, 32000, 2):
        with contextlib.suppress(OSError), socket.socket() as beside:
            beside.bind(("", port + 1))
            squatter.bind(("", port))
            return port
    raise AssertionError("no two free ports")


def test_the_card_says_that_the_store_was_removed_while_the_session_waited(slurm: OwnCluster, started: Any) -> None:
    project = with_runs(slurm.project(slurm.users[0]))
    for path in (project / ".lossi", project / ".lossi" / "mlflow.db"):
        slurm.give(path, slurm.users[0])
    session = started(project, header=f"mv {project}/.lossi/mlflow.db {project}/.lossi/away")
    session.until_ended()
    card = session.card("completed.html.erb", completed=True)
    assert "could not start" in card and "has no runs yet" in card
    assert not (session.staged / "connection.yml").exists()


def test_another_users_runs_are_not_found(slurm: OwnCluster, app: App) -> None:
    theirs = with_runs(slurm.project(slurm.users[1]))
    theirs.chmod(0o700)
    staged = slurm.home(slurm.users[0]) / "refused"
    names = {**VALUES, "store": str(theirs), "staged_root": str(staged)}
    answer = app.template("submit.yml.erb", "struct", slurm.users[0], names)
    assert answer["class"] == "RuntimeError" and "is not a project with runs" in answer["error"]
    assert not staged.exists()

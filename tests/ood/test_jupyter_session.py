"""Jupyter as a job of an ordinary user in a really built image, used and attacked through the portal's proxy."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from batch_connect import PORTAL, App, Session
from built_environment import BuiltEnvironment, built_environment
from jupyter_use import VALUES, executed, logged_in, squatters, xsrf
from real_cluster import OwnCluster
from slurm_site import Site

__all__ = ["built_environment"]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(slurm: OwnCluster, built_environment: BuiltEnvironment) -> Site:
    partitions = [{"name": "small", "max_time": "2:00:00", "max_cpus": 4}, {"name": "gpu", "gpu_types": [{"name": "a100"}]}]
    new_site = Site(slurm, partitions=partitions)
    catalog = built_environment.catalog(new_site.file.with_suffix(".catalog.yml"))
    content = yaml.safe_load(catalog.read_text())
    (variants,) = content["environments"]["sklearn"]["variants"].values()
    variants["cuda"] = {"sif": str(built_environment.sif)}
    catalog.write_text(yaml.safe_dump(content))
    new_site.file.write_text(
        new_site.file.read_text() + yaml.safe_dump({"catalogs": [str(catalog)], "roots": [str(slurm.projects), "/home"]})
    )
    return new_site


@pytest.fixture(scope="module")
def app(slurm: OwnCluster, site: Site) -> Iterator[App]:
    installed = App.install(slurm, "jupyter", site.env)
    home = slurm.home(site.user)
    form = slurm.run_as(site.user, [slurm.installation.python, "-I", "-m", "lossi.ood", "form", "jupyter"], env=site.env)
    (installed.folder / "form.json").write_text(form.stdout)
    before = set(home.iterdir())
    yield installed
    for session in installed.sessions:
        session.cancel()
        session.until_ended()
    # Files that Jupyter itself keeps in a home.
    for path in set(home.iterdir()) - before:
        shutil.rmtree(path)
    shutil.rmtree(home / ".local" / "share" / "jupyter", ignore_errors=True)
    assert [path for path in Path("/tmp").glob("lossi-session.*") if path.owner() == site.user] == [], "nodes are left clean"


@pytest.fixture(scope="module")
def session(app: App, site: Site) -> Session:
    """A session on two GPUs, in a folder whose name is hard to quote."""
    folder = site.project / "my $(touch owned) 'notebooks'"
    folder.mkdir()
    (folder / "jupyterlab.py").write_text("raise SystemExit('shadowed')\n")
    site.cluster.give(folder, site.user)
    # As in `site.lossi`: the user's state of this test session.
    places = {name: value for name, value in site.cluster.environment_of(site.user).items() if name.startswith("XDG_")}
    header = "".join(f"export {name}={value}\n" for name, value in places.items())
    choices = {"queue": "ci--gpu", "gpu_type": "a100", "gpus": "2", "folder": str(folder)}
    return app.start(site.user, {**VALUES, **choices}, header=header)


@pytest.fixture(scope="module")
def cookie(session: Session) -> str:
    return logged_in(session.proxied, str(session.connection()["password"]))


def test_a_kernel_runs_in_the_image_and_in_the_chosen_folder(session: Session, cookie: str) -> None:
    proxied = session.proxied
    with proxied.browser(Origin=PORTAL, Cookie=cookie, **xsrf(cookie)) as browser:
        kernel = browser.post("api/kernels", json={"name": "python3"})
        assert kernel.status_code == 201, kernel.text
        code = (
            "import os, sys, json, sklearn\n"
            "mask = os.umask(0); os.umask(mask)\n"
            "print(json.dumps([os.getcwd(), sys.prefix, sklearn.__version__, os.environ['SLURM_JOB_ID'], mask, "
            "os.environ.get('PYTHONNOUSERSITE'), os.path.expanduser('~')]))"
        )
        printed = json.loads(asyncio.run(executed(proxied, cookie, kernel.json()["id"], code)))
        listed = browser.get("api/contents").json()
    folder = json.loads((session.staged / "session.json").read_text())["folder"]
    assert printed == [folder, "/usr/local", "1.9.1", session.job, 0o022, "1", str(session.cluster.home(session.user))]
    assert [entry["name"] for entry in listed["content"]] == ["jupyterlab.py"]
    assert not list(session.staged.glob("owned")) and not list(Path(folder).parent.glob("owned"))
    assert "command not found" not in (session.staged / "output.log").read_text(), (
        "not all of Open OnDemand's helpers are exported"
    )


def test_a_kernel_sees_the_requested_gpus(session: Session, cookie: str) -> None:
    proxied = session.proxied
    with proxied.browser(Origin=PORTAL, Cookie=cookie, **xsrf(cookie)) as browser:
        kernel = browser.post("api/kernels", json={"name": "python3"}).json()["id"]
    names = ("CUDA_VISIBLE_DEVICES", "SLURM_JOB_GPUS")
    code = f"import json, os; print(json.dumps([os.environ.get(name) for name in {names}]))"
    assert json.loads(asyncio.run(executed(proxied, cookie, kernel, code))) == ["0,1", "0,1"]
    argv = (session.staged / "words").read_text().split("\0")
    assert "--nv" in argv[: argv.index("--pwd")], "Apptainer brings the driver of the node"
    (row,) = session.cluster.sacct(session.user, session.job, "AllocTRES", "Partition")
    assert "gres/gpu=2" in row["AllocTRES"].split(",") and row["Partition"] == "gpu"


def test_a_cell_submits_a_job_in_the_same_environment(session: Session, cookie: str, site: Site) -> None:
    proxied = session.proxied
    with proxied.browser(Origin=PORTAL, Cookie=cookie, **xsrf(cookie)) as browser:
        kernel = browser.post("api/kernels", json={"name": "python3"}).json()["id"]
    cell = (
        "import json, shutil, subprocess\n"
        "done = subprocess.run(['lossi', 'run', '--detach', '--json', '--', 'python', '-c', 'import sklearn; print(sklearn.__file__)'], "
        "capture_output=True, text=True)\n"
        "print(json.dumps([done.returncode, done.stdout, done.stderr, shutil.which('lossi')]))\n"
        "for words in (['exec', 'sklearn', '--', 'id'], ['jobs', 'show', 'nothing']):\n"
        "    print(json.dumps(subprocess.run(['lossi', *words], capture_output=True, text=True).returncode))\n"
    )
    first, *codes = asyncio.run(executed(proxied, cookie, kernel, cell)).splitlines()
    code, out, err, place = json.loads(first)
    assert code == 0, err
    assert [json.loads(code) for code in codes] == [2, 3], "only some commands; their exit codes are told"
    assert place == str(session.staged / "bin" / "lossi")
    job = json.loads(out)
    done = site.until(job["id"], "succeeded")
    assert done["environment"] == "sklearn"
    assert "/usr/local/" in site.logs(job["id"]), "in the image, not in the Python that Lossi runs in"
    other = session.cluster.users[1]
    for folder in Path("/tmp").glob("lossi-session.*"):
        assert session.cluster.run_as(other, ["ls", folder], expect=None).returncode != 0


def test_a_wrong_password_and_no_cookie_are_refused(session: Session) -> None:
    proxied = session.proxied
    with proxied.browser(Origin=PORTAL) as browser:
        assert browser.post("login", data={"password": "wrong"}).status_code == 401
        assert browser.get("lab").status_code == 302, "to the login page"
        for path in ("api/contents", "api/kernels", "api/status", "files/jupyterlab.py", "api/terminals"):
            assert browser.get(path).status_code in (302, 403), path
        assert browser.get("api/contents", headers={"X-Forwarded-User": session.user}).status_code == 403
        assert browser.get("api/contents", params={"token": ""}).status_code == 403
        assert browser.get("api/contents", headers={"Authorization": "token x"}).status_code == 403


def test_another_user_of_the_cluster_is_refused(session: Session) -> None:
    """A stranger connects directly, with or without the page's files."""
    other = session.cluster.users[1]
    url = f"http://{session.proxied.host}:{session.proxied.port}{session.proxied.base}api/contents"
    code = (
        "import sys, urllib.request, urllib.error\n"
        "try: print(urllib.request.build_opener(urllib.request.ProxyHandler({})).open(sys.argv[1]).status)\n"
        "except urllib.error.HTTPError as error: print(error.code)\n"
    )
    assert session.cluster.run_as(other, ["/usr/bin/python3", "-c", code, url]).stdout.strip() == "403"
    for name in ("connection.yml", "session.json", "private/settings.json", "status.json"):
        assert session.cluster.run_as(other, ["cat", session.staged / name], expect=None).returncode != 0, name


def test_other_origins_and_writes_without_token_are_refused(session: Session, cookie: str) -> None:
    proxied = session.proxied
    with proxied.browser(Cookie=cookie) as browser:
        for origin in ("https://evil.example", "http://portal.example", "https://portal.example.evil", "null"):
            answer = browser.get("api/contents", headers={"Origin": origin})
            assert answer.headers.get("access-control-allow-origin") != origin and answer.status_code in (403, 404)
        assert browser.post("api/kernels", json={}, headers={"Origin": PORTAL}).status_code == 403, "no XSRF token"
        password = str(session.connection()["password"])
        evil = browser.post("login", data={"password": password}, headers={"Origin": "https://evil.example", "Cookie": ""})
        assert evil.status_code == 403


def test_the_secret_is_in_no_command_line_log_or_readable_file(session: Session, cookie: str) -> None:
    password = str(session.connection()["password"])
    assert re.fullmatch("[A-Za-z]{32}", password)
    for process in Path("/proc").glob("[0-9]*"):
        for name in ("cmdline", "environ"):
            try:
                content = (process / name).read_bytes()
            except OSError:
                continue
            assert password.encode() not in content, (process, name)
    holding = [path for path in session.staged.rglob("*") if path.is_file() and password in path.read_text("utf-8", "replace")]
    assert [path.name for path in holding] == ["connection.yml"]
    assert session.staged.stat().st_mode & 0o777 == 0o700
    private = session.staged / "private"
    assert private.stat().st_mode & 0o777 == 0o700
    kernels = [path for path in Path("/tmp").glob("lossi-session.*/tmp/jupyter-*/*.json") if path.owner() == session.user]
    assert {path.parent.stat().st_mode & 0o777 for path in kernels} == {0o700}
    secret = [*holding, private / "settings.json", private / "cookie_secret", *kernels]
    assert len(secret) >= 5 and {path.stat().st_mode & 0o777 for path in secret} == {0o600}
    assert "argon2" in (session.staged / "private" / "settings.json").read_text()


def test_it_listens_only_at_the_nodes_address(session: Session) -> None:
    address = socket.gethostbyname(session.proxied.host)
    if address.startswith("127."):
        pytest.skip("this machine's name is a loopback address")
    with socket.socket() as elsewhere:
        elsewhere.settimeout(5)
        assert elsewhere.connect_ex(("127.0.0.1", session.proxied.port)) != 0


def test_the_card_opens_it(session: Session) -> None:
    connection = session.connection()
    answer = session.app.template("view.html.erb", "struct", session.user, connection)["text"]
    assert f'action="{session.proxied.base}login"' in answer and f'value="{connection["password"]}"' in answer
    assert "Connect to JupyterLab" in answer
    assert "scikit-learn" in session.card("info.html.erb", completed=False)


def test_without_notebook_lab_shows_one_document_and_the_end_reports_the_usage(app: App, site: Site) -> None:
    session = app.start(site.user, {**VALUES, "interface": "notebook"})
    proxied = session.proxied
    cookie = logged_in(proxied, str(session.connection()["password"]))
    with proxied.browser(Cookie=cookie, Origin=PORTAL, **xsrf(cookie)) as browser:
        assert browser.get("").headers["location"].rstrip("?") == f"{proxied.base}doc"
        assert browser.post("api/shutdown").status_code == 200
    session.until_ended()
    status = session.status()
    assert status["state"] == "ended" and status["cpu_s"] > 0
    assert "Used on average" in session.card("info.html.erb", completed=True)


def test_a_port_that_another_user_holds_is_never_used(app: App, site: Site) -> None:
    """Another user listens at all ports of the site's range, at another address of the node: they look free."""
    cluster, other = site.cluster, site.cluster.users[1]
    with squatters(app, other, 2) as ports:
        low, high = min(ports), max(ports)
        session = app.start(site.user, VALUES, min_port=low, max_port=high)
        session.until_ended()
        assert not (session.staged / "connection.yml").exists(), "the card never posts the password to the squatter"
    assert session.status()["state"] == "failed" and "no free port" in session.status()["why"]
    assert "no free port" in session.card("info.html.erb", completed=True)
    assert cluster.job(site.user, session.job)["JobState"] == "FAILED"


def test_the_card_says_that_the_sites_setup_failed(app: App, site: Site) -> None:
    text = site.file.read_text()
    content = yaml.safe_load(text)
    content["clusters"]["ci"]["setup"] = ["echo first", "false", "echo never"]
    site.file.write_text(yaml.safe_dump(content))
    try:
        session = app.start(site.user, VALUES)
        session.until_ended()
    finally:
        site.file.write_text(text)
    assert "set-up of this site failed" in session.card("info.html.erb", completed=True)
    assert "first" in session.log() and "never" not in session.log()


def test_the_card_says_that_the_image_is_gone(app: App, site: Site) -> None:
    original: Any = App.start
    session = original(app, site.user, VALUES, header="sed -i 's#/[^\\x00]*[.]sif#/nowhere.sif#' words")
    session.until_ended()
    assert not (session.staged / "connection.yml").exists()
    assert "could not be started" in session.card("info.html.erb", completed=True)

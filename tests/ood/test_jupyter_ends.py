"""Bad ends of Jupyter sessions, in a local Python of the site: no port, full disk, no Apptainer, time limit.

Real jobs of an ordinary user, as in ``test_jupyter_session.py``, but without an image: what is looked at here is around it.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import platform
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import local_jupyter
import pytest
import yaml
from batch_connect import PORTAL, App, Session
from free_ports import is_free
from full_disk import fill, half_written, small
from jupyter_use import VALUES, executed, logged_in, squatters, xsrf
from real_cluster import OwnCluster
from slurm_site import Site

pytestmark = pytest.mark.slow

HERE = {**VALUES, "environment": "here", "cores": "1", "memory_gb": "1"}


@pytest.fixture(scope="module")
def site(slurm: OwnCluster) -> Site:
    new_site = Site(slurm, partitions=[{"name": "small", "max_time": "2:00:00", "max_cpus": 4}])
    boxed = new_site.project.parent / "boxed"
    (boxed / "usr").mkdir(parents=True)
    python = str(local_jupyter.install(new_site.user))
    environments: dict[str, Any] = {
        "here": {"title": "A Python of <b>this</b> site", "local": {"python": python}},
        "boxed": {"title": "An image", "variants": {platform.machine(): {"none": {"sif": str(boxed)}}}},
    }
    more = {"environments": environments, "roots": [str(slurm.root), "/home"]}
    new_site.file.write_text(new_site.file.read_text() + yaml.safe_dump(more))
    return new_site


def homed(slurm: OwnCluster, site: Site, name: str) -> Path:
    """Return a home folder of this module, so that the user's own is not touched."""
    home = slurm.root / "homes" / name
    home.mkdir(parents=True)
    slurm.give(home, site.user)
    return home


@pytest.fixture(scope="module")
def app(slurm: OwnCluster, site: Site) -> Iterator[App]:
    installed = dataclasses.replace(App.install(slurm, "jupyter", site.env), home=homed(slurm, site, "usual"))
    yield installed
    for session in installed.sessions:
        session.cancel()
    for session in installed.sessions:
        session.until_ended()
    slurm.wait(lambda: not left_behind(site.user), "the sessions leave nothing on the node")


def processes_of(session: Session) -> list[int]:
    """Return the processes of a session on the node: they have its job or its folder in their environment or command."""
    marks, pids = (f"SLURM_JOB_ID={session.job}\0".encode(), str(session.staged).encode()), []
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            text = (place / "environ").read_bytes() + (place / "cmdline").read_bytes()
            if place.owner() == session.user and any(mark in text for mark in marks):
                pids.append(int(place.name))
    return pids


def left_behind(user: str) -> list[str]:
    """Return the processes and files that ended sessions must not leave on the node."""
    scratch = [str(path) for path in Path("/tmp").glob("lossi-session.*") if path.owner() == user]
    processes = subprocess.run(["pgrep", "-af", "-u", user, "jupyter|session.py|lossi.ood.relay"], capture_output=True, text=True)
    return [*scratch, *processes.stdout.splitlines()]


@pytest.fixture(scope="module")
def begun(app: App, site: Site, slurm: OwnCluster) -> Iterator[dict[str, Session]]:
    """Sessions that run at the same time."""
    tools = site.project / "tools"
    tools.mkdir()
    for program in Path("/usr/bin").iterdir():
        if program.name not in ("apptainer", "singularity"):
            (tools / program.name).symlink_to(program)
    with squatters(app, slurm.users[1], 3, "0.0.0.0") as taken:
        with squatters(app, slurm.users[1], 2) as (port, another):
            pass  # free now
        yield {
            "crowded": app.start(site.user, HERE, min_port=min(taken), max_port=max(taken)),
            "boxed": app.start(site.user, {**HERE, "environment": "boxed"}, header=f"export PATH='{tools}'"),
            "usual": app.start(site.user, HERE, min_port=port, max_port=port),
            "timed out": app.start(site.user, HERE, min_port=another, max_port=another),
        }


@pytest.fixture(scope="module")
def usual(begun: dict[str, Session]) -> Session:
    return begun["usual"]


@pytest.fixture(scope="module")
def cookie(usual: Session) -> str:
    return logged_in(usual.proxied, str(usual.connection()["password"]))


@pytest.fixture(scope="module")
def timed_out(begun: dict[str, Session]) -> tuple[Session, str]:
    """A session with a kernel at its time limit, which Slurm checks every half a minute, and its cookie."""
    session = begun["timed out"]
    cookie = logged_in(session.proxied, str(session.connection()["password"]))
    assert in_kernel(session, cookie, "print(1)").strip() == "1"
    session.cluster.scontrol("update", f"jobid={session.job}", "endtime=now")
    return session, cookie


def in_kernel(session: Session, cookie: str, code: str) -> str:
    """Run code in a new kernel of a session and return what it prints."""
    with session.proxied.browser(Origin=PORTAL, Cookie=cookie, **xsrf(cookie)) as browser:
        kernel = browser.post("api/kernels", json={"name": "python3"})
        assert kernel.status_code == 201, kernel.text
    return asyncio.run(executed(session.proxied, cookie, kernel.json()["id"], code))


def test_a_session_in_a_local_python_has_a_kernel_and_submits_jobs(usual: Session, cookie: str, site: Site) -> None:
    code = (
        "import json, os, subprocess, sys\n"
        "words = ['lossi', 'run', '--detach', '--json', '--', 'python', '-c', 'import sys; print(sys.prefix)']\n"
        "done = subprocess.run(words, cwd=os.environ['PROJECT'], capture_output=True, text=True)\n"
        "print(json.dumps([sys.prefix, os.environ['SLURM_JOB_ID'], done.returncode, done.stdout, done.stderr]))"
    )
    prefix, job, code_, out, err = json.loads(
        in_kernel(usual, cookie, code.replace("os.environ['PROJECT']", repr(str(site.project))))
    )
    here = str(local_jupyter.install(site.user).parents[1])
    assert (prefix, job, code_) == (here, usual.job, 0), err
    submitted = json.loads(out)
    assert site.until(submitted["id"], "succeeded")["environment"] == "here"
    assert here in site.logs(submitted["id"])
    assert "A Python of &lt;b&gt;this&lt;/b&gt; site" in usual.card("info.html.erb", completed=False)


def test_jupyterlab_does_not_ask_whether_to_fetch_news(usual: Session, cookie: str) -> None:
    with usual.proxied.browser(Cookie=cookie) as browser:
        setting = browser.get("lab/api/settings/@jupyterlab/apputils-extension:notification").json()
    assert setting["schema"]["properties"]["fetchNews"]["default"] == "false"


def test_without_a_free_port_the_session_ends_and_says_why(begun: dict[str, Session]) -> None:
    session = begun["crowded"]
    session.until_ended()
    shown = session.cluster.job(session.user, session.job)
    assert shown["JobState"] == "FAILED"
    assert not (session.staged / "connection.yml").exists()
    assert "no free port" in session.card("info.html.erb", completed=True)


def test_the_card_says_that_a_node_has_no_apptainer(begun: dict[str, Session]) -> None:
    session = begun["boxed"]
    session.until_ended()
    assert not (session.staged / "connection.yml").exists()
    assert "no Apptainer on this node" in session.card("info.html.erb", completed=True)
    assert session.cluster.job(session.user, session.job)["JobState"] == "FAILED"


def test_a_full_home_is_reported_before_during_and_after_the_start(
    app: App, site: Site, slurm: OwnCluster, timed_out: tuple[Session, str]
) -> None:
    home = homed(slurm, site, "small")
    gate = site.project / "gate"
    waits = f"until [ -e '{gate}' ]; do sleep 0.05; done"
    with small(home, "size=6m"):
        crammed = dataclasses.replace(app, home=home)
        running = crammed.start(site.user, HERE)
        held = crammed.start(site.user, HERE, header=waits)
        cookie = logged_in(running.proxied, str(running.connection()["password"]))
        assert in_kernel(running, cookie, "print(1)").strip() == "1"  # IPython's first start in this home
        kernels = running.proxied.browser(Origin=PORTAL, Cookie=cookie, **xsrf(cookie))
        fill(home)
        gate.touch()
        # before: submitting the form
        staged = crammed.staged(site.user)
        refused = crammed.template("submit.yml.erb", "struct", site.user, {**HERE, "staged_root": str(staged)})
        assert "is full" in refused["error"] and not staged.exists()
        # at the start
        held.until_ended()
        assert "is full" in held.card("info.html.erb", completed=True)
        assert held.status()["state"] == "failed" and not (held.staged / "connection.yml").exists()
        # while it runs: with a new kernel too
        assert in_kernel(running, cookie, "print(6 * 7)").strip() == "42"
        with kernels as browser:
            saved = browser.put("api/contents/a.txt", json={"type": "file", "format": "text", "content": "x" * 9000})
            assert saved.status_code == 500 and "error while saving" in saved.text
            assert browser.post("api/shutdown").status_code == 200
        running.until_ended()
        assert "Used on average" in running.card("info.html.erb", completed=True)
        assert running.status()["state"] == "ended"
        assert not half_written(running.staged) + half_written(held.staged)


def test_a_session_that_timed_out_leaves_nothing_and_its_cookie_opens_no_later_one(
    app: App, timed_out: tuple[Session, str], site: Site
) -> None:
    session, cookie = timed_out
    connection = yaml.safe_load((session.staged / "connection.yml").read_text())
    session.until_ended()
    assert session.cluster.job(session.user, session.job)["JobState"] == "TIMEOUT"
    card = session.card("info.html.erb", completed=True)
    assert "of the 1:00:00 that you asked for" in card and "Used on average" in card, card
    assert session.status()["state"] == "ended"
    port = session.proxied.port
    session.cluster.wait(lambda: not processes_of(session) and is_free(port), "nothing is left")
    later = app.start(site.user, HERE, min_port=port, max_port=port)
    assert later.proxied == session.proxied and later.connection()["password"] != connection["password"]
    with later.proxied.browser(Origin=PORTAL) as browser:
        for path in ("api/contents", "api/kernels", "lab"):
            assert browser.get(path, headers={"Cookie": cookie}).status_code in (302, 403), path
        assert browser.post("login", data={"password": connection["password"]}).status_code == 401
    later.cancel()

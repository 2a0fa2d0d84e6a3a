"""The bundle installed by the command, from this tree and from a release, as a portal's administrators do it."""

from __future__ import annotations

import configparser
import contextlib
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import installation
import pytest
from passenger import App, passenger, until, why_not
from real_cluster import CACHE, OwnCluster
from slurm_site import Site

TREE = installation.TREE
APPS = "var/www/ood/apps/sys"
HOME = "opt/lossi"


def lossi(*arguments: str | Path, expect: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "lossi", *map(str, arguments)], capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert done.returncode == expect, done.stdout + done.stderr
    return done.stdout + done.stderr


def inventory(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.fixture
def host(tmp_path: Path, home: Path) -> Path:
    """The root folder of a portal's host, as Open OnDemand leaves it."""
    root = tmp_path / "host"
    (root / APPS / "dashboard").mkdir(parents=True)
    (root / "etc/ood/config/clusters.d").mkdir(parents=True)
    (root / "opt").mkdir()
    return root


def test_installing_twice_changes_nothing_and_uninstalling_leaves_nothing(host: Path) -> None:
    before = inventory(host)
    assert "lossi" in lossi("install", "--prefix", host, "--dry-run")
    assert inventory(host) == before
    assert "--yes" in lossi("install", "--prefix", host, expect=2), "no terminal to ask on"
    assert inventory(host) == before
    lossi("install", "--prefix", host, "--yes")
    for name in ("lossi", *(f"lossi-{app.name}" for app in (TREE / "ood-apps").iterdir() if (app / "manifest.yml").is_file())):
        assert (host / APPS / name / "manifest.yml").is_file() is (name != "lossi-mlflow-embedded"), name
    for app in ("lossi-jupyter", "lossi-mlflow-session"):
        form = host / APPS / app / "form.json"
        assert json.loads(form.read_text())["form"] and form.stat().st_mode & 0o777 == 0o644
    after = inventory(host)
    form.unlink()
    assert "nothing to do" in lossi("install", "--prefix", host)
    assert form.is_file(), "forms are written again"
    assert json.loads(lossi("install", "--prefix", host, "--yes", "--json"))["changes"] == []
    assert inventory(host) == after
    lossi("install", "--prefix", host, "--yes", "--with", "lossi-mlflow-embedded")
    assert (host / APPS / "lossi-mlflow-embedded" / "manifest.yml").is_file()
    assert "lossi-mlflow-embedded" not in lossi("install", "--prefix", host, "--dry-run"), "the choice holds"
    assert "is in use" in lossi("install", "--prefix", host, "--rollback", "--yes")
    assert not os.path.lexists(host / APPS / "lossi-mlflow-embedded")
    assert "Removed." in lossi("uninstall", "--prefix", host, "--yes")
    assert inventory(host) == before
    assert "nothing is installed" in lossi("uninstall", "--prefix", host, "--yes", expect=3)


def test_a_file_of_others_stops_it_before_anything_is_written(host: Path) -> None:
    (host / APPS / "lossi").mkdir()
    (host / APPS / "lossi" / "mine").write_text("mine")
    before = inventory(host)
    assert "never touches files of others" in lossi("install", "--prefix", host, "--yes", expect=4)
    assert inventory(host) == before


def test_every_installed_script_is_executable_and_parses(host: Path) -> None:
    lossi("install", "--prefix", host, "--yes")
    for script in (host / HOME / "current").resolve().rglob("*"):
        if script.is_file() and script.read_bytes().startswith((b"#!/bin/sh", b"#!/bin/bash")):
            assert os.access(script, os.X_OK), script
            subprocess.run(["bash", "-n", script], check=True)


@pytest.fixture
def small_disk(host: Path) -> Iterator[Path]:
    """A disk that is too small, in the place of Lossi's folder."""
    if os.geteuid() != 0:
        pytest.skip("needs root: mounts a small disk")
    place = host / HOME
    place.mkdir(parents=True)
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


@pytest.mark.root
def test_a_full_disk_is_reported_and_leaves_nothing(host: Path, small_disk: Path) -> None:
    before = inventory(host)
    assert "the filesystem is full" in lossi("install", "--prefix", host, "--yes", expect=5)
    assert inventory(host) == before


@pytest.mark.root
def test_queued_jobs_run_after_an_upgrade_and_an_uninstallation(own_slurm: OwnCluster, host: Path) -> None:
    python = installation.interpreter(own_slurm.users[0])
    built = next((own_slurm.installation.root.parent / "wheel").glob("*.whl"))
    root = own_slurm.root / "portal-host"
    (root / APPS).mkdir(parents=True)

    base = installation.foundation(python, CACHE)

    def install(name: str) -> None:
        place = root / HOME / "environments" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        bundle = installation.install(python, base, built, place)
        subprocess.run([bundle.command, "install", "--prefix", root, "--yes"], check=True, capture_output=True)

    install("one")
    command = root / HOME / "current" / "bin" / "lossi"
    site = Site(own_slurm, options=["--hold"])
    site.write(".lossi/catalog.yml", f"environments: {{bare: {{title: Bare, local: {{python: {base}/bin/python}}}}}}\n")

    def submitted(environment: str) -> Mapping[str, str]:
        words = ["run", "--json", "--detach", "-e", environment, "-t", "5", "--", "sh", "-c", "echo it runs"]
        job: Mapping[str, str] = json.loads(own_slurm.run_as(site.user, [command, *words], cwd=site.project, env=site.env).stdout)
        return job

    def runs(job: Mapping[str, str]) -> None:
        own_slurm.run_as(site.user, ["scontrol", "release", job["scheduler_id"]])
        account = site.project / ".lossi" / "jobs" / job["id"] / "tasks" / "0" / "exit.json"
        own_slurm.wait(account.exists, "the task has ended")
        assert json.loads(account.read_text())["state"] == "succeeded"
        assert "it runs" in (account.parent / "log").read_text()

    of_the_bundle, of_the_site = submitted("python"), submitted("bare")
    for name in ("two", "three"):  # the version of the jobs is not even the previous one any more
        install(name)
    runs(of_the_bundle)
    lossi("uninstall", "--prefix", root, "--yes")
    assert not (root / HOME).exists()
    runs(of_the_site)


@pytest.mark.root
def test_a_running_portal_restarts_with_the_new_version(own_slurm: OwnCluster, installed: installation.Installation) -> None:
    if reason := why_not():
        pytest.skip(reason)
    root = own_slurm.root / "running-host"
    (root / APPS).mkdir(parents=True)
    install = [installed.command, "install", "--prefix", root, "--yes"]
    subprocess.run(install, check=True, capture_output=True, cwd="/")
    app = App("/pun/sys/lossi", root / APPS / "lossi")
    user = own_slurm.users[0]
    with (
        passenger([app], user, own_slurm.environment_of(user)) as server,
        httpx.Client(base_url=f"{server.url}{app.uri}/", trust_env=False, timeout=300) as browser,
    ):
        assert browser.get("").status_code == 200, server.log
        (first,) = server.processes(app)
        subprocess.run([*install, "--without", "lossi-mlflow-session"], check=True, capture_output=True, cwd="/")

        def anew() -> bool:
            assert browser.get("").status_code == 200, server.log
            return server.processes(app) not in ([], [first])

        until(anew, "the portal runs from the new version")
        assert browser.get("static/start.css").status_code == 200
    subprocess.run([installed.command, "uninstall", "--prefix", root, "--yes"], check=True, capture_output=True, cwd="/")


def needed() -> set[str]:
    """Return the distributions that the command and the portal need: far fewer than notebooks do."""
    setup = configparser.ConfigParser(interpolation=None)
    setup.read(TREE / "setup.cfg")
    names: set[str] = set()
    todo = setup["options"]["install_requires"].split("\n")
    while todo:
        name = re.sub(r"[-_.]+", "-", re.split(r"[^A-Za-z0-9._-]", todo.pop(), maxsplit=1)[0]).lower()
        if not name or name in names:
            continue
        names.add(name)
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # for other platforms or Pythons
            lines = importlib.metadata.requires(name) or []
            todo += [line for line in lines if "extra ==" not in line or name == "flask-openapi3"]
    return names


@pytest.mark.slow
def test_a_release_installs_without_any_network(tmp_path: Path, host: Path) -> None:
    lock = tmp_path / "part.lock"
    entries = re.split(r"(?m)^(?=[a-z0-9])", (TREE / "requirements" / "run.lock").read_text())
    names = needed() | {"setuptools"}
    lock.write_text("".join(entry for entry in entries if re.split(r"[ =;\[]", entry, maxsplit=1)[0] in names))
    tools = {"PYTHON": sys.executable, "LOCK": str(lock), "BUILD": str(tmp_path)}
    packed = subprocess.run(["sh", TREE / "release" / "make.sh"], env={**os.environ, **tools}, capture_output=True, text=True)
    if packed.returncode and re.search("(?i)connection|resolution|timed out|timeout", packed.stderr):
        pytest.skip(f"the wheels cannot be downloaded here: {packed.stderr[-300:]}")
    assert packed.returncode == 0, packed.stderr
    with tarfile.open(packed.stdout.strip()) as release:
        release.extractall(tmp_path, filter="data")
    folder = next(path for path in tmp_path.glob("lossi-*") if path.is_dir())
    _wheel_is_complete(next(folder.glob("*.whl")))
    alone = ["unshare", "--net"] if os.geteuid() == 0 else []
    before = inventory(host)

    def run(*options: str) -> str:
        environment = {**os.environ, "PYTHON": sys.executable, "PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull}
        done = subprocess.run(
            [*alone, "sh", folder / "install.sh", "--prefix", host, *options], capture_output=True, text=True, env=environment
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("--dry-run")
    assert inventory(host) == before, "an environment that nothing uses is not left behind"
    run("--yes")
    assert "nothing to do" in run()
    command = host / HOME / "current" / "bin" / "lossi"
    assert subprocess.run([command, "--version"], capture_output=True, text=True, check=True, cwd="/").stdout.startswith("lossi ")
    app = host / APPS / "lossi"
    program = "import passenger_wsgi; print(passenger_wsgi.application.__class__.__name__)"
    started = subprocess.run([app / "bin" / "python", "-c", program], capture_output=True, text=True, cwd=app)
    assert started.stdout.strip() not in ("", "function"), "the portal, not the page that explains why there is none"
    subprocess.run([command, "uninstall", "--prefix", host, "--yes"], check=True, capture_output=True, cwd="/")
    assert inventory(host) == before


def _wheel_is_complete(wheel: Path) -> None:
    """The wheel carries every file that an installation from this tree writes, with its permission to be started."""
    with zipfile.ZipFile(wheel) as archive:
        carried = {entry.filename: entry.external_attr >> 16 for entry in archive.infolist()}
    bundle = TREE / "passenger-app" / "lossi" / "bundle"
    for place, folders, names in os.walk(bundle, followlinks=True):
        folders[:] = [name for name in folders if name != "__pycache__"]
        for name in names:
            path = Path(place, name)
            inside = f"lossi/bundle/{path.relative_to(bundle)}"
            assert inside in carried, inside
            assert bool(carried[inside] & 0o100) is os.access(path, os.X_OK), inside
    assert not [name for name in carried if "__pycache__" in name or name.endswith(".pyc")]

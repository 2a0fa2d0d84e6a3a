"""A user's portal under the real Passenger, with the real Slurm: mounted as at a site, and in ways that fail."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
from installation import TREE, Installation
from passenger import App, Passenger, app_folder, passenger, until
from slurm_site import Site

OLD = """#!/bin/sh
# Pretends to be the Python 3.9 of older distributions.
code='import runpy, sys
sys.version_info, sys.version = (3, 9, 2, "final", 0), "3.9.2 (default)"
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")'
exec /usr/bin/python3 -W ignore -c "$code" "$@"
"""


@dataclass(frozen=True)
class Portal:
    """A running server with the portal mounted below several addresses."""

    server: Passenger
    site: Site
    apps: dict[str, App]

    def address(self, name: str) -> str:
        return self.server.url + self.apps[name].uri

    def page(self, path: str = "", **query: str) -> str:
        """Return the address of a page about the site's project."""
        return f"{self.address('sys')}/{path}?{urlencode({'project': str(self.site.project), **query})}"

    def client(self, name: str = "sys", **headers: str) -> httpx.Client:
        """Return a client that keeps cookies and does not follow redirects."""
        return httpx.Client(
            base_url=self.address(name) + "/",
            timeout=300,
            trust_env=False,
            headers={"X-Forwarded-Proto": "http", **headers},
        )

    def restart(self, name: str) -> None:
        """Touch tmp/restart.txt as the page and the manual say; Passenger compares whole seconds, so a second touch gets another one."""
        file = self.apps[name].root / "tmp" / "restart.txt"
        last = file.stat().st_mtime if file.exists() else 0.0
        file.touch()
        if int(file.stat().st_mtime) <= int(last):
            os.utime(file, (last + 1, last + 1))


def csrf(client: httpx.Client) -> dict[str, str]:
    """Return the header that a browser's writes need."""
    return {"X-CSRF-Token": client.get("api/v1/session").json()["csrf_token"]}


def finished(client: httpx.Client, job_id: str, project: Path) -> Any:
    """Poll as a page does until a job has ended, and return it."""
    answers: list[Any] = []

    def over() -> bool:
        answer = client.get(f"api/v1/jobs/{job_id}", params={"project": str(project)})
        assert answer.status_code == 200, answer.text
        answers.append(answer.json())
        return answers[-1]["state"] not in ("queued", "running", "unknown")

    until(over, "the job has ended")
    return answers[-1]


def notebook(*sources: str) -> str:
    """Return a notebook of Python cells, the first of them its parameters."""
    cells = [
        {
            "cell_type": "code",
            "id": f"c{number}",
            "metadata": {"tags": ["parameters"]} if number == 0 else {},
            "source": source,
            "outputs": [],
            "execution_count": None,
        }
        for number, source in enumerate(sources)
    ]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": kernel}, "cells": cells})


@contextlib.contextmanager
def portal(site: Site, installed: Installation, folder: Path, **options: Any) -> Iterator[Portal]:
    """Install the apps below ``folder`` and serve them as the site's user.

    Mounted are ``sys`` and ``dev``; ``limited``, whose portal shows one folder only; and ``bare``, ``gone`` and ``old``, which lack an
    environment, name one that is not there, and name one that is too old.
    """
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    old = folder / "python3.9"
    old.write_text(OLD)
    old.chmod(0o755)
    for kind, name in (("sys", "jupyter"), ("dev", "mlflow-session")):  # next to the portal, as `lossi install` does
        (folder / kind).mkdir()
        shutil.copytree(TREE / "ood-apps" / name, folder / kind / f"lossi-{name}")
    allowed = {"OOD_ALLOWLIST_PATH": str(folder / "allowed")}
    apps = {
        "sys": App("/pun/sys/lossi", app_folder(folder / "sys" / "lossi", installed.python)),
        "dev": App("/pun/dev/lossi", app_folder(folder / "dev" / "lossi", installed.python)),
        "limited": App("/pun/sys/limited", app_folder(folder / "sys" / "limited", installed.python), allowed),
        "bare": App("/pun/sys/bare", app_folder(folder / "sys" / "bare", None)),
        "gone": App("/pun/sys/gone", app_folder(folder / "sys" / "gone", folder / "nothing" / "bin" / "python")),
        "old": App("/pun/sys/old", app_folder(folder / "sys" / "old", old)),
    }
    environment = {**site.cluster.environment_of(site.user), **site.env}
    # The portal has no user's shell: the site file names Slurm's configuration.
    environment.pop("SLURM_CONF", None)
    with passenger(list(apps.values()), site.user, environment, **options) as server:
        yield Portal(server, site, apps)

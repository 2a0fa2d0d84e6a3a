"""An MLflow session on the loopback interface, started as its job starts it."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from batch_connect import Proxied
from passenger import until

from lossi.projects import Project

SECRET = "0123456789abcdefABCDEF0123456789"
SEARCH = "api/2.0/mlflow/runs/search"


@dataclass(frozen=True)
class Running:
    """A session on the loopback interface, and the ids in its store."""

    proxied: Proxied
    project: Project
    folder: Path
    ids: dict[str, Any]
    process: int
    environment: dict[str, str]

    def program(self, token: str = SECRET) -> httpx.Client:
        """Return a client on the cluster."""
        base = f"http://localhost:{self.proxied.port}{self.proxied.base}"
        return httpx.Client(base_url=base, headers={"Authorization": f"Bearer {token}"}, timeout=300, trust_env=False)

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


IMPATIENT = """
import runpy
from lossi.mlflow_ui import opening
opening.PATIENCE_S = 0.5
runpy.run_module("lossi.mlflow_ui.session", run_name="__main__")
"""
"""Waits a shorter time for a store that is in use."""


def start(folder: Path, store: Path, environment: dict[str, str], code: str = "") -> tuple[subprocess.Popen[bytes], int, str]:
    """Start a session as its job does, or with other code; return its process, port and mode."""
    folder.mkdir(mode=0o700)
    (folder / "session.json").write_text(json.dumps({"store": str(store)}))
    with (
        contextlib.ExitStack() as held
    ):  # three, because somebody may be quicker, as on a node; none with connections that linger
        sockets = [held.enter_context(socket.socket()) for _ in range(3)]
        for sock in sockets:
            sock.bind(("", 0))
        ports = " ".join(str(sock.getsockname()[1]) for sock in sockets)
    secret = {"LOSSI_SESSION_SECRET": SECRET, "LOSSI_SESSION_HOST": "localhost", "LOSSI_SESSION_PORTS": ports}
    with (folder / "output.log").open("wb") as output:
        argv = [sys.executable, "-I", *(["-c", code] if code else ["-m", "lossi.mlflow_ui.session"]), str(folder)]
        process = subprocess.Popen(argv, env={**environment, **secret}, stdout=output, stderr=output)

    def ready() -> bool:
        assert process.poll() is None, (folder / "output.log").read_text()
        return (folder / "ready").exists()

    try:
        until(ready, "the session is ready")
    except BaseException:
        process.kill()
        process.wait()
        raise
    port, mode = (folder / "ready").read_text().split()
    return process, int(port), mode


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(300)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()

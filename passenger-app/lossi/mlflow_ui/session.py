"""The job of one session: opens the store, listens, and reports when it answers.

``ood-apps/mlflow-session`` starts it on a compute node as ``python -m lossi.mlflow_ui.session FOLDER``. Reads ``session.json``, which
`lossi.ood.mlflow_session` has written, and the secret from the environment; writes ``ready`` or ``failure.txt`` into the
session's folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lossi import projects, tracking
from lossi.errors import InvalidInput, LossiError, Unavailable
from lossi.files import atomic
from lossi.mlflow_ui import gate, opening
from lossi.mlflow_ui.opening import Opened
from lossi.projects import Project
from lossi.tracking import ingest_runs

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

SESSION, READY, FAILURE = "session.json", "ready", "failure.txt"
SECRET, HOST, PORTS = "LOSSI_SESSION_SECRET", "LOSSI_SESSION_HOST", "LOSSI_SESSION_PORTS"
INGEST_S = 15.0
"""How often results of running tasks are ingested."""


class Keeper(threading.Thread):
    """Keeps the lease while MLflow may write, and ingests the results that tasks publish meanwhile."""

    def __init__(self, project: Project, lease: tracking.Lease) -> None:
        super().__init__(name="lease", daemon=True)
        self._project, self._lease = project, lease
        self.lost = ""
        """Why the lease was lost; empty while it is held."""

    def run(self) -> None:
        """Run until the process ends or the lease is lost."""
        next_ingest = time.monotonic()
        while not self.lost:
            try:
                self._lease.verify()
            except tracking.LeaseLost as lost:
                self.lost = str(lost)
                return
            self._lease.beat()
            if time.monotonic() >= next_ingest:
                report = ingest_runs(self._project, budget_s=tracking.STALE_S / 4, lease=self._lease)
                for problem in report.problems:
                    sys.stderr.write(f"{problem}\n")
                next_ingest = time.monotonic() + INGEST_S
            time.sleep(tracking.BEAT_S / 2)


class WhileHeld:
    """Answers while the lease is held: MLflow must not write to a store that another process writes to."""

    def __init__(self, app: WSGIApplication, keeper: Keeper) -> None:
        self._app, self._keeper = app, keeper

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        if self._keeper.lost:
            text = f"{self._keeper.lost}\nEnd this session and start another.\n"
            return gate.answer(start_response, "503 Service Unavailable", text.encode())
        return self._app(environ, start_response)


def main(arguments: Sequence[str]) -> int:
    """Run a session until its job ends; return 1 after writing ``failure.txt`` if it cannot start."""
    folder = Path(arguments[0]).resolve()
    secret, host = os.environ.pop(SECRET, ""), os.environ.pop(HOST, "")
    scratch = Path(tempfile.mkdtemp(prefix="lossi-mlflow-"))
    try:
        listener = listen(os.environ.pop(PORTS, ""))
        _serve(folder, secret, host, listener, _opener(folder, scratch))
    except LossiError as error:
        _report_failure(folder, error)
        return 1
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return 0


def _report_failure(folder: Path, error: LossiError) -> None:
    sys.stderr.write(f"{error}\n")
    with contextlib.suppress(OSError):  # a full disk
        (folder / FAILURE).write_text(f"{error}\n", "utf-8", "replace")


def _opener(folder: Path, scratch: Path) -> Callable[[], tuple[Opened, Project | None]]:
    """Check the form's store, migrate an old one, and return a function that opens it in the serving process."""
    try:
        text = json.loads((folder / SESSION).read_bytes())["store"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        text = None
    if not isinstance(text, str):
        raise InvalidInput("the session names no store", hint="start the session from its form")
    place = projects.runs_in(text)
    if isinstance(place, Path):
        copy = opening.migrate(place, folder)
        return lambda: (copy, None)
    opening.check_revision(place.store)
    return lambda: (opening.open_project(place, scratch, hold=True), place)


def _application(opened: Opened, project: Project | None, secret: str, base: str, hosts: Sequence[str]) -> gate.SecretGate:
    from lossi.mlflow_ui import server

    app, _ = server.load(opened, hosts)
    if project is not None and opened.lease is not None:
        keeper = Keeper(project, opened.lease)
        keeper.start()
        app = WhileHeld(app, keeper)
    return gate.SecretGate(app, secret, base)


def listen(ports: str) -> socket.socket:
    """Return a listening socket on the first free one of some ports, separated by blanks.

    The socket is bound here and never passed on, so the card gets a port of this very process. It has the port at all
    addresses of the node, IPv6 included, so that no name of the node leads to another process.

    Raises
    ------
    Unavailable
        If none is free.
    """
    dual = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dual else socket.AF_INET
    for port in (int(word) for word in ports.split() if re.fullmatch(r"[0-9]{4,5}", word)):
        with contextlib.suppress(OSError, OverflowError):
            # Without SO_REUSEADDR: another process might have the port at one of the addresses.
            listener = socket.socket(family, socket.SOCK_STREAM)
            try:
                if dual:
                    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
                listener.bind(("", port))
                listener.listen(64)
            except BaseException:
                listener.close()
                raise
            listener.set_inheritable(True)
            return listener
    raise Unavailable("no free port was found on this node", hint="start the session again, perhaps on another partition")


def _serve(
    folder: Path, secret: str, host: str, listener: socket.socket, opener: Callable[[], tuple[Opened, Project | None]]
) -> None:
    from gunicorn.app.base import BaseApplication

    if not re.fullmatch(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252}[A-Za-z0-9])?", host) or len(secret) < gate.SHORTEST_SECRET:
        raise InvalidInput("the session has no host name or no secret", hint="start it with the app's own script")
    port = listener.getsockname()[1]
    modes: list[Opened] = []

    class Server(BaseApplication):  # type: ignore[misc]
        def load_config(self) -> None:
            self.cfg.set("bind", f"fd://{listener.fileno()}")
            self.cfg.set("workers", 1)
            self.cfg.set("threads", 8)
            self.cfg.set("timeout", 300)
            # One connection per request: the portal's proxy shares open ones among users, and the unread rest of one request
            # may delay the next.
            self.cfg.set("keepalive", 0)
            self.cfg.set("graceful_timeout", 5)
            self.cfg.set("loglevel", "warning")
            self.cfg.set("forwarded_allow_ips", "")
            self.cfg.set("worker_tmp_dir", None)
            self.cfg.set("control_socket_disable", True) if "control_socket_disable" in self.cfg.settings else None
            self.cfg.set("post_worker_init", self.ready)
            self.cfg.set("worker_exit", self.ended)

        def load(self) -> Any:
            try:
                opened, project = opener()
            except LossiError as error:
                _report_failure(folder, error)
                raise SystemExit(3) from error  # gunicorn then starts no other worker
            modes.append(opened)
            hosts = [f"{name}:{port}" for name in (host, "localhost", "127.0.0.1")]
            return _application(opened, project, secret, f"/node/{host}/{port}", hosts)

        @staticmethod
        def ready(worker: object) -> None:
            if modes[-1].why:
                sys.stderr.write(f"{modes[-1].why}\n")
            atomic.write(folder / READY, f"{port} {modes[-1].mode.value}\n".encode(), mode=0o600)

        @staticmethod
        def ended(arbiter: object, worker: object) -> None:
            for opened in modes:
                if opened.lease is not None:
                    with contextlib.suppress(LossiError):
                        opened.lease.release()

    sys.argv = sys.argv[:1]
    Server().run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""MLflow's own pages inside the portal: a Passenger app, one process per user, for all of the user's known projects.

The portal has authenticated the user, and the process runs as that user, so it needs no secret. Passenger passes on one request
at a time, so one MLflow can serve several stores in turn.
"""

from __future__ import annotations

import contextlib
import hashlib
import html
import sys
import tempfile
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote

from lossi import projects
from lossi.errors import InvalidInput, LossiError, NotFound
from lossi.files import roots
from lossi.mlflow_ui import gate, opening, server
from lossi.mlflow_ui.opening import Opened
from lossi.projects import Project, stores
from lossi.tracking import ingest_runs

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

BELOW = "/p/"
STATUS = {403: "Forbidden", 404: "Not Found", 409: "Conflict", 422: "Unprocessable Content", 503: "Service Unavailable"}
INGEST_BUDGET_S = 0.5

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>MLflow</title>
<style>body {{ max-width: 45rem; margin: 2rem auto; padding: 0 1rem; font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere }}</style>
</head>
<body>
<h1>MLflow</h1>
{}
</body>
</html>
"""


class Embedded:
    """The application.

    ``/open?project=NAME_OR_PATH&run=ID`` leads to a run, ``/p/KEY/`` to the pages of one project, ``/`` lists the projects.
    """

    def __init__(self) -> None:
        self._app: WSGIApplication | None = None
        self._place: server.Place | None = None
        self._current = ""
        self._opened: dict[str, tuple[Opened, tuple[Any, Any], int]] = {}
        self._scratch = tempfile.TemporaryDirectory(prefix="lossi-mlflow-")
        self._lock = threading.Lock()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        try:
            if not gate.is_same_origin(environ):
                return gate.answer(start_response, "403 Forbidden", b"Pages of other sites may not do this.\n")
            path, mount = environ.get("PATH_INFO", ""), environ.get("SCRIPT_NAME", "")
            if path.startswith(BELOW):
                return self._mlflow(environ, start_response, *path[len(BELOW) :].partition("/")[::2])
            if path == "/open":
                query = {
                    name: values[0]
                    for name, values in parse_qs(environ.get("QUERY_STRING", ""), errors="surrogateescape").items()
                }
                return _redirect(start_response, mount + self._address(query.get("project", ""), query.get("run", "")))
            if path in ("", "/"):
                return _page(start_response, "200 OK", _project_list(mount))
            raise NotFound("there is no such page", hint="open the app again from Lossi's pages")
        except LossiError as error:
            status = f"{error.status} {STATUS.get(error.status, 'Error')}"
            return _page(start_response, status, f"<p>{html.escape(str(error), quote=False)}</p>")

    def _mlflow(self, environ: WSGIEnvironment, start_response: StartResponse, key: str, rest: str) -> Iterable[bytes]:
        mount = environ.get("SCRIPT_NAME", "")
        if not environ["PATH_INFO"][len(BELOW) :].partition("/")[1]:
            return _redirect(start_response, f"{mount}{BELOW}{key}/")
        project = _known(key)
        with self._lock:
            app = self._select(key, project)
            environ["SCRIPT_NAME"] = f"{mount}{BELOW}{key}"
            environ["PATH_INFO"] = f"/{rest}"
            gate.forget(environ)
            return app(environ, start_response)

    def _select(self, key: str, project: Project) -> WSGIApplication:
        """Let MLflow use this project's store and return its application."""
        if self._app is not None and key == self._current:
            return self._app
        kept = self._opened.get(key)
        if kept is None:
            folder = Path(self._scratch.name) / key
            folder.mkdir(exist_ok=True)
            changed = project.store.stat().st_mtime_ns if project.store.exists() else 0
            opened, objects = opening.open_project(project, folder, hold=False), None
            if opened.why:
                sys.stderr.write(f"lossi: {project.root} is shown from a copy: {opened.why}\n")
        else:
            opened, objects, changed = kept
        if self._app is None:
            # The portal's web server has checked the host name.
            self._app, self._place = server.load(opened, ["*"])
        assert self._place is not None
        self._current = ""
        self._opened[key] = opened, server.switch(opened, self._place, objects), changed
        self._current = key
        return self._app

    def _address(self, name: str, run: str) -> str:
        """Return the address of a run, or of the project's first page, below the mount."""
        project = _allowed(projects.by_name_or_path(name))
        with contextlib.suppress(LossiError):
            ingest_runs(project, budget_s=INGEST_BUDGET_S)
        key = key_of(project)
        with self._lock:
            kept = self._opened.get(key)
            # A user who comes from Lossi's pages must see the same runs here: make a copy anew if the store has changed.
            if kept is not None and kept[0].mode is opening.Mode.COPY and kept[2] != project.store.stat().st_mtime_ns:
                del self._opened[key]
                self._current = ""
        return f"{BELOW}{key}/" + (f"#/experiments/{_experiment(project, run)}/runs/{run}" if run else "")


def key_of(project: Project) -> str:
    """Return a project's name in addresses."""
    return hashlib.sha256(str(project.root).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _known(key: str) -> Project:
    for project in projects.registered():
        if key_of(project) == key:
            return _allowed(project)
    raise NotFound("there is no such project", hint="open the app again from Lossi's pages")


def _allowed(project: Project) -> Project:
    """Return a project that the user has opened and the portal may show; any other is not found."""
    opened = {item.root for item in projects.registered()}
    if project.root not in opened or not roots.portal_allows(project.root):
        raise NotFound("you have no such project", hint="open the project in Lossi first")
    return project


def _experiment(project: Project, run: str) -> str:
    if not run.isalnum() or len(run) > 64:
        raise InvalidInput("this is not a run id", hint="follow the link on a page of Lossi")
    with contextlib.closing(stores.connect_readonly(project.store)) as connection:
        row = connection.execute("SELECT experiment_id FROM runs WHERE run_uuid = ?", (run,)).fetchone()
    if row is None:
        raise NotFound(f"there is no run {run} in {project.name}", hint="it may have been deleted")
    return str(int(row[0]))


def _project_list(mount: str) -> str:
    shown = [project for project in projects.registered() if roots.portal_allows(project.root) and project.store.exists()]
    if not shown:
        return "<p>None of your projects has runs yet. They appear once a job of Lossi has run.</p>"
    items = "".join(
        f'<li><a href="{html.escape(quote(mount))}{BELOW}{key_of(project)}/">{_text(project.name)}</a> <small>{_text(project.root)}</small></li>'
        for project in shown
    )
    return f"<p>Your projects:</p><ul>{items}</ul>"


def _text(value: object) -> str:
    return html.escape(str(value).encode("utf-8", "replace").decode())


def _redirect(start_response: StartResponse, address: str) -> Iterable[bytes]:
    start_response("303 See Other", [("Location", address), ("Content-Length", "0"), ("Cache-Control", "no-store")])
    return []


def _page(start_response: StartResponse, status: str, body: str) -> Iterable[bytes]:
    return gate.answer(start_response, status, PAGE.format(body).encode("utf-8", "replace"), "text/html; charset=utf-8")

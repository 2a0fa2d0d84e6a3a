"""The start page and the API reference: small, server-rendered, all links relative to where the app is mounted."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from flask import Blueprint, Response, current_app, redirect, render_template, request, send_from_directory, url_for
from werkzeug.wrappers import Response as WerkzeugResponse

from lossi import refresh
from lossi.api import context, session_apps
from lossi.errors import LossiError, NotFound

pages = Blueprint("pages", __name__)

RECENT_JOBS = 15
MOST_RUNS = 100
MOST_METRICS = 6

REFERENCE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; "
    "frame-ancestors 'self'; form-action 'none'; base-uri 'none'"
)


@pages.get("/")
def start() -> str | Response | tuple[str, int]:
    """Show recent jobs, the runs of the latest sweep compared, and the way into the API."""
    known = context.known_projects()
    try:
        project = context.project(request.args.get("project"))
    except LossiError as error:
        status = error.status if request.args.get("project") else 200
        return render_template(
            "start.html", projects=known, project=None, problem=error, jobs=[], sweep=None, active=False
        ), status
    problem: LossiError | None = None
    jobs: list[Any] = []
    stale = ""
    sweep: dict[str, Any] | None = None
    try:
        jobs, stale = _recent_jobs(project)
        sweep = _runs(project, _chosen(project, jobs, request.args.get("job")))
    except LossiError as error:
        problem = error
    return render_template(
        "start.html",
        projects=known,
        project=project,
        sessions=_sessions(project),
        problem=problem,
        jobs=jobs,
        stale=stale,
        sweep=sweep,
        active=any(job.is_active for job in jobs),
    )


@pages.get("/api/")
@pages.get("/api/v1/")
def api_root() -> WerkzeugResponse:
    """Lead to the reference."""
    return redirect(url_for("pages.reference"))


@pages.get("/api/v1/docs/")
def reference() -> Response:
    """Show the API reference; everything it loads comes from here."""
    response = Response(render_template("reference.html"), mimetype="text/html")
    response.headers["Content-Security-Policy"] = REFERENCE_POLICY
    return response


@pages.get("/api/v1/docs/<path:name>")
def reference_asset(name: str) -> Response:
    """Serve the files of the reference page, from the package that carries them."""
    import flask_openapi3_swagger

    folder = Path(flask_openapi3_swagger.__file__).parent / "templates" / "swagger"
    if name not in ("css/swagger-ui.css", "js/swagger-ui-bundle.js"):
        raise NotFound(f"there is no file {name!r}")
    return send_from_directory(folder, name, max_age=86400)


@pages.app_context_processor
def _surroundings() -> dict[str, Any]:
    """Return what all pages need: inside Open OnDemand, what its dashboard is called and how MLflow's pages show a run."""
    inside = "PASSENGER_BASE_URI" in os.environ
    return {
        "portal": os.environ.get("OOD_DASHBOARD_TITLE", "Open OnDemand") if inside else "",
        "in_mlflow": _in_mlflow if inside else lambda project, run_id: "",
    }


def _sessions(project: Any) -> list[tuple[str, str]]:
    """Return title and address of the forms that start a session in a project; none outside the portal."""
    present = current_app.config.get(session_apps.SETTING, [])
    return session_apps.links(project.root, present, os.environ.get("PASSENGER_BASE_URI", ""))


def _in_mlflow(project: Any, run_id: str) -> str:
    """Return the address of a run in MLflow's own pages; empty where the site does not offer them."""
    from lossi import settings

    mount = settings.load().mlflow_embedded_url
    return (
        f"{mount.rstrip('/')}/open?{urlencode({'project': str(project.root), 'run': run_id}, errors='surrogateescape')}"
        if mount
        else ""
    )


def _recent_jobs(project: Any) -> tuple[list[Any], str]:
    from lossi import jobs

    page = jobs.list_jobs(project, limit=RECENT_JOBS)
    return list(page.items), page.stale


def _chosen(project: Any, recent: list[Any], job_id: str | None) -> Any:
    """Return the job whose runs are shown: the one asked for, else the newest sweep, else the newest job that has started."""
    from lossi import jobs

    if job_id:
        return jobs.get(project, job_id)
    started = [job for job in recent if job.started]
    return next(iter([*(job for job in recent if job.tasks > 1), *started, *recent]), None)


def _runs(project: Any, chosen: Any) -> dict[str, Any] | None:
    """Return a job's runs as a small table, the parameters that differ first."""
    from lossi import tracking

    if chosen is None:
        return None
    refresh.update_project(project)
    table = tracking.search(
        project, filter=f"tags.`lossi.job_id` = '{chosen.id}'", order_by=["attributes.start_time ASC"], limit=MOST_RUNS
    )
    columns: dict[str, list[Any]] = table.columns
    number = len(columns.get("run_id", []))
    params = [name for name in columns if name.startswith("params.") and len({repr(value) for value in columns[name]}) > 1]
    metrics = [name for name in columns if name.startswith("metrics.")][:MOST_METRICS]
    main = next((name for name in metrics if "accuracy" in name or "auc" in name or "f1" in name), None)
    order = sorted(range(number), key=lambda i: _descending(columns[main][i])) if main else list(range(number))
    shown = params + metrics
    return {
        "job": chosen,
        "names": [name.partition(".")[2] for name in shown],
        "metrics_from": len(params),
        "rows": [{"run_id": columns["run_id"][i], "values": [_text(columns[name][i]) for name in shown]} for i in order],
        "order": main.partition(".")[2] if main else "",
        "stale": table.stale,
    }


def _descending(value: Any) -> tuple[int, float]:
    return (0, -value) if isinstance(value, (int, float)) else (1, 0.0)


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.5g}" if isinstance(value, float) else str(value)[:80]

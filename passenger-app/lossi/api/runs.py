"""Runs: list, show, compare, draw and export them; their artifacts and experiments."""

from __future__ import annotations

from typing import Literal

from flask import Response
from flask_openapi3 import Tag
from pydantic import BaseModel, ConfigDict, Field

from lossi import refresh, tracking
from lossi.api import context, sending
from lossi.api.operations import Operations
from lossi.files.beneath import Entry
from lossi.projects import Project
from lossi.tracking import Comparison, Experiments, Histories, RunDetail, RunTable, View

api = Operations("runs", __name__, abp_tags=[Tag(name="runs", description="Runs of the tasks, as MLflow tracked them.")])

MOST_ROWS = 10_000
MOST_IDS = 10_000
FILTER = (
    "Conditions joined by AND in the language of MLflow's `search_runs`, for example `metrics.accuracy > 0.9 AND params.model = 'svc'`, "
    "extended by `job.<column>` for facts of the task."
)


class RunSelection(context.ProjectQuery):
    """A selection of runs, their order and columns."""

    filter: str = Field(default="", max_length=100_000, description=FILTER)
    order_by: list[str] = Field(
        default=[], max_length=20, description="For example `metrics.accuracy DESC`; repeatable. Default: newest first."
    )
    experiments: list[str] | None = Field(
        default=None, max_length=1000, description="Ids or names of experiments; repeatable. Default: all."
    )
    view: View = Field(default="active", description="Active runs, deleted ones, or all.")
    columns: list[str] | None = Field(
        default=None,
        max_length=1000,
        description="Columns of the answer, such as `run_id`, `params.lr`, `metrics.*`, `job.state`; repeatable. Default: attributes, facts "
        "of the task, and every param, metric and tag that occurs, without most of MLflow's own tags.",
    )


class RunsQuery(RunSelection):
    """A page of runs."""

    limit: int = Field(default=100, ge=1, le=MOST_ROWS, description="Runs on a page.")
    cursor: str | None = Field(default=None, max_length=8192, description="`next_cursor` of the previous page.")


class ExportQuery(RunSelection):
    """Runs as a file."""

    format: Literal["csv", "json"] = Field(default="csv", description="CSV with a header, or one JSON array of flat objects.")


class RunPath(BaseModel):
    """A run."""

    run_id: str = Field(min_length=1, max_length=256, pattern="^[A-Za-z0-9_-]+$", description="Id of the run.")


class ArtifactQuery(context.ProjectQuery):
    """A folder of a run's artifacts."""

    path: str = Field(default="", max_length=4096, description="Relative to the run's artifacts; empty for their root.")


class ContentQuery(context.ProjectQuery):
    """A file of a run's artifacts."""

    path: str = Field(min_length=1, max_length=4096, description="Relative to the run's artifacts.")


class ArtifactList(BaseModel):
    """A folder of artifacts: folders first, then by name."""

    items: list[Entry]


class CompareRequest(BaseModel):
    """Runs to compare."""

    model_config = ConfigDict(extra="forbid")

    run_ids: list[str] = Field(min_length=1, max_length=MOST_IDS, description="Ids of the runs; the answer keeps their order.")


class HistoryRequest(BaseModel):
    """Metric histories."""

    model_config = ConfigDict(extra="forbid")

    run_ids: list[str] = Field(min_length=1, max_length=MOST_IDS)
    keys: list[str] = Field(min_length=1, max_length=1000, description="Keys of metrics.")
    buckets: int | None = Field(
        default=None, ge=2, le=200_000, description="Most entries of a series; default: min(2000, 200,000 / runs)."
    )
    x: Literal["step", "time"] = Field(default="step", description="Steps, or milliseconds since 1970.")


@api.get("/experiments", summary="List experiments", responses={200: Experiments})
def list_experiments(query: context.ProjectQuery) -> Response:
    """List the experiments of a project, newest first, with the number of their runs."""
    return _json(tracking.list_experiments(_refreshed(query)))


@api.get("/runs", summary="List runs", responses={200: RunTable})
def list_runs(query: RunsQuery) -> Response:
    """List runs as columns, filtered and ordered in MLflow's own language."""
    table = tracking.search(
        _refreshed(query),
        filter=query.filter,
        order_by=query.order_by,
        experiments=query.experiments,
        view=query.view,
        limit=query.limit,
        cursor=query.cursor,
        columns=query.columns,
    )
    return _json(table)


@api.get("/runs/<run_id>", summary="Show a run", responses={200: RunDetail})
def show_run(path: RunPath, query: context.ProjectQuery) -> Response:
    """Show everything known about one run."""
    return _json(tracking.run(_refreshed(query), path.run_id))


@api.post("/runs/compare", summary="Compare runs", responses={200: Comparison})
def compare(query: context.ProjectQuery, body: CompareRequest) -> Response:
    """Show what differs between runs and what is equal, with a warning if more than the parameters differs."""
    return _json(tracking.compare(_refreshed(query), body.run_ids))


@api.post("/metrics/history", summary="Metric histories", responses={200: Histories})
def history(query: context.ProjectQuery, body: HistoryRequest) -> Response:
    """Return metric histories of many runs: every point, or buckets that keep the extremes."""
    return _json(tracking.history(_refreshed(query), body.run_ids, body.keys, body.buckets, body.x))


@api.get(
    "/runs/export",
    summary="Export runs",
    responses={200: {"content": {"text/csv": {"schema": {"type": "string"}}, "application/json": {"schema": {"type": "array"}}}}},
)
def export(query: ExportQuery) -> Response:
    """Download all matching runs as CSV or JSON."""
    from lossi.files import downloads

    project = _refreshed(query)
    pieces = tracking.export(
        project,
        filter=query.filter,
        order_by=query.order_by,
        experiments=query.experiments,
        view=query.view,
        columns=query.columns,
        format=query.format,
    )
    headers = downloads.headers(f"{project.name}-runs.{query.format}", "application/octet-stream")
    headers["Content-Type"] = {"csv": "text/csv; charset=utf-8", "json": "application/json"}[query.format]
    return Response((piece.encode("utf-8", "replace") for piece in pieces), headers=headers)


@api.get("/runs/<run_id>/artifacts", summary="List artifacts of a run", responses={200: ArtifactList})
def list_artifacts(path: RunPath, query: ArtifactQuery) -> Response:
    """List a folder of a run's artifacts."""
    return _json(ArtifactList(items=tracking.artifacts(context.project(query.project), path.run_id, query.path)))


@api.get(
    "/runs/<run_id>/artifacts/content",
    summary="Download an artifact",
    responses={200: {"content": {"*/*": {"schema": {"type": "string", "format": "binary"}}}}},
)
def artifact_content(path: RunPath, query: ContentQuery) -> Response:
    """Send one file of a run's artifacts; the browser shows it only if it is inert."""
    return sending.file(tracking.open_artifact(context.project(query.project), path.run_id, query.path), query.path)


def _refreshed(query: context.ProjectQuery) -> Project:
    """Return the project of a request, with what its tasks have published."""
    project = context.project(query.project)
    refresh.update_project(project)
    return project


def _json(answer: BaseModel) -> Response:
    return Response(answer.model_dump_json(), mimetype="application/json")

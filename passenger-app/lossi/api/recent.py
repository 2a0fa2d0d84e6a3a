"""The newest jobs over all known projects: for a box on another page, such as the dashboard of Open OnDemand."""

from __future__ import annotations

from typing import Any

from flask import Response, jsonify, url_for
from flask_openapi3 import Tag
from pydantic import BaseModel, ConfigDict, Field

from lossi.api import context
from lossi.api.operations import Operations

api = Operations("recent", __name__, abp_tags=[Tag(name="recent", description="The newest jobs over all projects.")])


class RecentQuery(BaseModel):
    """How many."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(5, ge=1, le=20, description="At most so many jobs.")


class RecentJob(BaseModel):
    """A job as its project's index has it, and where its pages are."""

    id: str
    name: str
    kind: str
    project: str = Field(description="Absolute path of its project.")
    project_name: str
    user: str
    cluster: str | None
    state: str
    active: bool = Field(
        description="Whether something is still to come; ask GET /api/v1/jobs of its project for the newest facts."
    )
    why: str = Field(description="Reason for its state, if known.")
    tasks: int
    done: int = Field(description="Tasks that have ended.")
    runs: int = Field(description="MLflow runs ingested so far.")
    created: str
    ended: str | None
    page: str = Field(description="Path of the job's page on this server.")
    runs_page: str = Field(description="Path of the page that compares its runs.")


class RecentJobs(BaseModel):
    """The newest jobs, and how many projects there are."""

    items: list[RecentJob]
    projects: int = Field(description="Known projects.")


@api.get("/recent", summary="List the newest jobs of all projects", responses={200: RecentJobs})
def list_recent(query: RecentQuery) -> Response:
    """List the newest jobs over all known projects, from what is known: no scheduler is asked and nothing is written."""
    from lossi.jobs import recent
    from lossi.projects import is_utf8

    known = context.known_projects()
    default = context.default_project()
    if default is not None and default.root not in {project.root for project in known}:
        known = [default, *known]
    # A path that is not UTF-8 has no address: its jobs are shown on the command line only.
    items = [_shown(item) for item in recent([project for project in known if is_utf8(str(project.root))], query.limit)]
    return jsonify(RecentJobs(items=items, projects=len(known)).model_dump())


def _shown(item: Any) -> RecentJob:
    from lossi import jobs

    job, project = item.job, str(item.project.root)
    return RecentJob(
        **job.model_dump(include={"id", "name", "kind", "user", "cluster", "state", "tasks", "created", "ended"}),
        project=project,
        project_name=item.project.name,
        active=job.is_active,
        why=jobs.explain_briefly(job),
        done=job.done,
        runs=item.runs,
        page=url_for("job_pages.job", job_id=job.id, project=project),
        runs_page=url_for("pages.start", project=project, job=job.id),
    )

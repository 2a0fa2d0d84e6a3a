"""Why jobs and tasks failed or wait, what to request next time, how long the queue takes."""

from __future__ import annotations

from flask import Response, jsonify
from flask_openapi3 import Tag

from lossi.api import context
from lossi.api.jobs import JobPath, TaskPath
from lossi.api.operations import Operations
from lossi.jobs import JobAdvice, JobDiagnosis, QueueWaits, TaskExplanation
from lossi.jsonable import plain

api = Operations(
    "diagnosis", __name__, abp_tags=[Tag(name="diagnosis", description="Why jobs failed or wait, and what to request next time.")]
)


@api.get("/jobs/<job_id>/diagnosis", summary="Explain a job", responses={200: JobDiagnosis})
def explain_job(path: JobPath, query: context.ProjectQuery) -> Response:
    """Say why tasks of a job failed, grouped by cause with an example and a suggestion, and why others wait."""
    from lossi import jobs

    return jsonify(plain(jobs.explain(context.project(query.project), path.job_id)))


@api.get("/jobs/<job_id>/tasks/<int:task>/diagnosis", summary="Explain a task", responses={200: TaskExplanation})
def explain_task(path: TaskPath, query: context.ProjectQuery) -> Response:
    """Say why a task failed, with its last cell, log lines and a suggestion, or why it waits."""
    from lossi import jobs

    return jsonify(plain(jobs.explain_task(context.project(query.project), path.job_id, path.task)))


@api.get("/jobs/<job_id>/advice", summary="Right-size a job", responses={200: JobAdvice})
def advise(path: JobPath, query: context.ProjectQuery) -> Response:
    """Compare what a job requested with what its tasks used, and say what to request next time."""
    from lossi import jobs

    return jsonify(plain(jobs.advise(context.project(query.project), path.job_id)))


@api.get("/queue-waits", summary="Show queue waits", responses={200: QueueWaits})
def queue_waits(query: context.ProjectQuery) -> Response:
    """Show how long the user's own tasks waited in each partition in the last 90 days, in one project or in all."""
    from lossi import jobs

    if query.project is not None:
        return jsonify(plain(jobs.queue_waits([context.project(query.project)])))
    projects = {project.root: project for project in context.known_projects()}
    default = context.default_project()
    if default is not None:
        projects[default.root] = default
    return jsonify(plain(jobs.queue_waits(projects.values())))

"""The pages of one job and of one task's log: server-rendered, everything on them from the rooms that REST asks too."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from flask import Blueprint, render_template, request

from lossi.api import context
from lossi.contract.states import is_active, label
from lossi.units import humanize_duration

if TYPE_CHECKING:
    from lossi.jobs import Job

pages = Blueprint("job_pages", __name__)

TASKS_ON_A_PAGE = 100
LOG_BYTES = 128 * 1024


@pages.get("/jobs/<job_id>")
def job(job_id: str) -> str:
    """Show one job: how it stands and why, and its tasks with what they left."""
    from lossi import jobs

    project = context.project(request.args.get("project"))
    shown_job = jobs.get(project, job_id)
    page = jobs.tasks(project, shown_job.id, limit=TASKS_ON_A_PAGE, cursor=request.args.get("cursor"))
    return render_template(
        "job.html",
        project=project,
        job=shown_job,
        why=jobs.explain(project, shown_job.id),
        tasks=page.items,
        next_cursor=page.next_cursor,
        stale=page.stale,
        active=shown_job.is_active,
    )


@pages.get("/jobs/<job_id>/tasks/<int:task>/log")
def log(job_id: str, task: int) -> str:
    """Show the end of a task's log."""
    from lossi import jobs
    from lossi.files.text import neutralised

    project = context.project(request.args.get("project"))
    shown_task = jobs.task(project, job_id, task)
    chunk = jobs.log(project, job_id, task, -LOG_BYTES, LOG_BYTES)
    return render_template(
        "log.html",
        project=project,
        job_id=shown_task.job_id,
        task=shown_task,
        text=neutralised(chunk.data.decode("utf-8", "replace")),
        skipped=chunk.offset,
        active=is_active(shown_task.state),
    )


@pages.app_template_filter()
def reason(job: Job) -> str:
    """Return the reason for a job's state in one sentence."""
    from lossi import jobs

    return jobs.explain_briefly(job)


pages.add_app_template_filter(label)
pages.add_app_template_filter(humanize_duration, "duration")


@pages.app_template_filter()
def moment(text: str | None) -> str:
    """Return an ISO time as a table shows it: without fractions and zone, which is UTC."""
    if not text:
        return ""
    try:
        return datetime.fromisoformat(text).strftime("%Y-%m-%d %H:%M:%S")
    except ValueError:
        return text

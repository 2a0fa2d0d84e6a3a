"""The pages of one job and of one task's log: server-rendered, everything on them from the rooms that REST asks too."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from flask import Blueprint, render_template, request

from lossi import units
from lossi.api import context
from lossi.contract.records import FINAL_STATES, QUEUED

pages = Blueprint("job_pages", __name__)

TASKS_ON_A_PAGE = 100
LOG_BYTES = 128 * 1024


@pages.get("/jobs/<job_id>")
def job(job_id: str) -> str:
    """Show one job: how it stands and why, and its tasks with what they left."""
    from lossi import jobs

    project = context.project(request.args.get("project"))
    found = jobs.get(project, job_id)
    page = jobs.tasks(project, found.id, limit=TASKS_ON_A_PAGE, cursor=request.args.get("cursor"))
    return render_template(
        "job.html",
        project=project,
        job=found,
        row=progress(found),
        why=jobs.explain(project, found.id),
        tasks=page.items,
        next_cursor=page.next_cursor,
        stale=page.stale,
        active=is_active(found),
    )


@pages.get("/jobs/<job_id>/tasks/<int:task>/log")
def log(job_id: str, task: int) -> str:
    """Show the end of a task's log."""
    from lossi import jobs
    from lossi.files.text import neutralised

    project = context.project(request.args.get("project"))
    found = jobs.task(project, job_id, task)
    chunk = jobs.log(project, job_id, task, -LOG_BYTES, LOG_BYTES)
    return render_template(
        "log.html",
        project=project,
        job_id=found.job_id,
        task=found,
        text=neutralised(chunk.data.decode("utf-8", "replace")),
        skipped=chunk.offset,
        active=found.state not in FINAL_STATES and found.state != "unknown",
    )


def is_active(job: Any) -> bool:
    """Return whether something about a job is still to come."""
    return job.state not in FINAL_STATES and job.state != "unknown"


def progress(job: Any) -> dict[str, Any]:
    """Return a job with how many of its tasks have ended, the shares that ended well and badly in percent, and why it stands so."""
    from lossi import jobs

    done = sum(number for state, number in job.counts.items() if state in FINAL_STATES)
    good = job.counts.get("succeeded", 0)
    return {
        "job": job,
        "done": done,
        "good_percent": round(100 * good / max(job.tasks, 1)),
        "bad_percent": round(100 * (done - good) / max(job.tasks, 1)),
        "why": jobs.explain_pending(job.reason, job.scheduler).sentence if job.state == QUEUED and job.reason else job.reason,
    }


@pages.app_template_filter()
def moment(text: str | None) -> str:
    """Return an ISO time as a table shows it: without fractions and zone, which is UTC."""
    if not text:
        return ""
    try:
        return datetime.fromisoformat(text).strftime("%Y-%m-%d %H:%M:%S")
    except ValueError:
        return text


@pages.app_template_filter()
def duration(seconds: float | None) -> str:
    """Return seconds as Slurm shows them: ``[days-]hours:minutes:seconds``."""
    return "" if seconds is None else units.format_time(round(seconds))

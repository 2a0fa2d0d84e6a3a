"""Jobs and their tasks: preview, submit, watch, read logs, cancel, resubmit."""

from __future__ import annotations

from typing import Any, Literal

from flask import Response, jsonify, url_for
from flask_openapi3 import Tag
from pydantic import BaseModel, ConfigDict, Field

from lossi.api import context
from lossi.api.operations import Operations
from lossi.contract.states import State, is_active
from lossi.jobs import Job, JobSpec, Preview, Task
from lossi.jsonable import plain

api = Operations("jobs", __name__, abp_tags=[Tag(name="jobs", description="Submissions to the batch system, and their tasks.")])


class JobPath(BaseModel):
    """A job."""

    job_id: str = Field(min_length=1, max_length=26, pattern="^[0-9a-z]+$", description="Job id.")


class TaskPath(JobPath):
    """A task of a job."""

    task: int = Field(ge=0, lt=1_000_000, description="Task number, from 0.")


class JobsQuery(context.PageQuery):
    """Filter for jobs or tasks."""

    state: State | None = Field(None, description="Only jobs or tasks in this state.")


class LogQuery(context.ProjectQuery):
    """Part of a log."""

    offset: int = Field(0, ge=0, lt=2**62, description="First byte. To start near the end, ask for `size` first.")
    limit: int = Field(65536, ge=0, le=1_048_576, description="Most bytes to return.")


class JobPage(BaseModel):
    """A page of jobs, newest first."""

    items: list[Job]
    next_cursor: str | None = None
    total: int = Field(description="Number of jobs on all pages.")
    stale: str = Field(description="If not empty: why the answer may be out of date, such as a scheduler that does not answer.")


class TaskPage(BaseModel):
    """A page of tasks, ordered by number."""

    items: list[Task]
    next_cursor: str | None = None
    total: int = Field(description="Number of tasks on all pages.")
    stale: str = Field(description="If not empty: why the answer may be out of date, such as a scheduler that does not answer.")


class LogChunk(BaseModel):
    """Part of a log as text; invalid UTF-8 is replaced, terminal escapes are removed."""

    text: str
    offset: int
    next_offset: int = Field(description="`offset` of the next request; equal to `offset` if there is nothing new.")
    size: int = Field(description="Present size of the log in bytes.")
    ended: bool = Field(description="Whether the task has ended: then the log is complete once `next_offset` = `size`.")


class CancelRequest(BaseModel):
    """What to cancel."""

    model_config = ConfigDict(extra="forbid")

    tasks: list[int] | None = Field(None, description="Task numbers; none: the whole job.", max_length=100_000)


class ResubmitRequest(BaseModel):
    """What to resubmit, and with which changes."""

    model_config = ConfigDict(extra="forbid")

    tasks: Literal["failed"] | list[int] | None = Field(None, description="`failed` or task numbers; none: all tasks.")
    changes: dict[str, Any] = Field(
        default_factory=dict, description="Members of the `JobSpec` to replace; `parameters` and `resources` are merged."
    )
    more: list[Literal["time", "memory"]] = Field(
        default_factory=list,
        max_length=2,
        description="Request more of it: as much as suggested for the tasks that ran out. Without `tasks`, only those are resubmitted.",
    )
    same_code: bool = Field(False, description="Use the code of the first submission instead of the present code.")


class SubmitHeader(BaseModel):
    """Headers of a submission."""

    idempotency_key: str | None = Field(
        None,
        alias="Idempotency-Key",
        max_length=256,
        description="Repeated requests with the same key submit one job and get the same answer.",
    )


@api.post("/jobs/preview", summary="Preview a job", responses={200: Preview})
def preview(query: context.ProjectQuery, body: JobSpec) -> Response:
    """Show script, command line and first tasks of a job; submit and keep nothing."""
    from lossi import jobs

    return jsonify(plain(jobs.preview(context.project(query.project), body)))


@api.post("/jobs", summary="Submit a job", responses={201: Job})
def submit(query: context.ProjectQuery, body: JobSpec, header: SubmitHeader) -> tuple[Response, int, dict[str, str]]:
    """Submit a notebook, script or command, once or as a sweep."""
    from lossi import jobs

    job = jobs.submit(context.project(query.project), body, idempotency_key=header.idempotency_key)
    return _created(job)


@api.get("/jobs", summary="List jobs", responses={200: JobPage})
def list_jobs(query: JobsQuery) -> Response:
    """List jobs, newest first."""
    from lossi import jobs

    return jsonify(
        plain(jobs.list_jobs(context.project(query.project), state=query.state, limit=query.limit, cursor=query.cursor))
    )


@api.get("/jobs/<job_id>", summary="Show a job", responses={200: Job})
def show_job(path: JobPath, query: context.ProjectQuery) -> Response:
    """Show one job with the number of its tasks in each state."""
    from lossi import jobs

    return jsonify(plain(jobs.get(context.project(query.project), path.job_id)))


@api.get("/jobs/<job_id>/tasks", summary="List the tasks of a job", responses={200: TaskPage})
def list_tasks(path: JobPath, query: JobsQuery) -> Response:
    """List the tasks of a job with their parameters, states, progress and facts."""
    from lossi import jobs

    page = jobs.tasks(context.project(query.project), path.job_id, state=query.state, limit=query.limit, cursor=query.cursor)
    return jsonify(plain(page))


@api.get("/jobs/<job_id>/tasks/<int:task>", summary="Show a task", responses={200: Task})
def show_task(path: TaskPath, query: context.ProjectQuery) -> Response:
    """Show one task."""
    from lossi import jobs

    return jsonify(plain(jobs.task(context.project(query.project), path.job_id, path.task)))


@api.get("/jobs/<job_id>/tasks/<int:task>/log", summary="Read the log of a task", responses={200: LogChunk})
def read_log(path: TaskPath, query: LogQuery) -> Response:
    """Read part of a task's log, by byte offset."""
    from lossi import jobs
    from lossi.files.text import neutralised

    project = context.project(query.project)
    ended = not is_active(jobs.task(project, path.job_id, path.task).state)
    chunk = jobs.log(project, path.job_id, path.task, query.offset, query.limit)
    text = neutralised(chunk.data.decode("utf-8", "replace"))
    answer = LogChunk(text=text, offset=chunk.offset, next_offset=chunk.next_offset, size=chunk.size, ended=ended)
    return jsonify(answer.model_dump())


@api.get(
    "/jobs/<job_id>/tasks/<int:task>/notebook",
    summary="Show the output notebook of a task",
    responses={200: {"content": {"text/html": {"schema": {"type": "string"}}}}},
)
def output_notebook(path: TaskPath, query: context.ProjectQuery) -> Response:
    """Render the executed notebook, as far as it has run, to HTML that cannot run scripts in this origin."""
    from lossi import jobs
    from lossi.api.notebooks import rendered

    source = jobs.output_notebook(context.project(query.project), path.job_id, path.task)
    return rendered(source)


@api.post("/jobs/<job_id>/cancel", summary="Cancel a job", responses={202: Job})
def cancel(path: JobPath, query: context.ProjectQuery, body: CancelRequest) -> tuple[Response, int]:
    """Stop a job or some of its tasks; their results so far are kept."""
    from lossi import jobs

    return jsonify(plain(jobs.cancel(context.project(query.project), path.job_id, body.tasks))), 202


@api.post("/jobs/<job_id>/resubmit", summary="Submit a job again", responses={201: Job})
def resubmit(path: JobPath, query: context.ProjectQuery, body: ResubmitRequest) -> tuple[Response, int, dict[str, str]]:
    """Submit a job again, all of it or some tasks, with changes."""
    from lossi import jobs

    job = jobs.resubmit(
        context.project(query.project),
        path.job_id,
        tasks=body.tasks,
        changes=body.changes,
        more=body.more,
        same_code=body.same_code,
    )
    return _created(job)


def _created(job: Job) -> tuple[Response, int, dict[str, str]]:
    return jsonify(plain(job)), 201, {"Location": url_for("jobs.show_job", job_id=job.id)}

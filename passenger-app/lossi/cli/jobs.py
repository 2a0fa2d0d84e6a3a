"""``lossi jobs``, ``logs``, ``cancel``, ``resubmit``: follow and change submitted jobs."""

from __future__ import annotations

import json
import sys
import time
from typing import Annotated, Any, Literal

import typer

from lossi.cli import options, output
from lossi.cli.follow import until_ended, value_text
from lossi.cli.naming import JobId, TaskId, identify, split
from lossi.contract.states import RUNNING, SUCCEEDED, has_ended, is_active, label
from lossi.errors import InvalidInput
from lossi.units import humanize_duration, humanize_memory

CHUNK = 256 * 1024


def register(parent: typer.Typer) -> None:
    """Add the commands that act on jobs."""
    from lossi.cli import why

    group = typer.Typer(no_args_is_help=True)
    group.command("list")(list_jobs)
    group.command("show")(show)
    why.register(group)
    parent.add_typer(
        group, name="jobs", help="Submitted jobs and their tasks: list, show, why they died or wait, what they used."
    )
    parent.command("logs")(logs)
    parent.command("cancel")(cancel)
    parent.command("resubmit")(resubmit)


def list_jobs(
    state: Annotated[str | None, typer.Option(help="Only jobs in this state, such as running or failed.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-l", min=1, max=1000, help="At most this many, newest first.")] = 20,
    cursor: Annotated[str | None, typer.Option(help="Continue after this `next_cursor`.")] = None,
    project: options.Project = None,
    as_json: options.Json = False,
) -> None:
    """List the jobs of the project, newest first."""
    from lossi import jobs

    page = jobs.list_jobs(options.project(project), state=state, limit=limit, cursor=cursor)

    def render() -> None:
        rows = [
            [
                job.id,
                job.name,
                label(job.state),
                f"{job.done}/{job.tasks}",
                job.environment,
                (job.created or "")[:19].replace("T", " "),
                jobs.explain_briefly(job),
            ]
            for job in page.items
        ]
        output.show_table(
            ("job", "name", "state", "tasks", "environment", "submitted (UTC)", "why"),
            rows,
            empty="No job is in this state." if state else "No job yet. Submit one: lossi run NOTEBOOK.ipynb",
        )
        if page.stale:
            output.note(f"this may be old: {page.stale}")
        if page.next_cursor:
            output.note(f"more: lossi jobs list --cursor {page.next_cursor}")

    output.emit(page, as_json, render)


def show(
    job_id: JobId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Watch until it ends.")] = False,
    state: Annotated[str | None, typer.Option(help="Only tasks in this state.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-l", min=1, max=1000, help="At most this many tasks.")] = 50,
    project: options.Project = None,
    as_json: options.Json = False,
) -> None:
    """Show a job and its tasks."""
    from lossi import jobs
    from lossi.cli import why

    place = options.project(project)
    job = jobs.get(place, identify(place, job_id))
    if follow and not has_ended(job.state):
        job = until_ended(place, job.id)
    page = jobs.tasks(place, job.id, state=state, limit=limit)

    def render() -> None:
        output.say(
            f"{job.id}  {job.name}  {label(job.state)}  {job.done}/{job.tasks} tasks"
            + (f"  ({job.reason})" if job.reason else "")
        )
        output.say(
            f"{job.source or 'command'} in {job.environment} on {job.scheduler}, commit {(job.commit_id or 'none')[:10]}{' with changes' if job.dirty else ''}"
        )
        rows = [
            [
                task.task,
                label(task.state),
                _parameters(task),
                "" if task.elapsed_s is None else humanize_duration(task.elapsed_s),
                "" if task.max_rss_mb is None else humanize_memory(task.max_rss_mb),
                task.host,
                _why(task),
            ]
            for task in page.items
        ]
        output.show_table(
            ("task", "state", "parameters", "elapsed", "memory", "host", "what"), rows, right=("task", "elapsed", "memory")
        )
        if page.stale:
            output.note(f"this may be old: {page.stale}")
        if page.next_cursor:
            output.note(f"more: lossi jobs show {job.id} --limit 1000")
        why.show_next(why.explanation(place, job))

    output.emit({"job": job, "tasks": page}, as_json, render)


def logs(
    task_id: TaskId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Print what is added, until the task ends.")] = False,
    tail: Annotated[int | None, typer.Option("--bytes", min=0, help="Only this many bytes, from the end.")] = None,
    project: options.Project = None,
    as_json: options.Json = False,
) -> None:
    """Print a task's log (default: the first task)."""
    from lossi import jobs
    from lossi.files.text import neutralised

    place = options.project(project)
    job_id, task = split(task_id)
    job_id = identify(place, job_id)
    offset = 0
    if tail is not None:
        offset = max(0, jobs.log(place, job_id, task or 0, 0, 0).size - tail)
    collected: list[str] = []
    while True:
        # Check the state before reading, so that what was written before the end is not missed.
        ended = not follow or not is_active(jobs.task(place, job_id, task or 0).state)
        chunk = jobs.log(place, job_id, task or 0, offset, CHUNK)
        offset = chunk.next_offset
        text = chunk.data.decode("utf-8", "replace")
        if as_json:
            collected.append(text)
        else:
            sys.stdout.write(neutralised(text))
            sys.stdout.flush()
        if chunk.data:
            continue
        if ended:
            break
        time.sleep(0.3)
    if as_json:
        output.emit({"job": job_id, "task": task or 0, "next_offset": offset, "text": "".join(collected)}, True, lambda: None)


def cancel(task_id: TaskId, project: options.Project = None, as_json: options.Json = False) -> None:
    """Cancel a job, or one task of it."""
    from lossi import jobs

    place = options.project(project)
    job_id, task = split(task_id)
    job = jobs.cancel(place, identify(place, job_id), None if task is None else [task])
    what = job.id if task is None else f"{job.id}.{task}"
    output.emit(job, as_json, lambda: output.say(f"{what} is being cancelled; what it has done so far is kept"))


def resubmit(
    job_id: JobId,
    failed: Annotated[bool, typer.Option("--failed", help="Only the tasks that did not succeed.")] = False,
    task: Annotated[list[int] | None, typer.Option("--task", help="Only this task; repeat for more.")] = None,
    param: Annotated[list[str] | None, typer.Option("-p", "--param", metavar="NAME=VALUE", help="A parameter to change.")] = None,
    env: Annotated[str | None, typer.Option("-e", "--env", help="Another environment.")] = None,
    cpus: Annotated[int | None, typer.Option("-c", "--cpus", min=1, help="Cores per task.")] = None,
    memory: Annotated[str | None, typer.Option("-m", "--memory", help="Memory per task, such as 8G.")] = None,
    time_limit: Annotated[str | None, typer.Option("-t", "--time", help="Time limit per task.")] = None,
    more: Annotated[
        list[str] | None,
        typer.Option("--more", help="time or memory: raise the limit of the tasks that hit it; repeat for both."),
    ] = None,
    same_code: Annotated[bool, typer.Option("--same-code", help="Use the code as it was then, not as it is now.")] = False,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return after submission.")] = False,
    project: options.Project = None,
    as_json: options.Json = False,
) -> None:
    """Submit a job again, all of it or only what failed, with the changes that you name."""
    from lossi import jobs
    from lossi.cli import follow, why

    raised_resources = [_resource(word) for word in more or ()]
    if failed and task:
        raise InvalidInput("--failed and --task exclude each other", hint="use one of them")
    place = options.project(project)
    old = jobs.get(place, identify(place, job_id))
    changes: dict[str, Any] = {}
    if param:
        changes["parameters"] = _changed(place, old, param)
    resources = {key: value for key, value in (("cpus", cpus), ("memory", memory), ("time", time_limit)) if value is not None}
    if resources:
        changes["resources"] = resources
    if env is not None:
        changes["environment"] = env
    which: list[int] | Literal["failed"] | None = "failed" if failed else task or None
    job = jobs.resubmit(place, old.id, tasks=which, changes=changes, more=raised_resources, same_code=same_code)
    raised = why.raised_limits(old, jobs.get(place, job.id)) if raised_resources else ""
    if detach:
        output.emit(job, as_json, lambda: output.say(f"{job.id}  {job.tasks} task(s) submitted again{raised}"))
        return
    if not as_json:
        output.note(f"job {job.id}: {job.name}, {job.tasks} task(s){raised}")
    ended = until_ended(place, job.id)
    output.emit(ended, as_json, lambda: follow.show_result(place, ended))
    if ended.state != SUCCEEDED:
        raise typer.Exit(1)


def _resource(word: str) -> Literal["time", "memory"]:
    if word == "time":
        return "time"
    if word == "memory":
        return "memory"
    raise InvalidInput(f"--more {word!r} is not valid", hint="use --more time or --more memory")


def _changed(project: Any, old: Any, param: list[str]) -> dict[str, Any]:
    from lossi.cli.values import Reader, pairs

    notebook = project.root / old.source if old.kind == "notebook" and old.source else None
    return Reader(notebook if notebook is not None and notebook.exists() else None).values(pairs(param, "-p"))


def _parameters(task: Any) -> str:
    return value_text(
        ", ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in (task.parameters or {}).items())
    )


def _why(task: Any) -> str:
    if task.error:
        return f"{task.error.name}: {task.error.message}"[:120]
    if task.progress and task.state == RUNNING and task.progress.cells:
        return f"cell {task.progress.cell} of {task.progress.cells}: {task.progress.first_line[:50]}"
    return task.reason or ""

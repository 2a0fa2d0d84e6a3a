"""``lossi jobs why``, ``advice``, ``waits``: why a job failed or waits, what it used, how long the queue takes."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import typer

from lossi.cli import options, output
from lossi.cli.naming import JobId, TaskId, identify, split
from lossi.contract.states import RUNNING, SUCCEEDED
from lossi.units import humanize_duration, humanize_memory

if TYPE_CHECKING:
    from lossi.jobs import Job, JobDiagnosis, TaskExplanation
    from lossi.projects import Project

LONGEST_BAR = 30


def register(parent: typer.Typer) -> None:
    """Add the commands below ``lossi jobs``."""
    parent.command("why")(why)
    parent.command("advice")(advice)
    parent.command("waits")(waits)


def why(task_id: TaskId, project: options.Project = None, as_json: options.Json = False) -> None:
    """Say why a job or a task failed, or why it waits, and what to do next."""
    from lossi import jobs

    place = options.project(project)
    job_id, task = split(task_id)
    job_id = identify(place, job_id)
    if task is None:
        diagnosis = jobs.explain(place, job_id)
        output.emit(diagnosis, as_json, lambda: show(diagnosis))
        return
    explanation = jobs.explain_task(place, job_id, task)
    output.emit(explanation, as_json, lambda: _show_task(explanation))


def advice(job_id: JobId, project: options.Project = None, as_json: options.Json = False) -> None:
    """Compare what a job requested with what its tasks used, and say what to request next time."""
    from lossi import jobs

    place = options.project(project)
    answer = jobs.advise(place, identify(place, job_id))

    def render() -> None:
        if answer.items:
            columns = ("resource", "requested", "median use", "90 % below", "peak", "tasks", "request")
            rows = [
                [
                    item.resource,
                    *(_amount(item, value) for value in (item.asked, item.median, item.ninth_decile, item.greatest)),
                    item.measured,
                    _amount(item, item.suggested),
                ]
                for item in answer.items
            ]
            output.show_table(columns, rows, right=columns[1:])
        output.say(answer.sentence)

    output.emit(answer, as_json, render)


def waits(project: options.Project = None, as_json: options.Json = False) -> None:
    """Show how long your own tasks waited in each partition, in one project or in all of yours."""
    from lossi import jobs, projects

    answer = jobs.queue_waits([options.project(project)] if project else projects.registered())

    def render() -> None:
        for item in answer.items:
            partition = f"{item.partition} on {item.cluster}" if item.cluster else item.partition
            median, third = humanize_duration(item.median_s), humanize_duration(item.third_quartile_s)
            tasks = "1 task" if item.count == 1 else f"{item.count} tasks"
            output.say(f"{partition}: {tasks}, half within {median}, three quarters within {third}")
            most = max(bucket.count for bucket in item.buckets)
            for bucket in item.buckets:
                output.say(f"  {bucket.name:>9} {'█' * round(LONGEST_BAR * bucket.count / most):{LONGEST_BAR}} {bucket.count}")
        if not answer.items:
            output.say(f"None of your tasks has started in a partition since {answer.since[:10]}.")
        for name in answer.left_out:
            output.note(f"left out: {name}")

    output.emit(answer, as_json, render)


def explanation(project: Project, job: Job) -> JobDiagnosis | None:
    """Return why tasks of a job failed or wait; None if none did or does."""
    from lossi import jobs

    if not any(number for state, number in job.counts.items() if state not in (SUCCEEDED, RUNNING)):
        return None
    diagnosis = jobs.explain(project, job.id)
    return diagnosis if diagnosis.groups or diagnosis.waiting else None


def show(diagnosis: JobDiagnosis) -> None:
    """Print why tasks of a job failed or wait: each cause with an example, and what to do next."""
    output.say(diagnosis.sentence)
    for group in diagnosis.groups:
        if diagnosis.tasks > 1:
            output.say(f"  {diagnosis.job_id}.{group.example.task}: {group.example.sentence}")
        _show_suggestion(diagnosis, group.example, output.say)
    if diagnosis.waiting is not None:
        _show_waiting(diagnosis.waiting, output.say)


def show_next(diagnosis: JobDiagnosis | None, say: Callable[[str], None] = output.say) -> None:
    """Print briefly why tasks of a job failed or wait, and what to do next; nothing for None."""
    if diagnosis is None:
        return
    say(diagnosis.sentence)
    suggested: set[str] = set()
    for group in diagnosis.groups:
        if group.example.suggestion not in suggested:
            suggested.add(group.example.suggestion)
            _show_suggestion(diagnosis, group.example, say)
    if diagnosis.waiting is not None:
        _show_waiting(diagnosis.waiting, say)


def _show_suggestion(diagnosis: JobDiagnosis, example: Any, say: Callable[[str], None]) -> None:
    if example.suggestion:
        say(f"  next: {example.suggestion}")
    for name in ("time", "memory"):
        if name in example.changes.get("resources", {}):
            say(f"        lossi resubmit {diagnosis.job_id} --more {name}")


def raised_limits(before: Job, after: Job) -> str:
    """Return the memory and time limits that a job has raised from those of the job it repeats, as the end of a sentence."""
    old = before.definition.resources if before.definition else {}
    new = after.definition.resources if after.definition else {}
    raised = []
    for name, what, humanize in (("memory_mb", "memory", humanize_memory), ("time_limit_s", "time", humanize_duration)):
        if new.get(name) and new.get(name) != old.get(name):
            raised.append(f"{humanize(new[name])} of {what}" + (f" instead of {humanize(old[name])}" if old.get(name) else ""))
    return f", with {' and '.join(raised)}" if raised else ""


def _show_task(explanation: TaskExplanation) -> None:
    output.say(explanation.sentence)
    if explanation.suggestion:
        output.say(f"  next: {explanation.suggestion}")
    if explanation.waiting is not None:
        _show_waiting(explanation.waiting.model_copy(update={"suggestion": ""}), output.say)
        return
    evidence = explanation.evidence
    if evidence.cell:
        cells = f" of {evidence.cells}" if evidence.cells else ""
        output.say(f"  last cell: {evidence.cell}{cells}" + (f": {evidence.first_line}" if evidence.first_line else ""))
    if evidence.exception:
        output.say(f"  {evidence.exception}: {evidence.message}")
    if evidence.lines and explanation.kind != "none":
        output.say("  end of its log:")
        for line in evidence.lines:
            output.say(f"    {line}")


def _show_waiting(waiting: Any, say: Callable[[str], None]) -> None:
    if waiting.suggestion:
        say(f"  next: {waiting.suggestion}")
    if not waiting.passes:
        say("  Waiting alone does not help.")
    if waiting.expected_start:
        say(f"  The scheduler expects it to start {_moment(waiting.expected_start)}.")


def _moment(text: str) -> str:
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        return f"at {text}"
    return f"at {moment.astimezone():%Y-%m-%d %H:%M %Z}"


def _amount(item: Any, value: float | None) -> str:
    if value is None:
        return ""
    if item.resource == "memory":
        return humanize_memory(value)
    if item.resource == "time":
        return humanize_duration(value)
    if item.resource == "gpus" and value not in (item.asked, item.suggested):
        return f"{value:.0f} %"
    return f"{value:.1f}".removesuffix(".0")

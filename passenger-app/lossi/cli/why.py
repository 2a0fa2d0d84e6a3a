"""``lossi jobs why``, ``advice``, ``waits``: why a job died or waits, what it used, how long the queue takes."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import typer

from lossi import units
from lossi.cli import options, output
from lossi.cli.naming import JobId, TaskId, identify, split

if TYPE_CHECKING:
    from lossi.jobs import Job, JobDiagnosis
    from lossi.projects import Project

LONGEST_BAR = 30


def register(parent: typer.Typer) -> None:
    """Add the commands below ``lossi jobs``."""
    parent.command("why")(why)
    parent.command("advice")(advice)
    parent.command("waits")(waits)


def why(task_id: TaskId, project: options.Project = None, as_json: options.Json = False) -> None:
    """Say why a job or a task died, or why it waits, and what to do next."""
    from lossi import jobs

    found = options.project(project)
    job_id, task = split(task_id)
    job_id = identify(found, job_id)
    if task is None:
        whole = jobs.explain(found, job_id)
        output.emit(whole, as_json, lambda: show(whole))
        return
    one = jobs.explain_task(found, job_id, task)
    output.emit(one, as_json, lambda: _show_task(one))


def advice(job_id: JobId, project: options.Project = None, as_json: options.Json = False) -> None:
    """Compare what a job asked for with what its tasks used, and say what to ask for next time."""
    from lossi import jobs

    found = options.project(project)
    answer = jobs.advise(found, identify(found, job_id))

    def render() -> None:
        if answer.items:
            rows = [
                [
                    item.resource,
                    _amount(item, item.asked),
                    _amount(item, item.median),
                    _amount(item, item.ninth_decile),
                    _amount(item, item.greatest),
                    item.measured,
                    _amount(item, item.suggested),
                ]
                for item in answer.items
            ]
            columns = ("resource", "asked", "median use", "90 % below", "greatest", "tasks", "ask for")
            output.show_table(columns, rows, right=columns[1:])
        output.say(answer.sentence)

    output.emit(answer, as_json, render)


def waits(project: options.Project = None, as_json: options.Json = False) -> None:
    """Show how long your own tasks waited in each partition, over all your projects or in one."""
    from lossi import jobs, projects

    chosen = [options.project(project)] if project else projects.registered()
    answer = jobs.queue_waits(chosen)

    def render() -> None:

        for item in answer.items:
            place = f"{item.partition} on {item.cluster}" if item.cluster else item.partition
            median, third = units.humanize_duration(item.median_s), units.humanize_duration(item.third_quartile_s)
            output.say(f"{place}: {item.count} task(s), half of them within {median}, three quarters within {third}")
            most = max(bucket.count for bucket in item.buckets)
            for bucket in item.buckets:
                output.say(f"  {bucket.name:>9} {'█' * round(LONGEST_BAR * bucket.count / most):{LONGEST_BAR}} {bucket.count}")
        if not answer.items:
            output.say(f"No task of yours has started in a partition since {answer.since[:10]}.")
        for name in answer.left_out:
            output.note(f"left out: {name}")

    output.emit(answer, as_json, render)


def explanation(project: Project, job: Job) -> JobDiagnosis | None:
    """Return why tasks of a job died or wait; None where none did or does."""
    from lossi import jobs

    if not any(number for state, number in job.counts.items() if state not in ("succeeded", "running")):
        return None
    found = jobs.explain(project, job.id)
    return found if found.groups or found.waiting else None


def show(found: JobDiagnosis) -> None:
    """Print why a job stands as it does: each cause with an example, and what to do next."""
    output.say(found.sentence)
    for group in found.groups:
        if found.tasks > 1:
            output.say(f"  {found.job_id}.{group.example.task}: {group.example.sentence}")
        _show_suggestion(found, group.example, output.say)
    if found.waiting is not None:
        _show_waiting(found.waiting, output.say)


def show_next(found: JobDiagnosis | None, say: Callable[[str], None] = output.say) -> None:
    """Print in few lines why tasks of a job died or wait, and what to do next; nothing for None."""
    if found is None:
        return
    say(found.sentence)
    suggested: set[str] = set()
    for group in found.groups:
        if group.example.suggestion not in suggested:
            suggested.add(group.example.suggestion)
            _show_suggestion(found, group.example, say)
    if found.waiting is not None:
        _show_waiting(found.waiting, say)


def _show_suggestion(found: JobDiagnosis, example: Any, say: Callable[[str], None]) -> None:
    if example.suggestion:
        say(f"  next: {example.suggestion}")
    for name in ("time", "memory"):
        if name in example.changes.get("resources", {}):
            say(f"        lossi resubmit {found.job_id} --more {name}")


def asks(before: Job, after: Job) -> str:
    """Return which resources a job asks for that differ from those of the job it repeats, as the rest of a sentence."""
    old = before.definition.resources if before.definition else {}
    new = after.definition.resources if after.definition else {}
    said = []
    for name, word, text in (
        ("memory_mb", "memory", units.humanize_memory),
        ("time_limit_s", "time", units.humanize_duration),
    ):
        if new.get(name) and new.get(name) != old.get(name):
            said.append(f"{text(new[name])} of {word}" + (f" instead of {text(old[name])}" if old.get(name) else ""))
    return f", asking for {' and '.join(said)}" if said else ""


def _show_task(found: Any) -> None:
    output.say(found.sentence)
    if found.suggestion:
        output.say(f"  next: {found.suggestion}")
    if found.waiting is not None:
        _show_waiting(found.waiting.model_copy(update={"suggestion": ""}), output.say)
        return
    seen = found.evidence
    if seen.cell:
        of = f" of {seen.cells}" if seen.cells else ""
        output.say(f"  last cell: {seen.cell}{of}" + (f": {seen.first_line}" if seen.first_line else ""))
    if seen.exception:
        output.say(f"  {seen.exception}: {seen.message}")
    if seen.lines and found.kind != "none":
        output.say("  the end of its log:")
        for line in seen.lines:
            output.say(f"    {line}")


def _show_waiting(found: Any, say: Callable[[str], None]) -> None:
    if found.suggestion:
        say(f"  next: {found.suggestion}")
    if not found.passes:
        say("  Waiting alone does not help.")
    if found.expected_start:
        say(f"  The scheduler expects it to start {_moment(found.expected_start)}.")


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
        return units.humanize_memory(value)
    if item.resource == "time":
        return units.humanize_duration(value)
    if item.resource == "gpus" and value not in (item.asked, item.suggested):
        return f"{value:.0f} %"
    return f"{value:.1f}".removesuffix(".0")

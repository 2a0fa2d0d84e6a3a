"""Watching a job until it ends, and showing what came of it."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from lossi.cli import output

if TYPE_CHECKING:
    from lossi.contract.records import Progress
    from lossi.jobs import Job
    from lossi.projects import Project

FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 1.0
LINE_EVERY_S = 5.0
MOST_RUNNING_SHOWN = 8
MOST_DIFFERING_SHOWN = 12
FINAL = ("succeeded", "failed", "cancelled", "timed_out", "out_of_memory", "node_failed", "preempted")


def until_ended(project: Project, job_id: str) -> Job:
    """Show progress on stderr until the job has ended; Ctrl-C stops the watching, never the job.

    Raises
    ------
    KeyboardInterrupt
        After saying how to go on watching and how to cancel.
    """
    try:
        if sys.stderr.isatty():
            return _with_bars(project, job_id)
        return _with_lines(project, job_id)
    except KeyboardInterrupt:
        output.note(f"\nThe job goes on. Watch it: lossi jobs show {job_id} --follow    Stop it: lossi cancel {job_id}")
        raise


def _looks(project: Project, job_id: str) -> Iterator[Job]:
    """Yield the job again and again, soon at first and then less often, until it has ended."""
    from lossi import jobs

    pause = FIRST_PAUSE_S
    while True:
        job = jobs.get(project, job_id)
        yield job
        if job.state in FINAL:
            return
        time.sleep(pause)
        pause = min(pause * 1.15, LONGEST_PAUSE_S)


def _with_lines(project: Project, job_id: str) -> Job:
    """One line whenever something is worth saying, for logs and pipes."""
    said, said_at = "", 0.0
    job = None
    for job in _looks(project, job_id):
        done = _done(job)
        line = f"{job.id}  {done} of {job.tasks} done" + _counts(job)
        new_end = line != said and (job.tasks <= 20 or done == job.tasks)
        if line != said and (new_end or time.monotonic() - said_at >= LINE_EVERY_S):
            output.note(line)
            said, said_at = line, time.monotonic()
    assert job is not None
    return job


def _with_bars(project: Project, job_id: str) -> Job:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from lossi import jobs

    job = None
    # Without markup: names and first lines of cells are the user's.
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=output.console(stderr=True), transient=True) as progress:
        whole = progress.add_task("tasks", total=None)
        shown: dict[int, Any] = {}
        for job in _looks(project, job_id):
            progress.update(whole, total=job.tasks, completed=_done(job), description=f"{job.name}{_counts(job)}")
            running = {}
            if job.state == "running":
                running = {item.task: item for item in jobs.progress(project, job_id)[:MOST_RUNNING_SHOWN]}
            for task in set(shown) - set(running):
                progress.remove_task(shown.pop(task))
            for task, item in running.items():
                if task not in shown:
                    shown[task] = progress.add_task("", total=None)
                progress.update(shown[task], total=item.cells or None, completed=max(item.cell - 1, 0), description=_where(item))
    assert job is not None
    return job


def _where(item: Progress) -> str:
    """Say where a running task is: its cell, that cell's first line, and how long it may still take."""
    from lossi.files.text import neutralised

    words = f"  {item.task}"
    if item.cell:
        words += f": cell {item.cell} of {item.cells}: {neutralised(item.first_line)[:40]}"
    if item.estimate_s is not None:
        words += f" (about {item.estimate_s:.0f} s left)"
    return words


def _done(job: Job) -> int:
    return sum(number for state, number in job.counts.items() if state in FINAL)


def _counts(job: Job) -> str:
    words = [
        f"{number} {state.replace('_', ' ')}"
        for state, number in job.counts.items()
        if number and state not in ("succeeded", "queued")
    ]
    return f" ({', '.join(words)})" if words else ""


def show_result(project: Project, job: Job, *, order_by: str = "") -> None:
    """Print how the job ended: its runs compared when there are several, the one run's values, and what failed and why."""
    from lossi import refresh, tracking

    refresh.look(project, everything=True)
    table = tracking.search(
        project,
        filter=f"tags.`lossi.job_id` = '{job.id}'",
        order_by=[order_by] if order_by else ["attributes.start_time ASC"],
        limit=1000,
    )
    columns = table.columns
    if len(columns.get("run_id", [])) > 1:
        show_comparison(columns)
    elif columns.get("run_id"):
        _show_run(columns)
    show_failures(project, job)


def differing(columns: dict[str, list[Any]], prefix: str) -> list[str]:
    """Return the columns below ``prefix`` whose values are not all the same."""
    return [name for name, values in columns.items() if name.startswith(prefix) and len({repr(value) for value in values}) > 1]


def show_comparison(columns: dict[str, list[Any]]) -> None:
    """Print one row per run: the parameters that differ, then the metrics; below, what is equal in all."""
    params = differing(columns, "params.")
    metrics = [name for name in columns if name.startswith("metrics.")]
    chosen = (params + metrics)[:MOST_DIFFERING_SHOWN]
    names = ["run", *(name.partition(".")[2] for name in chosen), "state", "seconds"]
    number = len(columns["run_id"])
    states = columns.get("job.state", [None] * number)
    elapsed = columns.get("job.elapsed_s", [None] * number)
    rows = [
        [
            columns["run_id"][i][:8],
            *(value_text(columns[name][i]) for name in chosen),
            states[i] or columns["status"][i].lower(),
            value_text(elapsed[i], 1),
        ]
        for i in range(number)
    ]
    output.show_table(names, rows, right=[name.partition(".")[2] for name in metrics] + ["seconds"])
    equal = [
        f"{name.partition('.')[2]} = {value_text(columns[name][0])}"
        for name in columns
        if name.startswith("params.") and name not in params
    ]
    if equal:
        output.say("equal in all: " + ", ".join(equal))


def _show_run(columns: dict[str, list[Any]]) -> None:
    output.say(f"run {columns['run_id'][0]}  {columns['status'][0].lower()}")
    for name, values in columns.items():
        if name.startswith(("params.", "metrics.")) and values[0] is not None:
            output.say(f"  {name:32} {value_text(values[0])}")


def show_failures(project: Project, job: Job, *, most: int = 5) -> None:
    """Print why tasks did not succeed, the first few, and what to do next."""
    from lossi import jobs
    from lossi.cli import why

    if job.state == "succeeded":
        return
    bad: Sequence[Any] = [
        task for task in jobs.tasks(project, job.id, limit=1000).items if task.state in FINAL and task.state != "succeeded"
    ]
    for task in bad[:most] if job.tasks > 1 else ():  # the sentence below says all of a job's only task
        output.note(f"{job.id}.{task.task} {task.state.replace('_', ' ')}: {task.reason or 'no reason known'}")
        if task.error:
            where = f" in cell {task.error.cell}" if task.error.cell else ""
            output.note(f"  {task.error.name}{where}: {task.error.message[:500]}")
    if len(bad) > most:
        output.note(f"… and {len(bad) - most} more: lossi jobs show {job.id}")
    if bad:
        why.show_next(why.explanation(project, job), say=output.note)
        output.note(f"Look: lossi logs {job.id}.{bad[0].task}    Again: lossi resubmit {job.id} --failed")


def value_text(value: Any, digits: int | None = None) -> str:
    """Return a value for a table: short numbers, nothing for nothing."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.{digits}f}" if digits is not None else f"{value:.6g}"
    text = str(value)
    return text if len(text) <= 60 else text[:59] + "…"

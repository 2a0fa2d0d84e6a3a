"""Watch a job until it ends, and show its result."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lossi.cli import output
from lossi.contract.states import QUEUED, RUNNING, SUCCEEDED, UNKNOWN, has_ended, label

if TYPE_CHECKING:
    from lossi.contract.records import Progress
    from lossi.jobs import Job
    from lossi.projects import Project

FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 1.0
LINE_EVERY_S = 5.0
MOST_RUNNING_SHOWN = 8
MOST_DIFFERING_SHOWN = 12
UNKNOWN_PATIENCE_S = 60.0
"""How long an exit record may take to arrive over a network filesystem, once the scheduler has forgotten a job."""


def until_ended(project: Project, job_id: str) -> Job:
    """Show progress on stderr until the job has ended; Ctrl-C stops watching, never the job.

    Raises
    ------
    KeyboardInterrupt
        After a note on how to watch it again and how to cancel it.
    """
    try:
        if sys.stderr.isatty():
            return _with_bars(project, job_id)
        return _with_lines(project, job_id)
    except KeyboardInterrupt:
        output.note(f"\nThe job continues. Watch it: lossi jobs show {job_id} --follow    Cancel it: lossi cancel {job_id}")
        raise


def _watch(project: Project, job_id: str) -> Iterator[Job]:
    """Yield the job again and again, soon at first and then less often, until nothing more is to come."""
    from lossi import jobs

    pause = FIRST_PAUSE_S
    last_known = time.monotonic()
    while True:
        job = jobs.get(project, job_id)
        yield job
        if job.state != UNKNOWN:
            last_known = time.monotonic()
        lost = not Path(job.directory).exists() or time.monotonic() - last_known >= UNKNOWN_PATIENCE_S
        if has_ended(job.state) or (job.state == UNKNOWN and lost):
            return
        time.sleep(pause)
        pause = min(pause * 1.15, LONGEST_PAUSE_S)


def _with_lines(project: Project, job_id: str) -> Job:
    """Print a line whenever something changed, for logs and pipes."""
    printed, printed_at = "", 0.0
    job = None
    for job in _watch(project, job_id):
        line = f"{job.id}  {job.done} of {job.tasks} done" + _counts(job)
        is_due = job.tasks <= 20 or job.done == job.tasks or time.monotonic() - printed_at >= LINE_EVERY_S
        if line != printed and is_due:
            output.note(line)
            printed, printed_at = line, time.monotonic()
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
        for job in _watch(project, job_id):
            progress.update(whole, total=job.tasks, completed=job.done, description=f"{job.name}{_counts(job)}")
            running = {}
            if job.state == RUNNING:
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
    """Return where a running task is: its cell, that cell's first line, and how long it may still take."""
    from lossi.files.text import neutralised

    words = f"  {item.task}"
    if item.cell:
        words += f": cell {item.cell} of {item.cells}: {neutralised(item.first_line)[:40]}"
    if item.estimate_s is not None:
        words += f" (about {item.estimate_s:.0f} s left)"
    return words


def _counts(job: Job) -> str:
    words = [f"{number} {label(state)}" for state, number in job.counts.items() if number and state not in (SUCCEEDED, QUEUED)]
    return f" ({', '.join(words)})" if words else ""


def show_result(project: Project, job: Job, *, order_by: str = "") -> None:
    """Print the result of a job: its runs compared or the values of its only run, and what failed and why."""
    from lossi import refresh, tracking

    refresh.update_project(project, everything=True)
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
    """Print why the first few tasks failed, and what to do next."""
    from lossi import jobs
    from lossi.cli import why

    if job.state == SUCCEEDED:
        return
    bad: Sequence[Any] = [
        task for task in jobs.tasks(project, job.id, limit=1000).items if task.state not in (QUEUED, RUNNING, SUCCEEDED)
    ]
    for task in bad[:most] if job.tasks > 1 else ():  # for the only task of a job, the sentence below is enough
        output.note(f"{job.id}.{task.task} {label(task.state)}: {task.reason or 'no reason known'}")
        if task.error:
            where = f" in cell {task.error.cell}" if task.error.cell else ""
            output.note(f"  {task.error.name}{where}: {task.error.message[:500]}")
    if len(bad) > most:
        output.note(f"… and {len(bad) - most} more: lossi jobs show {job.id}")
    if bad:
        why.show_next(why.explanation(project, job), say=output.note)
        output.note(f"Read the log: lossi logs {job.id}.{bad[0].task}    Submit again: lossi resubmit {job.id} --failed")


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

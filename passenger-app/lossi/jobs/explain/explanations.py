"""Why a job stands as it does: its dead tasks by what killed them, why it waits, what it used beside what it asked for.

Reads the index, ``progress.json`` and the ends of logs; the judging itself is in `diagnosis`, `waiting` and `advice`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from lossi.contract import records
from lossi.contract.records import FINAL_STATES, QUEUED, RUNNING, SUCCEEDED, PreparedJob
from lossi.errors import LossiError, NotFound
from lossi.files import tail
from lossi.jobs.explain import advice, pending_reasons
from lossi.jobs.explain.causes import Kind
from lossi.jobs.explain.diagnose import diagnose
from lossi.jobs.explain.diagnoses import DeathGroup, Diagnosis, JobDiagnosis, TaskExplanation
from lossi.jobs.explain.pending_reasons import Waiting
from lossi.jobs.models import Job, Task
from lossi.jobs.schedulers.slurm.request import LOG as SCHEDULER_LOG
from lossi.jobs.state import answers, queries, reconcile, refresh
from lossi.projects import Project

TAIL_BYTES = 64 * 1024
MOST_LOGS = 64
"""Tasks of a job of which log and progress are read for what their rows leave open; thousands would take long on a busy filesystem."""
FIRST_TASKS = 20

WORDS: dict[Kind, str] = {
    "none": "not dead",
    "time_limit": "time limit",
    "memory": "memory",
    "gpu_memory": "GPU memory",
    "gpu_unavailable": "no usable GPU",
    "disk_full": "no space left",
    "node_failure": "node failure",
    "preemption": "preempted",
    "cancelled": "cancelled",
    "dependency": "dependency",
    "environment": "environment",
    "import_error": "missing package",
    "python_error": "Python error",
    "r_error": "R error",
    "signal": "killed by a signal",
    "exit_code": "exit code",
    "not_submitted": "never submitted",
    "unknown": "unknown",
}


def explain(project: Project, id_or_part: str) -> JobDiagnosis:
    """Return why a job stands as it does.

    Raises
    ------
    NotFound, InvalidInput
        As for `lossi.jobs.get`.
    """
    job = queries.get(project, id_or_part)
    groups = _grouped(project, deaths(project, job.id))
    waits = _waiting(project, job)
    return JobDiagnosis(
        job_id=job.id, state=job.state, tasks=job.tasks, sentence=_sentence(job, groups, waits), groups=groups, waiting=waits
    )


def explain_task(project: Project, id_or_part: str, number: int) -> TaskExplanation:
    """Return why a task stands as it does.

    Raises
    ------
    NotFound, InvalidInput
        As for `lossi.jobs.task`.
    """
    task = queries.task(project, id_or_part, number)
    found = _with_logs(project, task, _prepared(project, task.job_id))
    waits = None
    if task.state == QUEUED:
        job = queries.get(project, task.job_id)
        waits = pending_reasons.explain_pending(task.reason or _reason(project, job), expected_start=job.expected_start)
        found = found.model_copy(update={"sentence": waits.sentence, "suggestion": waits.suggestion})
    return TaskExplanation(**dict(found), waiting=waits)


def advise(project: Project, id_or_part: str) -> advice.JobAdvice:
    """Return what a job used beside what it asked for, and what to ask for next time.

    Raises
    ------
    NotFound, InvalidInput
        As for `lossi.jobs.get`.
    """
    job = queries.get(project, id_or_part)
    with refresh.current(project, job.id) as (connection, _):
        found = _tasks(project, connection, job.id, FINAL_STATES)
    return advice.advise(_prepared(project, job.id), found)


def deaths(project: Project, job_id: str) -> list[Diagnosis]:
    """Return the diagnosis of every task of a job that ended without success, in the order of their numbers.

    Log and progress are read only of the first tasks whose row leaves open what killed them, or how long they would have taken.
    """
    prepared = _prepared(project, job_id)
    with refresh.current(project, job_id) as (connection, _):
        dead = _tasks(project, connection, job_id, FINAL_STATES - {SUCCEEDED})
    read = 0
    found = []
    for task in dead:
        one = diagnose(task, prepared, "")
        if one.kind in ("unknown", "exit_code", "signal", "cancelled", "time_limit") and read < MOST_LOGS:
            one, read = _with_logs(project, task, prepared), read + 1
        found.append(one)
    return found


def _grouped(project: Project, found: Sequence[Diagnosis]) -> list[DeathGroup]:
    """Return diagnoses by kind, each kind with one example in full."""
    by_kind: dict[Kind, list[Diagnosis]] = {}
    for one in found:
        by_kind.setdefault(one.kind, []).append(one)
    groups = []
    for kind, members in sorted(by_kind.items(), key=lambda item: -len(item[1])):
        example = members[0]
        with suppress(LossiError):
            task = queries.task(project, example.job_id, example.task)
            again = _with_logs(project, task, _prepared(project, example.job_id))
            example = again if again.kind == kind else example
        numbers = [one.task for one in members[:FIRST_TASKS]]
        groups.append(DeathGroup(kind=kind, count=len(members), tasks=numbers, example=example))
    return groups


def _sentence(job: Job, groups: Sequence[DeathGroup], waits: Waiting | None) -> str:
    said = []
    if job.tasks == 1 and groups:
        said.append(groups[0].example.sentence)
    elif groups:
        first, *others = groups
        words = [f"{first.count:,} of {job.tasks:,} tasks: {WORDS[first.kind]}"]
        words += [f"{group.count:,}: {WORDS[group.kind]}" for group in others]
        said.append("; ".join(words) + ".")
    if waits is not None:
        said.append(waits.sentence if job.tasks == 1 else f"{waits.tasks:,} of {job.tasks:,} tasks wait: {waits.sentence}")
    if not said:
        said.append(f"The job is {job.state.replace('_', ' ')}" + (f": {job.reason.rstrip('.')}." if job.reason else "."))
    return " ".join(said)


def _waiting(project: Project, job: Job) -> Waiting | None:
    number = job.counts.get(QUEUED, 0)
    if job.state in FINAL_STATES or not number:
        return None
    return pending_reasons.explain_pending(_reason(project, job), tasks=number, expected_start=job.expected_start)


def _reason(project: Project, job: Job) -> str:
    """Return why most waiting tasks of a job wait; the scheduler gives no reason for those whose turn has not come."""
    with refresh.current(project, job.id) as (connection, _):
        row = connection.execute(
            "SELECT reason FROM tasks WHERE job_id = ? AND state = ? AND reason != '' GROUP BY reason ORDER BY COUNT(*) DESC LIMIT 1",
            (job.id, QUEUED),
        ).fetchone()
    if row is not None:
        return str(row["reason"])
    running = job.counts.get(RUNNING, 0)
    if job.reason or not running:
        return job.reason
    most = _prepared(project, job.id).max_parallel
    return "JobArrayTaskLimit" if most is not None and running >= most else "its turn has not come"


def _tasks(project: Project, connection: sqlite3.Connection, job_id: str, states: frozenset[str]) -> list[Task]:
    """Return the tasks of a job that are in these states; those without a row are in the state that follows from the job's."""
    job = connection.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
    if job is None:
        return []
    rows = {row["task"]: row for row in connection.execute("SELECT * FROM tasks WHERE job_id = ?", (job_id,))}
    implied = reconcile.implied_state(job["state"])
    return [
        answers.task(project, connection, job, number, row)
        for number in range(job["tasks"])
        if ((row := rows.get(number)) is None and implied in states) or (row is not None and row["state"] in states)
    ]


def _with_logs(project: Project, task: Task, prepared: PreparedJob) -> Diagnosis:
    """Return the diagnosis of a task by all that its folder holds."""
    directory = project.jobs / task.job_id
    log = _end(directory / records.TASK_FOLDER / str(task.task) / records.LOG)
    # All tasks of an array write into one file: whose line is whose cannot be told.
    of_scheduler = _end(directory / SCHEDULER_LOG) if prepared.tasks == 1 else ""
    return diagnose(_with_progress(project, task), prepared, log or of_scheduler, of_scheduler)


def _with_progress(project: Project, task: Task) -> Task:
    """Return a task with where it was last."""
    if task.progress is not None:
        return task
    last = next(iter(answers.progress_of(project.jobs / task.job_id, [task.task])), None)
    return task if last is None else task.model_copy(update={"progress": last})


def _end(path: Path) -> str:
    try:
        return tail.read(path, -TAIL_BYTES, TAIL_BYTES).data.decode("utf-8", "replace")
    except LossiError:
        return ""


def _prepared(project: Project, job_id: str) -> PreparedJob:
    """Return what was asked for; where the directory is gone, a job that asked for nothing in particular."""
    try:
        return queries.directory_of(project, job_id)[1]
    except NotFound:
        return PreparedJob(job_id, "", records.UNKNOWN, str(project.root), "", "")

"""Why the tasks of a job failed, by cause; why it waits; what it used of what it requested.

Reads the index, ``progress.json`` and the ends of logs; the judging itself is in `diagnose`, `pending_reasons` and `advice`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from lossi.contract import records
from lossi.contract.records import PreparedJob
from lossi.contract.states import FINAL_STATES, QUEUED, RUNNING, SUCCEEDED, UNKNOWN, has_ended
from lossi.errors import LossiError, NotFound
from lossi.files import tail
from lossi.jobs.explain import advice, pending_reasons
from lossi.jobs.explain.causes import Kind
from lossi.jobs.explain.diagnose import DeathGroup, Diagnosis, JobDiagnosis, TaskExplanation, diagnose
from lossi.jobs.explain.pending_reasons import Waiting
from lossi.jobs.models import Job, Task
from lossi.jobs.schedulers import LOG as SCHEDULER_LOG
from lossi.jobs.state import job_directory, queries, reconcile, refresh
from lossi.projects import Project

TAIL_BYTES = 64 * 1024
MOST_LOGS = 64
"""Tasks of a job whose log and progress are read if their row leaves the cause open; thousands take long on a busy filesystem."""
FIRST_TASKS = 20

LABELS: dict[Kind, str] = {
    "none": "not failed",
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
    """Return why tasks of a job failed, and why others wait.

    Raises
    ------
    NotFound, InvalidInput
        As for `lossi.jobs.get`.
    """
    job = queries.get(project, id_or_part)
    groups = _group(project, diagnose_failed(project, job.id))
    waiting = _waiting(project, job)
    sentence = _sentence(job, groups, waiting)
    return JobDiagnosis(job_id=job.id, state=job.state, tasks=job.tasks, sentence=sentence, groups=groups, waiting=waiting)


def explain_task(project: Project, id_or_part: str, number: int) -> TaskExplanation:
    """Return why a task failed, or why it waits.

    Raises
    ------
    NotFound, InvalidInput
        As for `lossi.jobs.task`.
    """
    task = queries.task(project, id_or_part, number)
    explanation = TaskExplanation(**dict(_diagnose_with_logs(project, task, _prepared(project, task.job_id))))
    if task.state != QUEUED:
        return explanation
    job = queries.get(project, task.job_id)
    waiting = pending_reasons.explain_pending(
        task.reason or _reason(project, job), job.scheduler, expected_start=job.expected_start
    )
    update = {"sentence": waiting.sentence, "suggestion": waiting.suggestion, "waiting": waiting}
    return explanation.model_copy(update=update)


def advise(project: Project, id_or_part: str) -> advice.JobAdvice:
    """Return what a job requested and used, and what to request next time.

    Raises
    ------
    NotFound, InvalidInput
        As for `lossi.jobs.get`.
    """
    job = queries.get(project, id_or_part)
    with refresh.current(project, job.id) as (connection, _):
        ended = _tasks(project, connection, job.id, FINAL_STATES)
    return advice.advise(_prepared(project, job.id), ended)


def diagnose_failed(project: Project, job_id: str) -> list[Diagnosis]:
    """Return the diagnosis of every task of a job that ended without success, ordered by number.

    Log and progress are read only for the first tasks whose row leaves open what ended them, or how long they would have taken.
    """
    prepared = _prepared(project, job_id)
    with refresh.current(project, job_id) as (connection, _):
        failed = _tasks(project, connection, job_id, FINAL_STATES - {SUCCEEDED})
    read = 0
    diagnoses = []
    for task in failed:
        diagnosis = diagnose(task, prepared, "")
        if diagnosis.kind in ("unknown", "exit_code", "signal", "cancelled", "time_limit") and read < MOST_LOGS:
            diagnosis, read = _diagnose_with_logs(project, task, prepared), read + 1
        diagnoses.append(diagnosis)
    return diagnoses


def _group(project: Project, diagnoses: Sequence[Diagnosis]) -> list[DeathGroup]:
    """Return diagnoses by kind, each with one complete example."""
    by_kind: dict[Kind, list[Diagnosis]] = {}
    for diagnosis in diagnoses:
        by_kind.setdefault(diagnosis.kind, []).append(diagnosis)
    groups = []
    for kind, members in sorted(by_kind.items(), key=lambda item: -len(item[1])):
        example = members[0]
        with suppress(LossiError):
            task = queries.task(project, example.job_id, example.task)
            complete = _diagnose_with_logs(project, task, _prepared(project, example.job_id))
            example = complete if complete.kind == kind else example
        numbers = [member.task for member in members[:FIRST_TASKS]]
        groups.append(DeathGroup(kind=kind, count=len(members), tasks=numbers, example=example))
    return groups


def _sentence(job: Job, groups: Sequence[DeathGroup], waiting: Waiting | None) -> str:
    sentences = []
    if job.tasks == 1 and groups:
        sentences.append(groups[0].example.sentence)
    elif groups:
        first, *others = groups
        counts = [f"{first.count:,} of {job.tasks:,} tasks: {LABELS[first.kind]}"]
        counts += [f"{group.count:,}: {LABELS[group.kind]}" for group in others]
        sentences.append("; ".join(counts) + ".")
    if waiting is not None:
        prefix = "" if job.tasks == 1 else f"{waiting.tasks:,} of {job.tasks:,} tasks wait: "
        sentences.append(prefix + waiting.sentence)
    if not sentences:
        state = {SUCCEEDED: "succeeded", RUNNING: "is running", QUEUED: "is queued"}.get(job.state, f"is in state {job.state}")
        sentences.append(f"The job {state}{': ' if job.reason else ''}{job.reason.rstrip('.')}.")
    return " ".join(sentences)


def _waiting(project: Project, job: Job) -> Waiting | None:
    number = job.counts.get(QUEUED, 0)
    if has_ended(job.state) or not number:
        return None
    return pending_reasons.explain_pending(_reason(project, job), job.scheduler, tasks=number, expected_start=job.expected_start)


def _reason(project: Project, job: Job) -> str:
    """Return why most queued tasks of a job wait; the scheduler gives no reason for those whose turn has not come."""
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
    return pending_reasons.OWN_LIMIT if most is not None and running >= most else "its turn has not come"


def _tasks(project: Project, connection: sqlite3.Connection, job_id: str, states: frozenset[str]) -> list[Task]:
    """Return the tasks of a job that are in these states; a task without a row has the state implied by its job."""
    job = connection.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
    if job is None:
        return []
    rows = {row["task"]: row for row in connection.execute("SELECT * FROM tasks WHERE job_id = ?", (job_id,))}
    implied = reconcile.implied_state(job["state"])
    return [
        queries.task_of_row(project, connection, job, number, row)
        for number in range(job["tasks"])
        if ((row := rows.get(number)) is None and implied in states) or (row is not None and row["state"] in states)
    ]


def _diagnose_with_logs(project: Project, task: Task, prepared: PreparedJob) -> Diagnosis:
    """Return the diagnosis of a task from everything in its folder."""
    directory = project.jobs / task.job_id
    log = _end(directory / records.TASK_FOLDER / str(task.task) / records.LOG)
    # All tasks of an array write into one file: there is no telling whose line is whose.
    scheduler_log = _end(directory / SCHEDULER_LOG) if prepared.tasks == 1 else ""
    return diagnose(_with_progress(project, task), prepared, log or scheduler_log, scheduler_log)


def _with_progress(project: Project, task: Task) -> Task:
    """Return a task with its last progress."""
    if task.progress is not None:
        return task
    last = next(iter(job_directory.read_progress(project.jobs / task.job_id, [task.task])), None)
    return task if last is None else task.model_copy(update={"progress": last})


def _end(path: Path) -> str:
    try:
        return tail.read(path, -TAIL_BYTES, TAIL_BYTES).data.decode("utf-8", "replace")
    except LossiError:
        return ""


def _prepared(project: Project, job_id: str) -> PreparedJob:
    """Return the request; if the directory is gone, one without any requirements."""
    try:
        return queries.directory_of(project, job_id)[1]
    except NotFound:
        return PreparedJob(job_id, "", UNKNOWN, str(project.root), "", "")

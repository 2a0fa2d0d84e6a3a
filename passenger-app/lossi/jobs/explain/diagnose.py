"""Why a task ended without success, and what to do next: as a sentence and as data. Pure; `explanations` reads the logs."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from lossi.contract.records import PreparedJob
from lossi.contract.states import SUCCEEDED
from lossi.files.text import neutralised
from lossi.jobs.explain import amounts
from lossi.jobs.explain.causes import Kind, kind_of, signal_name, signal_of
from lossi.jobs.explain.pending_reasons import Waiting
from lossi.jobs.models import Task
from lossi.units import format_memory, format_time, humanize_duration, humanize_memory

SHOWN_LINES = 20
LONGEST_LINE = 300
LONGEST_MESSAGE = 500

_CANCELLED_BY = re.compile(r"cancelled by ([^\s,;:()]{1,64})(?: before it started)?")


class Evidence(BaseModel):
    """What the diagnosis is based on."""

    model_config = ConfigDict(frozen=True)

    cell: int | None = Field(default=None, description="Number of the last code cell that ran, from 1.")
    cells: int | None = Field(default=None, description="Number of code cells.")
    first_line: str = Field(default="", description="First line of that cell.")
    exception: str = Field(default="", description="Name of the exception.")
    message: str = Field(default="", description="Its message, shortened.")
    exit_code: int | None = None
    signal: int | None = None
    host: str | None = None
    lines: list[str] = Field(default=[], description="Last lines of the log, without terminal escapes.")


class Diagnosis(BaseModel):
    """Why a task ended without success, and what to do next."""

    model_config = ConfigDict(frozen=True)

    job_id: str
    task: int
    state: str
    kind: Kind = Field(description="`none`: it has not failed.")
    sentence: str = Field(description="What happened.")
    suggestion: str = Field(default="", description="What to do next.")
    changes: dict[str, Any] = Field(default={}, description="The suggestion as `changes` for a resubmission, if possible.")
    again: bool = Field(default=False, description="Whether resubmitting without a change makes sense.")
    evidence: Evidence = Evidence()


class DeathGroup(BaseModel):
    """Tasks of a job that ended for the same reason."""

    model_config = ConfigDict(frozen=True)

    kind: Kind
    count: int
    tasks: list[int] = Field(description="Numbers of the first of them.")
    example: Diagnosis = Field(description="Diagnosis of the first one.")


class JobDiagnosis(BaseModel):
    """Why tasks of a job failed, and why others wait."""

    model_config = ConfigDict(frozen=True)

    job_id: str
    state: str
    tasks: int
    sentence: str
    groups: list[DeathGroup] = Field(default=[], description="What ended tasks, most frequent first.")
    waiting: Waiting | None = Field(default=None, description="Why tasks wait, if some do.")


class TaskExplanation(Diagnosis):
    """Why one task failed, or why it waits."""

    waiting: Waiting | None = None


@dataclass(frozen=True)
class _Answer:
    """The members of a `Diagnosis` that depend on its kind."""

    sentence: str
    suggestion: str = ""
    changes: dict[str, Any] = field(default_factory=dict)
    again: bool = False


def diagnose(task: Task, job: PreparedJob, log_tail: str, scheduler_tail: str = "") -> Diagnosis:
    """Return why a task ended.

    Parameters
    ----------
    task
        The task, with its last progress if there is one, also after its end.
    job
        The request.
    log_tail
        End of the task's log.
    scheduler_tail
        End of the scheduler's log, if it is about this task alone.
    """
    log = neutralised(log_tail)
    kind = kind_of(task, job, log, neutralised(scheduler_tail))
    answer = _ANSWERS[kind](task, job)
    return Diagnosis(
        job_id=task.job_id,
        task=task.task,
        state=task.state,
        kind=kind,
        **asdict(replace(answer, sentence=f"{answer.sentence.rstrip(' .')}.")),
        evidence=_evidence(task, log),
    )


def _evidence(task: Task, log: str) -> Evidence:
    error, progress = task.error, task.progress
    cell = error.cell if error is not None and error.cell is not None else progress.cell if progress else None
    # Without an error of the program, the runner gives its exit code or signal as one.
    own_error = error if error is not None and not error.name.startswith(("exit code ", "signal ")) else None
    return Evidence(
        cell=cell or None,
        cells=(progress.cells or None) if progress else None,
        first_line=_line(progress.first_line) if progress and cell == progress.cell else "",
        exception=_line(own_error.name) if own_error else "",
        message=neutralised(own_error.message)[:LONGEST_MESSAGE] if own_error else "",
        exit_code=task.exit_code,
        signal=signal_of(task),
        host=task.host,
        lines=[line[:LONGEST_LINE] for line in log.splitlines()[-SHOWN_LINES:]],
    )


def _line(text: str) -> str:
    return next(iter(neutralised(text).strip().splitlines()), "")[:LONGEST_LINE]


def _where(task: Task) -> str:
    """Return where the program was: ``, in cell 3 of 7 (fit(x))``, or nothing."""
    progress, error = task.progress, task.error
    if error is not None and error.cell:
        return f", in cell {error.cell}"
    if progress is None or not progress.cell:
        return ""
    first = _line(progress.first_line)[:60]
    return f", in cell {progress.cell} of {progress.cells}" + (f" ({first})" if first else "")


def _error(task: Task) -> str:
    """Return the program's own error in one line, or an empty text."""
    if task.error is None:
        return ""
    message = _line(task.error.message)
    return f"{_line(task.error.name)}: {message}" if message else _line(task.error.name)


def _fixed(sentence: str, suggestion: str, *, again: bool = False) -> Callable[[Task, PreparedJob], _Answer]:
    """Return an answer that is the same for all tasks."""
    return lambda task, job: _Answer(sentence, suggestion, again=again)


def _in_program(
    sentence: str, suggestion: str, *, again: bool = False, without_error: str = ""
) -> Callable[[Task, PreparedJob], _Answer]:
    """Return an answer that adds where the program was and the error that it named."""

    def answer(task: Task, job: PreparedJob) -> _Answer:
        error = _error(task)
        return _Answer(f"{sentence}{_where(task)}{f': {error}' if error else without_error}", suggestion, again=again)

    return answer


def _none(task: Task, job: PreparedJob) -> _Answer:
    return _Answer("The task succeeded" if task.state == SUCCEEDED else f"The task is {task.state}")


def _time_limit(task: Task, job: PreparedJob) -> _Answer:
    limit, suggested = amounts.time_limit(task, job), amounts.more_time(task, job)
    if task.scheduler_state.upper().startswith("DEADLINE"):
        return _Answer("The task could not finish before the deadline of its job")
    sentence = f"The task reached its time limit{f' of {humanize_duration(limit)}' if limit else ''}{_where(task)}"
    if suggested is None:
        return _Answer(sentence, "Request more time with --time.")
    expected = amounts.expected_time(task)
    why = ""
    if expected is not None and limit and expected > limit:
        why = f" (judging by its finished cells, it needs about {humanize_duration(expected)})"
    return _Answer(
        sentence,
        f"Resubmit it with {humanize_duration(suggested)}{why}, or let it resume from what it saved.",
        {"resources": {"time": format_time(suggested)}},
    )


def _memory(task: Task, job: PreparedJob) -> _Answer:
    requested, used = amounts.requested_memory(task, job), amounts.used_memory(task, job)
    facts = [f"it had {humanize_memory(requested)}"] if requested else []
    if used:
        facts.append(f"its measured peak was {humanize_memory(used)}")
    sentence = f"The task ran out of memory{_where(task)}{': ' if facts else ''}{', '.join(facts)}"
    return _with_more_memory(sentence, task, job) or _Answer(
        sentence, "Request more memory with --memory, or process less data at once."
    )


def _with_more_memory(sentence: str, task: Task, job: PreparedJob) -> _Answer | None:
    suggested = amounts.more_memory(task, job)
    if suggested is None:
        return None
    return _Answer(
        sentence,
        f"Resubmit it with {humanize_memory(suggested)}, or process less data at once.",
        {"resources": {"memory": format_memory(suggested)}},
    )


def _gpu_unavailable(task: Task, job: PreparedJob) -> _Answer:
    sentence = "The program found no GPU that it can use"
    if job.resources.gpus:
        suggestion = "The job had a GPU: use an environment built for this type of GPU (`lossi env list`)."
        return _in_program(sentence, suggestion)(task, job)
    answer = _in_program(sentence, "The job requested no GPU: request one.")(task, job)
    return replace(answer, changes={"resources": {"gpus": 1}})


def _node_failure(task: Task, job: PreparedJob) -> _Answer:
    node = f"node {task.host}" if task.host else "a node"
    return _Answer(
        f"The task was lost because {node} failed or was restarted; the program is not at fault",
        "Resubmit it unchanged.",
        again=True,
    )


def _cancelled(task: Task, job: PreparedJob) -> _Answer:
    match = _CANCELLED_BY.search(neutralised(task.reason))
    if match is None:
        reason = f" ({_line(task.reason)})" if task.reason else ""
        return _Answer(f"The task was cancelled{reason}", "Resubmit it if you still need it.", again=True)
    own = match[1] in (job.user, "you")
    suggestion = "Resubmit it if you still need it." if own else f"Ask {match[1]} why before you resubmit it."
    return _Answer(f"The task was {_line(match[0])}", suggestion, again=own)


def _environment(task: Task, job: PreparedJob) -> _Answer:
    reason = _line(task.reason) or _error(task)
    return _Answer(
        f"The environment or the program could not be started{f': {reason}' if reason else ''}",
        f"`lossi env check {job.environment.name or 'NAME'}` checks the environment; the end of the log may say more.",
    )


def _signal(task: Task, job: PreparedJob) -> _Answer:
    number = signal_of(task) or 0
    sentence = f"The task was killed by {signal_name(number)}{_where(task)}"
    if number == 9:
        answer = _with_more_memory(f"{sentence}, probably because memory ran out, but nothing proves it", task, job)
        if answer is not None:
            return answer
    if number in (4, 6, 7, 8, 11):
        return _Answer(
            f"{sentence}: it crashed in compiled code",
            "Try a small input, or another version of the package that crashed; the end of the log may name it.",
        )
    return _Answer(f"{sentence}; the sender is unknown", "Resubmit it; the end of the log may say more.", again=True)


def _exit_code(task: Task, job: PreparedJob) -> _Answer:
    last = _line(task.error.message) if task.error else ""
    return _Answer(
        f"The program ended with exit code {task.exit_code}{f'; its last line was: {last}' if last else ''}",
        "The end of the log may say why.",
    )


def _unknown(task: Task, job: PreparedJob) -> _Answer:
    reason = _line(task.reason)
    return _Answer(
        f"The reason why the task ended is unknown{f': {reason}' if reason else ''}",
        "Check the end of its log; if there is nothing, resubmit it.",
    )


_program_error = _in_program("The program failed", "Fix the error and resubmit the failed tasks.", without_error="; see its log")
_ANSWERS: dict[Kind, Callable[[Task, PreparedJob], _Answer]] = {
    "none": _none,
    "time_limit": _time_limit,
    "memory": _memory,
    "gpu_memory": _in_program(
        "The GPU ran out of memory",
        "Use a smaller batch, mixed precision or gradient accumulation, or a GPU with more memory.",
    ),
    "gpu_unavailable": _gpu_unavailable,
    "disk_full": _in_program(
        "The disk is full or a quota is used up",
        "Free space (or files, if their number is limited) in the project and in temporary folders, then resubmit it.",
        again=True,
    ),
    "node_failure": _node_failure,
    "preemption": _fixed(
        "The scheduler stopped the task to make room for a job of higher priority",
        "Resubmit it unchanged, or in a partition or quality of service that is not preempted.",
        again=True,
    ),
    "cancelled": _cancelled,
    "dependency": _fixed(
        "The task never ran because the job that it waited for did not end as required",
        "Fix that job, then resubmit this one.",
    ),
    "environment": _environment,
    "import_error": _in_program(
        "A package is missing from the environment",
        "Choose an environment that has it (`lossi env list`), or add your own (`lossi env add`).",
    ),
    "python_error": _program_error,
    "r_error": _program_error,
    "signal": _signal,
    "exit_code": _exit_code,
    "not_submitted": _fixed("The job was prepared but never reached the scheduler", "Resubmit it unchanged.", again=True),
    "unknown": _unknown,
}

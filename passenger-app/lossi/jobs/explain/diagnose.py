"""Why a task died, and what to do next: as a sentence and as data. Pure; `explaining` reads the logs."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel

from lossi import units
from lossi.contract import records
from lossi.contract.records import PreparedJob
from lossi.files.text import neutralised
from lossi.jobs.explain import amounts
from lossi.jobs.explain.causes import Kind, kind_of, memory_asked, memory_used, signal_name, signal_of
from lossi.jobs.explain.diagnoses import Diagnosis, Evidence
from lossi.jobs.models import Task

SHOWN_LINES = 20
LONGEST_LINE = 300
LONGEST_MESSAGE = 500
MEMORY_FACTORS = (2.0, 1.5)
"""Of what was asked for, of what was used: the greater is advised."""
TIME_FACTOR = 2.0
ESTIMATE_FACTOR = 1.25
CELLS_TO_ESTIMATE = 3
"""So many finished cells, before how long they took says something of the others."""


_CANCELLED_BY = re.compile(r"cancelled by ([^\s,;:()]{1,64})(?: before it started)?")


class _Answer(BaseModel):
    sentence: str
    suggestion: str = ""
    changes: dict[str, Any] = {}
    again: bool = False


def diagnose(task: Task, job: PreparedJob, log_tail: str, scheduler_tail: str = "") -> Diagnosis:
    """Return why a task died.

    Parameters
    ----------
    task
        As it is known; with its last progress where it has one, although it runs no longer.
    job
        What was asked for.
    log_tail
        The end of the task's log.
    scheduler_tail
        The end of what the scheduler has written of this task alone.
    """
    log = neutralised(log_tail)
    kind = kind_of(task, job, log, neutralised(scheduler_tail))
    answer = _ANSWERS.get(kind, _unknown)(task, job)
    return Diagnosis(
        job_id=task.job_id,
        task=task.task,
        state=task.state,
        kind=kind,
        sentence=f"{answer.sentence.rstrip(' .')}.",
        suggestion=answer.suggestion,
        changes=answer.changes,
        again=answer.again,
        evidence=_evidence(task, log),
    )


def more_memory(task: Task, job: PreparedJob) -> int | None:
    """Return MiB to ask for at the next try: twice as much, or half more than was used; None where neither is known."""
    asked, used = memory_asked(task, job), memory_used(task, job)
    known = [factor * amount for factor, amount in zip(MEMORY_FACTORS, (asked, used), strict=True) if amount]
    return amounts.round_memory(max(known)) if known else None


def more_time(task: Task, job: PreparedJob) -> int | None:
    """Return seconds to ask for at the next try: by the cells that were done, else twice as much; None where nothing is known."""
    limit = time_limit(task, job) or amounts.finite(task.elapsed_s)
    if not limit:
        return None
    expected = _expected_s(task)
    if expected is not None and expected > limit:
        return amounts.round_time(ESTIMATE_FACTOR * expected)
    return amounts.round_time(TIME_FACTOR * limit)


def time_limit(task: Task, job: PreparedJob) -> float | None:
    """Return the time limit of a task in seconds: as the scheduler set it, else as it was asked for."""
    return amounts.finite(task.time_limit_s) or amounts.finite(job.resources.time_limit_s) or None


def _expected_s(task: Task) -> float | None:
    """Return how long the whole task would take, by its finished cells."""
    progress = task.progress
    if progress is None or progress.cell <= CELLS_TO_ESTIMATE:
        return None
    left, gone = amounts.finite(progress.estimate_s), amounts.finite(progress.elapsed_s)
    return None if left is None or gone is None else gone + left


def _evidence(task: Task, log: str) -> Evidence:
    error, progress = task.error, task.progress
    cell = error.cell if error is not None and error.cell is not None else progress.cell if progress else None
    own_words = error is not None and not error.name.startswith(("exit code ", "signal "))
    return Evidence(
        cell=cell or None,
        cells=(progress.cells or None) if progress else None,
        first_line=_line(progress.first_line) if progress and cell == progress.cell else "",
        exception=_line(error.name) if error and own_words else "",
        message=neutralised(error.message)[:LONGEST_MESSAGE] if error and own_words else "",
        exit_code=task.exit_code,
        signal=signal_of(task),
        host=task.host,
        lines=[line[:LONGEST_LINE] for line in log.splitlines()[-SHOWN_LINES:]],
    )


def _line(text: str) -> str:
    return next(iter(neutralised(text).strip().splitlines()), "")[:LONGEST_LINE]


def _where(task: Task) -> str:
    """Return where the program was: ``, in cell 3 of 7 (`fit(x)`)``, or nothing."""
    progress, error = task.progress, task.error
    if error is not None and error.cell:
        return f", in cell {error.cell}"
    if progress is None or not progress.cell:
        return ""
    first = _line(progress.first_line)[:60]
    return f", in cell {progress.cell} of {progress.cells}" + (f" ({first})" if first else "")


def _said(task: Task) -> str:
    """Return the program's own error in one line, or an empty text."""
    if task.error is None:
        return ""
    message = _line(task.error.message)
    return f"{_line(task.error.name)}: {message}" if message else _line(task.error.name)


def _none(task: Task, job: PreparedJob) -> _Answer:
    return _Answer(sentence="The task succeeded" if task.state == records.SUCCEEDED else f"The task is {task.state}")


def _time_limit(task: Task, job: PreparedJob) -> _Answer:
    limit, wanted = time_limit(task, job), more_time(task, job)
    had = f" of {units.humanize_duration(limit)}" if limit else ""
    if task.scheduler_state.upper().startswith("DEADLINE"):
        return _Answer(sentence="The task could not end before the deadline that the job was given")
    sentence = f"The task reached its time limit{had}{_where(task)}"
    if wanted is None:
        return _Answer(sentence=sentence, suggestion="Ask for more time with --time.")
    expected = _expected_s(task)
    why = ""
    if expected is not None and limit and expected > limit:
        why = f"; by the cells it finished it needs about {units.humanize_duration(expected)}"
    return _Answer(
        sentence=sentence,
        suggestion=f"Submit it again with {units.humanize_duration(wanted)}{why}, or let it continue from what it has saved.",
        changes={"resources": {"time": units.format_time(wanted)}},
    )


def _memory(task: Task, job: PreparedJob) -> _Answer:
    asked, used, wanted = memory_asked(task, job), memory_used(task, job), more_memory(task, job)
    facts = [f"it had {units.humanize_memory(asked)}"] if asked else []
    if used:
        facts.append(f"its greatest measured use was {units.humanize_memory(used)}")
    numbers = f": {', '.join(facts)}" if facts else ""
    sentence = f"The task ran out of memory{_where(task)}{numbers}"
    if wanted is None:
        return _Answer(sentence=sentence, suggestion="Ask for more memory with --memory, or work on less data at once.")
    return _Answer(sentence=sentence, suggestion=_with_memory(wanted), changes=_memory_change(wanted))


def _with_memory(wanted: int) -> str:
    return f"Submit it again with {units.humanize_memory(wanted)}, or work on less data at once."


def _memory_change(wanted: int) -> dict[str, Any]:
    return {"resources": {"memory": units.format_memory(wanted)}}


def _gpu_memory(task: Task, job: PreparedJob) -> _Answer:
    said = _said(task)
    return _Answer(
        sentence=f"The memory of the GPU was full{_where(task)}" + (f": {said}" if said else ""),
        suggestion="Use a smaller batch, mixed precision or gradient accumulation, or a GPU with more memory.",
    )


def _gpu_unavailable(task: Task, job: PreparedJob) -> _Answer:
    said = _said(task)
    sentence = f"The program wanted a GPU and found none that it can use{_where(task)}" + (f": {said}" if said else "")
    if not job.resources.gpus:
        return _Answer(sentence=sentence, suggestion="The job asked for no GPU: ask for one.", changes={"resources": {"gpus": 1}})
    return _Answer(
        sentence=sentence,
        suggestion="The job had a GPU: use an environment that is made for this kind of GPU (`lossi env list`).",
    )


def _disk_full(task: Task, job: PreparedJob) -> _Answer:
    said = _said(task)
    return _Answer(
        sentence=f"There was no space left to write to{_where(task)}" + (f": {said}" if said else ""),
        suggestion="Free space, or files where their number is limited, in the project and in temporary folders; then submit it again.",
        again=True,
    )


def _node_failure(task: Task, job: PreparedJob) -> _Answer:
    node = f"node {task.host}" if task.host else "a node"
    return _Answer(
        sentence=f"The task was lost because {node} failed or was restarted; it is no fault of the program",
        suggestion="Submit it again as it is.",
        again=True,
    )


def _preemption(task: Task, job: PreparedJob) -> _Answer:
    return _Answer(
        sentence="The scheduler stopped the task to make room for a job that goes first",
        suggestion="Submit it again as it is; a partition or quality of service that is not preempted avoids this.",
        again=True,
    )


def _cancelled(task: Task, job: PreparedJob) -> _Answer:
    found = _CANCELLED_BY.search(neutralised(task.reason))
    if found is None:
        reason = f" ({_line(task.reason)})" if task.reason else ""
        return _Answer(
            sentence=f"The task was cancelled{reason}", suggestion="Submit it again if it is still wanted.", again=True
        )
    own = found[1] in (job.user, "you")
    return _Answer(
        sentence=f"The task was {_line(found[0])}",
        suggestion="Submit it again if it is still wanted." if own else f"Ask {found[1]} why before submitting it again.",
        again=own,
    )


def _dependency(task: Task, job: PreparedJob) -> _Answer:
    return _Answer(
        sentence="The task never ran, because the job that it waited for did not end as it had to",
        suggestion="Put that job right, then submit this one again.",
    )


def _environment(task: Task, job: PreparedJob) -> _Answer:
    reason = _line(task.reason) or _said(task)
    return _Answer(
        sentence="The environment or the program could not be started" + (f": {reason}" if reason else ""),
        suggestion=f"`lossi env check {job.environment.name or 'NAME'}` looks whether all is in place; the end of the log says more.",
    )


def _import_error(task: Task, job: PreparedJob) -> _Answer:
    said = _said(task)
    return _Answer(
        sentence=f"A package is missing in the environment{_where(task)}" + (f": {said}" if said else ""),
        suggestion="Choose an environment that has it (`lossi env list`), or add one of your own (`lossi env add`).",
    )


def _program_error(task: Task, job: PreparedJob) -> _Answer:
    said = _said(task)
    return _Answer(
        sentence=f"The program ended with an error{_where(task)}" + (f": {said}" if said else "; the log has it"),
        suggestion="Correct it and submit the failed tasks again.",
    )


def _signal(task: Task, job: PreparedJob) -> _Answer:
    number = signal_of(task) or 0
    sentence = f"The task was killed by {signal_name(number)}{_where(task)}"
    wanted = more_memory(task, job)
    if number == 9 and wanted is not None:
        return _Answer(
            sentence=f"{sentence}, most often because memory ran out; nothing proves it here",
            suggestion=_with_memory(wanted),
            changes=_memory_change(wanted),
        )
    if number in (4, 6, 7, 8, 11):
        return _Answer(
            sentence=f"{sentence}: it crashed in compiled code",
            suggestion="Try it with a small input and another version of the package that crashed; the end of the log may name it.",
        )
    return _Answer(
        sentence=f"{sentence}; who sent it is not known",
        suggestion="Submit it again; the end of the log may say more.",
        again=True,
    )


def _exit_code(task: Task, job: PreparedJob) -> _Answer:
    said = _line(task.error.message) if task.error else ""
    return _Answer(
        sentence=f"The program ended with exit code {task.exit_code}" + (f"; it said last: {said}" if said else ""),
        suggestion="The end of the log may say why.",
    )


def _not_submitted(task: Task, job: PreparedJob) -> _Answer:
    return _Answer(
        sentence="The job was prepared but never reached the scheduler", suggestion="Submit it again as it is.", again=True
    )


def _unknown(task: Task, job: PreparedJob) -> _Answer:
    reason = _line(task.reason)
    return _Answer(
        sentence="Why the task ended is not known" + (f": {reason}" if reason else ""),
        suggestion="Look at the end of its log; if nothing is there, submit it again.",
    )


_ANSWERS: dict[Kind, Callable[[Task, PreparedJob], _Answer]] = {
    "none": _none,
    "time_limit": _time_limit,
    "memory": _memory,
    "gpu_memory": _gpu_memory,
    "gpu_unavailable": _gpu_unavailable,
    "disk_full": _disk_full,
    "node_failure": _node_failure,
    "preemption": _preemption,
    "cancelled": _cancelled,
    "dependency": _dependency,
    "environment": _environment,
    "import_error": _import_error,
    "python_error": _program_error,
    "r_error": _program_error,
    "signal": _signal,
    "exit_code": _exit_code,
    "not_submitted": _not_submitted,
    "unknown": _unknown,
}

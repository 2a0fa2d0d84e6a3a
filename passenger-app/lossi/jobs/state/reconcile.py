"""The state of a task and of a job, from what the scheduler says and what the job directory holds. Pure.

The exit record knows how the program ended, the scheduler why it stopped something and what never ran. A task whose row is ``final``
is never looked at again; one that has ended may stay open for a moment, until the scheduler has noticed.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lossi.contract.records import Ending, PreparedJob, Progress, Resources, TaskExit
from lossi.contract.states import (
    CANCELLED,
    FAILED,
    NODE_FAILED,
    OUT_OF_MEMORY,
    PREEMPTED,
    QUEUED,
    RUNNING,
    STATES,
    SUCCEEDED,
    TIMED_OUT,
    UNKNOWN,
    has_ended,
    label,
)
from lossi.jobs.schedulers import FORGOTTEN, Capabilities, JobView, TaskView
from lossi.jobs.times import seconds, stamp
from lossi.projects.facts import FACTS, SCHEDULER_FACTS

GRACE_S = 5.0
"""How long an exit record may take to arrive over a network filesystem, and a scheduler to say why it stopped a task."""

LAG_S = 30.0
"""How long a scheduler may not know a job that it has just accepted."""

FACTS_PATIENCE_S = 3600.0
"""How long after its end a task stays open for figures that its scheduler still owes."""

WORST_FIRST = (UNKNOWN, FAILED, OUT_OF_MEMORY, TIMED_OUT, NODE_FAILED, PREEMPTED, CANCELLED, SUCCEEDED)

NO_EXIT_RECORD = "no exit record: the runner was killed"

KEPT = tuple(name for name, fact in SCHEDULER_FACTS.items() if fact.attempts == "last")
"""What the scheduler said of a task once stays when it says nothing of it now."""

_SOURCES = {name: fact.sources for name, fact in FACTS.items() if fact.sources}

_STOPPED = frozenset((TIMED_OUT, OUT_OF_MEMORY, NODE_FAILED, PREEMPTED))

Row = dict[str, Any]
"""Column of the index → value."""


@dataclass(frozen=True)
class TaskFolder:
    """What the job directory holds of one task.

    Attributes
    ----------
    changed
        When the task's folder last changed, in seconds since the epoch; None: it has none, so it never started.
    cancelled
        Somebody asked to stop the task.
    """

    exit: TaskExit | None = None
    ending: Ending | None = None
    progress: Progress | None = None
    changed: float | None = None
    cancelled: bool = False


@dataclass(frozen=True)
class Patience:
    """How late things may arrive from where a job runs, in seconds; and whether its scheduler reports figures after the end."""

    exit_s: float = GRACE_S
    notice_s: float = GRACE_S
    facts: bool = False

    @classmethod
    def with_(cls, capabilities: Capabilities) -> Patience:
        """Return that of a scheduler."""
        return cls(capabilities.exit_grace_s, capabilities.notice_s, capabilities.facts)


def task_state(
    folder: TaskFolder,
    view: TaskView | None,
    job_view: JobView | None,
    *,
    now: float,
    submitted: float | None,
    patience: Patience,
) -> Row | None:
    """Return the columns that say how a task is, or None when nothing new is known of it.

    Parameters
    ----------
    folder
        What the job directory holds of it.
    view, job_view
        What the scheduler says of the task, and of the job; None: nothing, and that it could not be asked.
    now, submitted
        Seconds since the epoch.
    patience
        What may be late, and how late.
    """
    current = _present(view, folder)
    if folder.exit is not None and not _is_of_earlier_attempt(folder.exit, current):
        state = _by_exit(folder, current, folder.exit, now, patience)
        return _left_open(state, folder, current, now, patience)
    if current is not None:
        return _left_open(_by_view(folder, current, now, patience), folder, current, now, patience)
    if job_view is not None and job_view.known and has_ended(job_view.state):
        return _by_view(folder, TaskView(job_view.state, job_view.scheduler_state, job_view.reason), now, patience)
    if job_view is not None and not job_view.known:
        if submitted is not None and now - submitted < LAG_S:
            return None
        return _columns(UNKNOWN, FORGOTTEN)
    if (job_view is None or job_view.state == UNKNOWN) and folder.changed is not None:
        # Somebody else's job, another host's, or no answer: a folder without an exit record means running, as far as one can see.
        return _columns(RUNNING, started=(folder.progress.started if folder.progress else "") or None)
    return None


def _columns(state: str, reason: str = "", final: bool = False, scheduler_state: str = "", **more: Any) -> Row:
    return {"state": state, "reason": reason, "final": int(final), "scheduler_state": scheduler_state, **more}


def _present(view: TaskView | None, folder: TaskFolder) -> TaskView | None:
    """Return the scheduler's view; a task that has begun since it said "queued" is running."""
    if view is None or view.state != QUEUED or view.as_of is None or folder.changed is None:
        return view
    if folder.exit is None and folder.changed > view.as_of:
        return dataclasses.replace(view, state=RUNNING, scheduler_state="", reason="")
    return view


def _is_of_earlier_attempt(record: TaskExit, view: TaskView | None) -> bool:
    """Return whether the scheduler started the task again after this attempt, or will."""
    if view is None:
        return False
    if view.restarts is not None and record.attempt <= view.restarts:
        return True
    return view.state == QUEUED and view.as_of is not None and view.as_of > (seconds(record.ended) or view.as_of)


def _left_open(state: Row, folder: TaskFolder, view: TaskView | None, now: float, patience: Patience) -> Row:
    """Leave a task open as long as its scheduler owes figures."""
    if not state["final"] or not patience.facts or (view is not None and view.accounted):
        return state
    ended = seconds(folder.exit.ended if folder.exit else None) or seconds(view.ended if view else None) or folder.changed
    ran = folder.exit is not None or folder.changed is not None or (view is not None and view.started is not None)
    wait_s = FACTS_PATIENCE_S if ran else patience.notice_s  # what never ran is accounted for at once or never
    return state | {"final": int(ended is not None and now - ended >= wait_s)}


def _by_exit(folder: TaskFolder, view: TaskView | None, record: TaskExit, now: float, patience: Patience) -> Row:
    # What the scheduler said before the end says nothing of it.
    scheduler_state = view.scheduler_state if view and (view.as_of is None or has_ended(view.state)) else ""
    state, reason = record.state if has_ended(record.state) else UNKNOWN, record.reason
    is_due = now - (seconds(record.ended) or 0.0) >= patience.notice_s
    noticed = is_due or (has_ended(view.state) if view else not patience.facts)
    if state == CANCELLED or (state == FAILED and (record.signal is not None or record.written_by != "runner")):
        # Stopped from outside: the scheduler knows why.
        if not noticed and not (folder.cancelled and state == CANCELLED):
            return _columns(
                RUNNING, "it is being stopped", scheduler_state=scheduler_state, started=record.started, host=record.host
            )
        if view and view.state in _STOPPED:
            state, reason = view.state, view.reason or reason
        elif record.written_by != "runner" and folder.ending is not None and has_ended(folder.ending.state):
            state, reason = folder.ending.state, folder.ending.reason or reason
        elif view and view.state == CANCELLED and (state == CANCELLED or record.written_by != "runner"):
            reason, state = view.reason or reason, CANCELLED
    return _columns(state, reason, noticed, scheduler_state)


def _by_view(folder: TaskFolder, view: TaskView, now: float, patience: Patience) -> Row:
    facts = {name: getattr(view, name) for name in ("exit_code", "signal", "host", "started", "ended")}
    known = {name: value for name, value in facts.items() if value is not None}
    if not has_ended(view.state):
        state = view.state if view.state in STATES else UNKNOWN
        return _columns(state, view.reason, scheduler_state=view.scheduler_state, **known)
    ended = seconds(view.ended) or folder.changed
    # A scheduler that says when a task started knows that it ran, even if its folder cannot be seen yet.
    ran = folder.changed is not None or (bool(view.facts) and view.started is not None)
    if ran and ended is not None and now - ended < patience.exit_s:
        known.pop("ended", None)
        return _columns(RUNNING, "waiting for its exit record", scheduler_state=view.scheduler_state, **known)
    return _columns(view.state, view.reason or (NO_EXIT_RECORD if ran else ""), True, view.scheduler_state, **known)


def task_row(job: PreparedJob, number: int, submitted: str | None, folder: TaskFolder, view: TaskView | None, state: Row) -> Row:
    """Return the whole row of a task, from the columns of `task_state`.

    Efficiencies are shares (0..1) of what was allocated; ``gpu_hours`` = cards × elapsed time of all attempts.
    """
    # The exit record of an earlier attempt says nothing of the present one but which attempt that was.
    current = folder.exit if folder.exit is not None and not _is_of_earlier_attempt(folder.exit, view) else None
    record = current or TaskExit(number, state["state"], attempt=_attempt(folder, view))
    row = _reported({"scheduler": view.facts if view else {}, "runner": vars(record), "request": _requested(job.resources)})
    ended_now = has_ended(state["state"])
    accounted_start = view.started if view is not None and view.accounted else None
    started = stamp(accounted_start or record.started or state.get("started") or (view.started if view else None))
    ended = stamp(record.ended or state.get("ended")) if ended_now else None
    submitted, eligible = stamp(submitted), stamp(row["eligible"])
    last_s = (record.elapsed_s or _difference(started, ended)) if ended_now else None
    accounted_s = view.facts.get("elapsed_s") if view else None
    elapsed_s = (last_s if accounted_s is None else accounted_s) if ended_now else None
    gpu_hours = row["gpu_hours"] if row["gpu_hours"] is not None or elapsed_s is None else row["gpus"] * elapsed_s / 3600
    return row | {
        "job_id": job.id,
        "task": number,
        "state": state["state"],
        "scheduler_state": state["scheduler_state"],
        "reason": state["reason"],
        "final": state["final"],
        "exit_code": (record.exit_code if current else state.get("exit_code")) if ended_now else None,
        "signal": (record.signal if current else state.get("signal")) if ended_now else None,
        "attempt": record.attempt,
        "host": record.host or state.get("host") or (view.host if view else None),
        "restarts": view.restarts if view is not None and view.restarts is not None else record.attempt - 1,
        "submitted": submitted,
        "eligible": eligible,
        "started": started,
        "ended": ended,
        "wait_s": _difference(eligible or submitted, started),
        "elapsed_s": elapsed_s,
        "time_efficiency": _share(last_s, row["time_limit_s"]),
        "cpu_efficiency": _share(row["cpu_s"], None if elapsed_s is None or row["cpus"] is None else elapsed_s * row["cpus"]),
        "memory_efficiency": _share(row["max_rss_mb"], row["memory_mb"]),
        "gpu_hours": gpu_hours if ended_now else None,
        "error": None if record.error is None else json.dumps(dataclasses.asdict(record.error)),
        "notes": json.dumps(record.notes) if record.notes else "[]",
        "tracking_error": record.tracking_error,
    }


def _reported(values: Mapping[str, Mapping[str, Any]]) -> Row:
    """Return every fact that the scheduler, the runner or the request says; the first declared source with a value counts."""
    row: Row = {}
    for name, sources in _SOURCES.items():  # thousands of tasks: without a generator for each fact
        row[name] = None
        for source in sources:
            value = values[source].get(name)
            if value is not None and value != "":
                row[name] = value
                break
    return row


def _requested(resources: Resources) -> dict[str, Any]:
    """Return what a task requests over all its nodes."""
    requested = dict(vars(resources))
    for name in ("cpus", "memory_mb", "gpus"):
        if requested[name] is not None:
            requested[name] *= resources.nodes
    return requested if resources.gpus else requested | {"gpu_type": None}


def _attempt(folder: TaskFolder, view: TaskView | None) -> int:
    if view is not None and view.restarts is not None:
        return view.restarts + 1
    return folder.exit.attempt if folder.exit is not None else 1


def job_state(counts: Mapping[str, int]) -> str:
    """Return the state of a job whose tasks are in these states: running, else queued, else the worst of the ends."""
    for state in (RUNNING, QUEUED, *WORST_FIRST):
        if counts.get(state):
            return state
    return UNKNOWN


def implied_state(state: str) -> str:
    """Return the state of those tasks of a job in ``state`` of which nothing is known by themselves."""
    return QUEUED if state in (QUEUED, RUNNING) else state


def job_reason(state: str, tasks: int, counts: Mapping[str, int], only: str) -> str:
    """Return one sentence on why a job ended as it did; ``only`` is the reason of the task of a job that has just one."""
    if not has_ended(state) or state == SUCCEEDED:
        return ""
    if tasks == 1:
        return only
    ends = [
        (counts[name], "ran out of memory" if name == OUT_OF_MEMORY else label(name)) for name in WORST_FIRST if counts.get(name)
    ]
    (first, words), *others = [end for end in ends if end[1] != SUCCEEDED]
    return ", ".join([f"{first:,} of {tasks:,} tasks {words}", *(f"{number:,} {words}" for number, words in others)])


def _difference(start: str | None, end: str | None) -> float | None:
    first, second = seconds(start), seconds(end)
    return None if first is None or second is None else round(max(second - first, 0.0), 3)


def _share(part: float | None, whole: float | None) -> float | None:
    return None if part is None or not whole else round(part / whole, 6)

"""How a task and a job stand, from what the scheduler says and what the job directory holds. Pure.

Whoever knows best is believed: ``exit.json`` on how the program ended, the scheduler on why it stopped something and on what
never ran. A task whose row is ``final`` is settled for good and never looked at again; one that has ended may wait a moment for
that, until the scheduler has noticed.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lossi.jobs.schedulers import JobView, TaskView
from lossi.runner.records import (
    CANCELLED,
    FAILED,
    FINAL_STATES,
    NODE_FAILED,
    OUT_OF_MEMORY,
    PREEMPTED,
    QUEUED,
    RUNNING,
    STATES,
    SUCCEEDED,
    TIMED_OUT,
    UNKNOWN,
    Ending,
    PreparedJob,
    Progress,
    TaskExit,
)

GRACE_S = 5.0
"""How long an account may take to arrive over a network filesystem, and a scheduler to say why it stopped a task."""

LAG_S = 30.0
"""How long a scheduler may not know a job that it has just accepted."""

WORST_FIRST = (UNKNOWN, FAILED, OUT_OF_MEMORY, TIMED_OUT, NODE_FAILED, PREEMPTED, CANCELLED, SUCCEEDED)

FORGOTTEN = "the scheduler no longer knows it, and it left no account of its end"
NO_ACCOUNT = "it ended without leaving its account (exit.json)"

_STOPPED = frozenset((TIMED_OUT, OUT_OF_MEMORY, NODE_FAILED, PREEMPTED))

Row = dict[str, Any]


@dataclass(frozen=True)
class Seen:
    """All that is known of one task at one moment.

    Attributes
    ----------
    started_folder
        When its folder was last changed, in seconds since the epoch; None: it has none, so it never started.
    view
        The scheduler's word; None: it says nothing of this task.
    """

    task: int
    now: float
    exit: TaskExit | None = None
    ending: Ending | None = None
    progress: Progress | None = None
    started_folder: float | None = None
    view: TaskView | None = None


@dataclass(frozen=True)
class State:
    """What is made of it."""

    state: str
    reason: str = ""
    final: bool = False
    scheduler_state: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


def task_state(seen: Seen, job_view: JobView | None, submitted: float | None) -> State | None:
    """Return how a task stands, or None when nothing new is known of it.

    Parameters
    ----------
    seen
        What is known of the task.
    job_view
        The scheduler's word on the job; None when it could not be asked.
    submitted
        Seconds since the epoch.
    """
    if seen.exit is not None:
        return _by_exit(seen, seen.exit)
    if seen.view is not None:
        return _by_view(seen, seen.view)
    if job_view is not None and job_view.known and job_view.state in FINAL_STATES:
        return _by_view(seen, TaskView(job_view.state, job_view.scheduler_state, job_view.reason))
    if job_view is not None and not job_view.known:
        if submitted is not None and seen.now - submitted < LAG_S:
            return None
        return State(UNKNOWN, FORGOTTEN)
    nobody_knows = job_view is None or job_view.state == UNKNOWN
    if nobody_knows and seen.started_folder is not None:
        # Somebody else's job, another host's, or no answer: what has a folder and no account is running as far as one can see.
        started = seen.progress.started if seen.progress else ""
        return State(RUNNING, facts={"started": started or None})
    return None


def _by_exit(seen: Seen, left: TaskExit) -> State:
    view = seen.view
    word = view.scheduler_state if view else ""
    state = left.state if left.state in FINAL_STATES else UNKNOWN
    reason = left.reason
    noticed = view is None or view.state in FINAL_STATES or seen.now - (seconds(left.ended) or 0.0) >= GRACE_S
    if state in (CANCELLED, FAILED) and (state == CANCELLED or left.signal is not None or left.written_by != "runner"):
        # Stopped from outside: the scheduler knows why.
        if not noticed:
            return State(RUNNING, "it is being stopped", False, word, {"started": left.started, "host": left.host})
        if view and view.state in _STOPPED:
            state, reason = view.state, view.reason or reason
        elif left.written_by != "runner" and seen.ending is not None and seen.ending.state in FINAL_STATES:
            state, reason = seen.ending.state, seen.ending.reason or reason
        elif left.written_by != "runner" and view and view.state == CANCELLED:
            state, reason = CANCELLED, view.reason or reason
    return State(state, reason, noticed, word)


def _by_view(seen: Seen, view: TaskView) -> State:
    facts = {
        name: getattr(view, name)
        for name in ("exit_code", "signal", "host", "started", "ended")
        if getattr(view, name) is not None
    }
    if view.state not in FINAL_STATES:
        state = view.state if view.state in STATES else UNKNOWN
        return State(state, view.reason, False, view.scheduler_state, facts)
    ended = seconds(view.ended) or seen.started_folder
    if seen.started_folder is not None and ended is not None and seen.now - ended < GRACE_S:
        facts.pop("ended", None)
        return State(RUNNING, "waiting for its account to arrive", False, view.scheduler_state, facts)
    reason = view.reason or (NO_ACCOUNT if seen.started_folder is not None else "")
    return State(view.state, reason, True, view.scheduler_state, facts)


def task_row(job: PreparedJob, submitted: str | None, seen: Seen, state: State) -> Row:
    """Return the row of a task in the index, with the derived columns.

    Efficiencies are shares (0..1) of what was asked for; ``gpu_hours`` = GPUs × elapsed time.
    """
    left = seen.exit or TaskExit(seen.task, state.state)
    view = seen.view
    ended_now = state.state in FINAL_STATES
    started = stamp(left.started or state.facts.get("started") or (view.started if view else None))
    ended = stamp(left.ended or state.facts.get("ended")) if ended_now else None
    submitted = stamp(submitted)
    elapsed = _elapsed(left, started, ended) if ended_now else None
    asked = job.resources
    exit_code = left.exit_code if seen.exit else state.facts.get("exit_code")
    signal = left.signal if seen.exit else state.facts.get("signal")
    return {
        "job_id": job.id,
        "task": seen.task,
        "state": state.state,
        "scheduler_state": state.scheduler_state,
        "reason": state.reason,
        "exit_code": exit_code if ended_now else None,
        "signal": signal if ended_now else None,
        "attempt": left.attempt,
        "host": left.host or state.facts.get("host") or (view.host if view else None),
        "submitted": submitted,
        "started": started,
        "ended": ended,
        "wait_s": _difference(submitted, started),
        "elapsed_s": elapsed,
        "cpu_s": left.cpu_s,
        "max_rss_mb": left.max_rss_mb,
        "cpu_efficiency": _share(left.cpu_s, None if elapsed is None else elapsed * asked.cpus),
        "memory_efficiency": _share(left.max_rss_mb, asked.memory_mb),
        "gpu_type": left.gpu_type,
        "gpu_driver": left.gpu_driver,
        "gpu_utilisation": left.gpu_utilisation,
        "gpu_memory_mb": left.gpu_memory_mb,
        "gpu_hours": None if elapsed is None else asked.gpus * elapsed / 3600,
        "error": None if left.error is None else json.dumps(dataclasses.asdict(left.error)),
        "notes": json.dumps(left.notes),
        "tracking_error": left.tracking_error,
        "final": int(state.final),
    }


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
    if state not in FINAL_STATES or state == SUCCEEDED:
        return ""
    if tasks == 1:
        return only
    words = [f"{counts[name]:,} {name.replace('_', ' ')}" for name in WORST_FIRST if name != SUCCEEDED and counts.get(name)]
    return f"of {tasks:,} tasks {', '.join(words)}"


def utc(moment: float) -> str:
    """Return ISO 8601 in UTC, to the millisecond, for seconds since the epoch."""
    return datetime.datetime.fromtimestamp(moment, datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def stamp(text: str | None) -> str | None:
    """Return a time in the one form of the index, whose order as text is the order in time; None for nothing or nonsense."""
    moment = seconds(text)
    return None if moment is None else utc(moment)


def seconds(text: str | None) -> float | None:
    """Return seconds since the epoch for ISO 8601 in UTC, None for nothing or nonsense."""
    if not text:
        return None
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).timestamp()


def _elapsed(left: TaskExit, started: str | None, ended: str | None) -> float | None:
    return left.elapsed_s if left.elapsed_s else _difference(started, ended)


def _difference(start: str | None, end: str | None) -> float | None:
    first, second = seconds(start), seconds(end)
    return None if first is None or second is None else round(max(second - first, 0.0), 3)


def _share(part: float | None, whole: float | None) -> float | None:
    return None if part is None or not whole else round(part / whole, 6)

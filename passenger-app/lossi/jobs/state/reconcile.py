"""How a task and a job stand, from what the scheduler says and what the job directory holds. Pure.

Whoever knows best is believed: ``exit.json`` on how the program ended, the scheduler on why it stopped something and on what
never ran. A task whose row is ``final`` is settled for good and never looked at again; one that has ended may wait a moment for
that, until the scheduler has noticed.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
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
)
from lossi.jobs.schedulers import FORGOTTEN, Capabilities, JobView, TaskView
from lossi.jobs.times import seconds, stamp
from lossi.projects.facts import FACTS, SCHEDULER_FACTS

GRACE_S = 5.0
"""How long an account may take to arrive over a network filesystem, and a scheduler to say why it stopped a task."""

LAG_S = 30.0
"""How long a scheduler may not know a job that it has just accepted."""

FACTS_PATIENCE_S = 3600.0
"""How long after its end a task stays open for what its scheduler has still to account for it."""

WORST_FIRST = (UNKNOWN, FAILED, OUT_OF_MEMORY, TIMED_OUT, NODE_FAILED, PREEMPTED, CANCELLED, SUCCEEDED)

NO_ACCOUNT = "it ended without leaving its account (exit.json)"

KEPT = tuple(name for name, fact in SCHEDULER_FACTS.items() if fact.attempts == "last")
"""What the scheduler said of a task once stays when it says nothing of it now."""

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
    patience
        What may be late, and how late.
    cancelled
        Somebody asked to stop this task.
    """

    task: int
    now: float
    exit: TaskExit | None = None
    ending: Ending | None = None
    progress: Progress | None = None
    started_folder: float | None = None
    view: TaskView | None = None
    patience: Patience = field(default_factory=lambda: Patience())
    cancelled: bool = False


@dataclass(frozen=True)
class Patience:
    """How late things may come from where a job runs, in seconds; and whether its scheduler accounts for tasks after their end."""

    exit_s: float = GRACE_S
    notice_s: float = GRACE_S
    facts: bool = False

    @classmethod
    def with_(cls, able: Capabilities) -> Patience:
        """Return that of a scheduler."""
        return cls(able.exit_grace_s, able.notice_s, able.facts)


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
    view = _present(seen)
    if seen.exit is not None and not _is_of_earlier_attempt(seen.exit, view):
        return _settled(seen, view, _by_exit(seen, view, seen.exit))
    if view is not None:
        return _settled(seen, view, _by_view(seen, view))
    if job_view is not None and job_view.known and has_ended(job_view.state):
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


def _present(seen: Seen) -> TaskView | None:
    """Return the scheduler's word; a task that has begun since it said "queued" is running."""
    view = seen.view
    if view is None or view.state != QUEUED or view.as_of is None or seen.started_folder is None:
        return view
    if seen.exit is None and seen.started_folder > view.as_of:
        return dataclasses.replace(view, state=RUNNING, scheduler_state="", reason="")
    return view


def _is_of_earlier_attempt(left: TaskExit, view: TaskView | None) -> bool:
    """Return whether an account is one of an attempt after which the scheduler started the task again, or will."""
    if view is None:
        return False
    if view.restarts is not None and left.attempt <= view.restarts:
        return True
    return view.state == QUEUED and view.as_of is not None and view.as_of > (seconds(left.ended) or view.as_of)


def _settled(seen: Seen, view: TaskView | None, state: State) -> State:
    """Leave a task open as long as its scheduler owes what it has accounted for it."""
    if not state.final or not seen.patience.facts or (view is not None and view.accounted):
        return state
    ended = seconds(seen.exit.ended if seen.exit else None) or seconds(view.ended if view else None) or seen.started_folder
    ran = seen.exit is not None or seen.started_folder is not None or (view is not None and view.started is not None)
    patience = FACTS_PATIENCE_S if ran else seen.patience.notice_s  # what never ran is accounted for at once or never
    return dataclasses.replace(state, final=ended is not None and seen.now - ended >= patience)


def _by_exit(seen: Seen, view: TaskView | None, left: TaskExit) -> State:
    # A word from before the end says nothing of it.
    word = view.scheduler_state if view and (view.as_of is None or has_ended(view.state)) else ""
    state = left.state if has_ended(left.state) else UNKNOWN
    reason = left.reason
    since = seen.now - (seconds(left.ended) or 0.0)
    if view is None:
        noticed = not seen.patience.facts or since >= seen.patience.notice_s
    else:
        noticed = has_ended(view.state) or since >= seen.patience.notice_s
    if state in (CANCELLED, FAILED) and (state == CANCELLED or left.signal is not None or left.written_by != "runner"):
        # Stopped from outside: the scheduler knows why.
        if not noticed and not (seen.cancelled and state == CANCELLED):
            return State(RUNNING, "it is being stopped", False, word, {"started": left.started, "host": left.host})
        if view and view.state in _STOPPED:
            state, reason = view.state, view.reason or reason
        elif left.written_by != "runner" and seen.ending is not None and has_ended(seen.ending.state):
            state, reason = seen.ending.state, seen.ending.reason or reason
        elif view and view.state == CANCELLED and (state == CANCELLED or left.written_by != "runner"):
            state, reason = CANCELLED, view.reason or reason
    return State(state, reason, noticed, word)


def _by_view(seen: Seen, view: TaskView) -> State:
    facts = {
        name: getattr(view, name)
        for name in ("exit_code", "signal", "host", "started", "ended")
        if getattr(view, name) is not None
    }
    if not has_ended(view.state):
        state = view.state if view.state in STATES else UNKNOWN
        return State(state, view.reason, False, view.scheduler_state, facts)
    ended = seconds(view.ended) or seen.started_folder
    # A scheduler that says when a task started knows that it ran, even where its folder cannot be seen yet.
    ran = seen.started_folder is not None or (view.facts and view.started is not None)
    if ran and ended is not None and seen.now - ended < seen.patience.exit_s:
        facts.pop("ended", None)
        return State(RUNNING, "waiting for its account to arrive", False, view.scheduler_state, facts)
    reason = view.reason or (NO_ACCOUNT if ran else "")
    return State(view.state, reason, True, view.scheduler_state, facts)


def task_row(job: PreparedJob, submitted: str | None, seen: Seen, state: State) -> Row:
    """Return the row of a task in the index, with the derived columns.

    Efficiencies are shares (0..1) of what was allocated; ``gpu_hours`` = cards × elapsed time of all attempts.
    """
    view = seen.view
    # The account of an earlier attempt says nothing of the present one but which attempt that was.
    current = seen.exit if seen.exit is not None and not _is_of_earlier_attempt(seen.exit, view) else None
    left = current or TaskExit(seen.task, state.state, attempt=_attempt(seen, view))
    row = _reported({"scheduler": view.facts if view else {}, "runner": vars(left), "request": _requested(job.resources)})
    ended_now = has_ended(state.state)
    accounted = view.started if view is not None and view.accounted else None
    started = stamp(accounted or left.started or state.facts.get("started") or (view.started if view else None))
    ended = stamp(left.ended or state.facts.get("ended")) if ended_now else None
    submitted, eligible = stamp(submitted), stamp(row["eligible"])
    last = (left.elapsed_s or _difference(started, ended)) if ended_now else None
    accounted_s = view.facts.get("elapsed_s") if view else None
    elapsed = (last if accounted_s is None else accounted_s) if ended_now else None
    gpu_hours = row["gpu_hours"] if row["gpu_hours"] is not None or elapsed is None else row["gpus"] * elapsed / 3600
    return row | {
        "job_id": job.id,
        "task": seen.task,
        "state": state.state,
        "scheduler_state": state.scheduler_state,
        "reason": state.reason,
        "exit_code": (left.exit_code if current else state.facts.get("exit_code")) if ended_now else None,
        "signal": (left.signal if current else state.facts.get("signal")) if ended_now else None,
        "attempt": left.attempt,
        "host": left.host or state.facts.get("host") or (view.host if view else None),
        "restarts": view.restarts if view is not None and view.restarts is not None else left.attempt - 1,
        "submitted": submitted,
        "eligible": eligible,
        "started": started,
        "ended": ended,
        "wait_s": _difference(eligible or submitted, started),
        "elapsed_s": elapsed,
        "time_efficiency": _share(last, row["time_limit_s"]),
        "cpu_efficiency": _share(row["cpu_s"], None if elapsed is None or row["cpus"] is None else elapsed * row["cpus"]),
        "memory_efficiency": _share(row["max_rss_mb"], row["memory_mb"]),
        "gpu_hours": gpu_hours if ended_now else None,
        "error": None if left.error is None else json.dumps(dataclasses.asdict(left.error)),
        "notes": json.dumps(left.notes) if left.notes else "[]",
        "tracking_error": left.tracking_error,
        "final": int(state.final),
    }


def _reported(values: Mapping[str, Mapping[str, Any]]) -> Row:
    """Return every fact that the scheduler, the runner or the request says; the first declared source with a value counts."""
    return {
        name: next((value for source in fact.sources if (value := values[source].get(name)) not in (None, "")), None)
        for name, fact in FACTS.items()
    }


def _requested(resources: Resources) -> dict[str, Any]:
    """Return what a task asks for over all its nodes."""
    requested = vars(resources) | {
        name: value * resources.nodes for name in ("cpus", "memory_mb", "gpus") if (value := getattr(resources, name)) is not None
    }
    return requested if resources.gpus else requested | {"gpu_type": None}


def _attempt(seen: Seen, view: TaskView | None) -> int:
    if view is not None and view.restarts is not None:
        return view.restarts + 1
    return seen.exit.attempt if seen.exit is not None else 1


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
    words = [f"{counts[name]:,} {name.replace('_', ' ')}" for name in WORST_FIRST if name != SUCCEEDED and counts.get(name)]
    return f"of {tasks:,} tasks {', '.join(words)}"


def _difference(start: str | None, end: str | None) -> float | None:
    first, second = seconds(start), seconds(end)
    return None if first is None or second is None else round(max(second - first, 0.0), 3)


def _share(part: float | None, whole: float | None) -> float | None:
    return None if part is None or not whole else round(part / whole, 6)

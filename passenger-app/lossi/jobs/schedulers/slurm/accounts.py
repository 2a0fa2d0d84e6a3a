"""From the accounting rows of a task's attempts to its `TaskView`. Pure.

CPU and memory efficiency follow seff (contribs/seff in Slurm's sources): CPU time over elapsed time × allocated cores; peak
memory over allocated memory.
"""

from __future__ import annotations

import pwd
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from lossi import units
from lossi.contract.states import CANCELLED, FAILED, OUT_OF_MEMORY, has_ended
from lossi.jobs.schedulers.base import TaskView
from lossi.jobs.schedulers.slurm import jobstats, states
from lossi.jobs.schedulers.slurm.records import AccountingRow, QueueRow
from lossi.projects.facts import SCHEDULER_FACTS

NEAR_LIMIT = 0.95
"""A task killed by signal 9 that had used this share of its memory ran out of memory, if nothing else is known."""


def in_order(rows: Iterable[AccountingRow]) -> list[AccountingRow]:
    """Return the attempts of one task, oldest first."""
    return sorted(rows, key=lambda row: (row.submitted or "", row.started or "9999", row.ended or "9999"))


def view(rows: Sequence[AccountingRow], *, units_per_gpu: Callable[[str | None], int] = lambda kind: 1) -> TaskView:
    """Return the view of a task from its attempts, oldest first."""
    last = rows[-1]
    state = states.state_of(last.state)
    if _killed_for_memory(last, state):
        state = OUT_OF_MEMORY
    # A task that was cancelled while it waited has that time as its start.
    ran = bool(last.node_list) or state != CANCELLED
    return TaskView(
        state,
        last.state,
        sentence(last, state),
        last.exit_code,
        last.signal,
        last.node_list or None,
        last.started if ran else None,
        last.ended,
        restarts=last.restarts if last.restarts is not None else len(rows) - 1,
        facts=_facts(rows, units_per_gpu),
        # For a moment the end may be recorded before the start: then the row lacks the request.
        accounted=has_ended(states.state_of(last.state)) and last.ended is not None and last.partition != "",
    )


def live_facts(row: QueueRow) -> dict[str, Any]:
    """Return the facts of a task that has not ended."""
    values = {name: getattr(row, name, None) for name in SCHEDULER_FACTS}
    return {name: value for name, value in values.items() if value not in (None, "")}


def sentence(row: AccountingRow, state: str) -> str:
    """Return why an attempt ended, as a sentence; empty if the exit code is enough."""
    if row.state == "TIMEOUT":
        return f"it reached its time limit{'' if row.time_limit_s is None else ' of ' + units.format_time(int(row.time_limit_s))}"
    if state == OUT_OF_MEMORY:
        limit = "" if row.memory_mb is None else f" of {row.memory_mb:,.0f} MiB"
        return f"it used more memory than its limit{limit}"
    if row.state == "NODE_FAIL":
        return f"a node failed ({row.node_list})" if row.node_list else "a node failed"
    if row.state == "BOOT_FAIL":
        return "a node could not be started for it"
    if row.state == "PREEMPTED":
        return "a job of higher priority took its place"
    if row.state == "DEADLINE":
        return "it could not end before its deadline"
    if state == CANCELLED:
        return "it was cancelled" if row.cancelled_by is None else f"cancelled by {user_name(row.cancelled_by)}"
    return ""


def user_name(uid: int) -> str:
    """Return the name of a user, or the number if there is none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def _killed_for_memory(row: AccountingRow, state: str) -> bool:
    if state not in (FAILED, CANCELLED) or row.cancelled_by is not None or not row.max_rss_mb or not row.memory_mb:
        return False
    # A shell reports signal 9 as 137; PySlurm subtracts 128.
    return (row.signal == 9 or row.exit_code in (9, 137)) and row.max_rss_mb >= NEAR_LIMIT * row.memory_mb


def _facts(rows: Sequence[AccountingRow], units_per_gpu: Callable[[str | None], int]) -> dict[str, Any]:
    use = jobstats.gpu_use(rows[-1].admin_comment)
    values = {
        name: _over_attempts(fact.attempts, [getattr(row, name, None) for row in rows]) for name, fact in SCHEDULER_FACTS.items()
    }
    values |= {
        "billing": _hours(rows, lambda row: row.billing),
        "gpu_hours": _hours(rows, lambda row: None if row.gpus is None else row.gpus / units_per_gpu(row.gpu_type)),
        "gpu_utilisation": use.utilisation if use else None,
        "gpu_memory_mb": use.memory_mb if use else None,
        "cpu_s": values["cpu_s"] or None,  # 0: the node was not measured
        "max_rss_mb": values["max_rss_mb"] or None,
    }
    return {name: value for name, value in values.items() if value not in (None, "")}


def _over_attempts(rule: str, values: Sequence[Any]) -> Any:
    known = [value for value in values if value is not None]
    if rule == "last" or not known:
        return values[-1]
    return sum(known) if rule == "sum" else max(known)


def _hours(rows: Sequence[AccountingRow], units: Callable[[AccountingRow], float | None]) -> float | None:
    hours = [number * row.elapsed_s / 3600 for row in rows if (number := units(row)) is not None and row.elapsed_s is not None]
    return sum(hours) if hours else None

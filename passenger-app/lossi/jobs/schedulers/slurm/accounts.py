"""From the accounting rows of a task's attempts to what is known of the task. Pure.

CPU and memory efficiency follow seff (contribs/seff in Slurm's sources): CPU time over elapsed time × allocated cores; greatest
memory over allocated memory.
"""

from __future__ import annotations

import pwd
from collections.abc import Callable, Iterable, Sequence

from lossi.contract.records import CANCELLED, FAILED, FINAL_STATES, OUT_OF_MEMORY
from lossi.jobs.resources import format_time
from lossi.jobs.schedulers.base import TaskFacts, TaskView
from lossi.jobs.schedulers.slurm import jobstats, states
from lossi.jobs.schedulers.slurm.records import AccountingRow, QueueRow

NEAR_LIMIT = 0.95
"""A task killed by signal 9 that had used this share of its memory was killed for it, where nothing else says so."""


def in_order(rows: Iterable[AccountingRow]) -> list[AccountingRow]:
    """Return the attempts of one task, the last one last."""
    return sorted(rows, key=lambda row: (row.submitted or "", row.started or "9999", row.ended or "9999"))


def view(rows: Sequence[AccountingRow], *, units_per_gpu: Callable[[str | None], int] = lambda kind: 1) -> TaskView:
    """Return what the database says of a task from its attempts in order."""
    last = rows[-1]
    facts = _facts(rows, units_per_gpu)
    state = states.state_of(last.state)
    if _killed_for_memory(last, state):
        state = OUT_OF_MEMORY
    # The database gives what was cancelled while it waited the moment of that as its start.
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
        restarts=facts.restarts,
        facts=facts,
    )


def live_facts(row: QueueRow) -> TaskFacts:
    """Return what the queue says of a task that has not ended."""
    return TaskFacts(
        partition=row.partition,
        account=row.account,
        qos=row.qos,
        nodes=row.nodes,
        node_list=row.node_list,
        cpus=row.cpus,
        gpus=row.gpus,
        gpu_type=row.gpu_type,
        restarts=row.restarts,
        time_limit_s=row.time_limit_s,
        eligible=row.eligible,
    )


def sentence(row: AccountingRow, state: str) -> str:
    """Return why an attempt ended, in words; empty where its exit code says it all."""
    if row.state == "TIMEOUT":
        return f"it reached its time limit{'' if row.time_limit_s is None else ' of ' + format_time(int(row.time_limit_s))}"
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
    """Return the name of a user, or the number where there is none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def _killed_for_memory(row: AccountingRow, state: str) -> bool:
    if state not in (FAILED, CANCELLED) or row.cancelled_by is not None or not row.max_rss_mb or not row.memory_mb:
        return False
    # 137 is what a shell says of signal 9; PySlurm takes 128 from it.
    return (row.signal == 9 or row.exit_code in (9, 137)) and row.max_rss_mb >= NEAR_LIMIT * row.memory_mb


def _facts(rows: Sequence[AccountingRow], units_per_gpu: Callable[[str | None], int]) -> TaskFacts:
    last = rows[-1]
    use = jobstats.gpu_use(last.admin_comment)
    return TaskFacts(
        partition=last.partition,
        account=last.account,
        qos=last.qos,
        nodes=last.nodes,
        node_list=last.node_list,
        cpus=last.cpus,
        memory_mb=last.memory_mb,
        gpus=last.gpus,
        gpu_type=last.gpu_type,
        gpu_hours=_hours(rows, lambda row: None if row.gpus is None else row.gpus / units_per_gpu(row.gpu_type)),
        restarts=last.restarts if last.restarts is not None else len(rows) - 1,
        time_limit_s=last.time_limit_s,
        eligible=last.eligible,
        elapsed_s=_sum(row.elapsed_s for row in rows),
        cpu_s=_sum(row.cpu_s for row in rows),
        max_rss_mb=max((row.max_rss_mb for row in rows if row.max_rss_mb), default=None),
        billing=_hours(rows, lambda row: row.billing),
        energy_j=_sum(row.energy_j for row in rows),
        gpu_utilisation=use.utilisation if use else None,
        gpu_memory_mb=use.memory_mb if use else None,
        # The end may be recorded before the start, for a moment: then the row lacks all that was asked for.
        complete=states.state_of(last.state) in FINAL_STATES and last.ended is not None and last.partition != "",
    )


def _sum(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _hours(rows: Sequence[AccountingRow], units: Callable[[AccountingRow], float | None]) -> float | None:
    return _sum(None if (one := units(row)) is None or row.elapsed_s is None else one * row.elapsed_s / 3600 for row in rows)

"""What a job requested, what its tasks used, and what to request next time. Pure; `explanations` reads the tasks.

Advice never goes below the peak use, keeps a margin, and needs at least one task that succeeded.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from lossi import units
from lossi.contract.records import PreparedJob
from lossi.contract.states import OUT_OF_MEMORY, SUCCEEDED, TIMED_OUT, has_ended
from lossi.jobs.explain import amounts
from lossi.jobs.models import Task

MARGIN = 1.3
WORTH_SAYING = 0.75
"""A smaller request is suggested only if it is at most this share of the present one."""
TIGHT = 0.9
"""A larger request is suggested if the peak use is beyond this share of the present one."""
BUSY_CORES = 0.25
BUSY_GPU_PERCENT = 10.0
SHORTEST_S = 60.0
"""Shorter tasks are mostly start-up: the use of their cores says nothing."""

Resource = Literal["memory", "time", "cpus", "gpus"]
Verdict = Literal["fits", "too_much", "tight"]


class Advice(BaseModel):
    """Request and use of one resource, per task (memory and cores: per node if it had several)."""

    model_config = ConfigDict(frozen=True)

    resource: Resource
    unit: str = Field(description="Unit of the numbers: MiB, s, cores, percent.")
    verdict: Verdict
    asked: float | None = Field(default=None, description="Request of each task; GPUs: their number.")
    measured: int = Field(description="Tasks whose use is known.")
    median: float
    ninth_decile: float
    greatest: float
    suggested: int | None = Field(default=None, description="What to request; none: the same as before.")
    sentence: str
    changes: dict[str, Any] = Field(default={}, description="The suggestion as `changes` for a resubmission.")


class JobAdvice(BaseModel):
    """What the tasks of a job used, and what to request next time."""

    model_config = ConfigDict(frozen=True)

    job_id: str
    succeeded: int = Field(description="Tasks that succeeded.")
    ended: int = Field(description="Tasks that ended.")
    sentence: str
    items: list[Advice] = []
    changes: dict[str, Any] = Field(default={}, description="All changes together.")


@dataclass(frozen=True)
class _Limit:
    """A resource that a task is killed for exceeding."""

    resource: Resource
    unit: str
    used: Callable[[Task, PreparedJob], float | None]
    requested: Callable[[Task, PreparedJob], float | None]
    more: Callable[[Task, PreparedJob], int | None]
    exceeded: str
    """State of a task that was killed for it."""
    least: int
    round: Callable[[float], int]
    humanize: Callable[[float], str]
    format: Callable[[int], str]
    facts: str
    """Sentence with ``requested``, ``tasks`` and ``peak``."""
    killed: str


def _last_attempt_time(task: Task, job: PreparedJob) -> float | None:
    """Return how long the last attempt ran, which is what the limit applies to: ``elapsed_s`` is the sum over all attempts."""
    share, limit = amounts.finite(task.time_efficiency), amounts.time_limit(task, job)
    return share * limit if share is not None and limit else amounts.finite(task.elapsed_s)


_LIMITS = (
    _Limit(
        "memory",
        "MiB",
        amounts.used_memory,
        amounts.requested_memory,
        amounts.more_memory,
        OUT_OF_MEMORY,
        512,
        amounts.round_memory,
        units.humanize_memory,
        units.format_memory,
        "It requested {requested} of memory, the peak use of {tasks} was {peak}",
        "ran out of memory",
    ),
    _Limit(
        "time",
        "s",
        _last_attempt_time,
        amounts.time_limit,
        amounts.more_time,
        TIMED_OUT,
        300,
        amounts.round_time,
        units.humanize_duration,
        units.format_time,
        "It requested {requested}, the longest run of {tasks} was {peak}",
        "reached the limit",
    ),
)


def advise(job: PreparedJob, tasks: Sequence[Task]) -> JobAdvice:
    """Return what to request, judged by those tasks of a job that have ended.

    Parameters
    ----------
    job
        The request.
    tasks
        Tasks of the job; those that have not ended are ignored.
    """
    ended = [task for task in tasks if has_ended(task.state)]
    succeeded = sum(task.state == SUCCEEDED for task in ended)
    if not succeeded:
        sentence = "No task has succeeded yet, so there is nothing to judge by."
        return JobAdvice(job_id=job.id, succeeded=0, ended=len(ended), sentence=sentence)
    candidates = [*(_limited(limit, job, ended) for limit in _LIMITS), _cpus(job, ended), _gpus(job, ended)]
    items = [item for item in candidates if item is not None]
    resources: dict[str, Any] = {}
    for item in items:
        resources |= item.changes.get("resources", {})
    if items:
        sentence = " ".join(item.sentence for item in items if item.verdict != "fits") or "The request fits the use."
    else:
        sentence = "Nothing was measured that could be compared with the request."
    return JobAdvice(
        job_id=job.id,
        succeeded=succeeded,
        ended=len(ended),
        sentence=sentence,
        items=items,
        changes={"resources": resources} if resources else {},
    )


def _limited(limit: _Limit, job: PreparedJob, ended: Sequence[Task]) -> Advice | None:
    used = _known(limit.used(task, job) for task in ended)
    requested = next(iter(_known(limit.requested(task, job) for task in ended)), None)
    if not used or not requested:
        return None
    peak = max(used)
    suggested = max(limit.round(MARGIN * peak), limit.least)
    facts = limit.facts.format(requested=limit.humanize(requested), tasks=_tasks(len(used)), peak=limit.humanize(peak))
    killed = [task for task in ended if task.state == limit.exceeded]
    if killed:
        suggested = max([suggested, *(more for task in killed if (more := limit.more(task, job)))])
        facts += f", and {_tasks(len(killed))} {limit.killed}"
    verdict: Verdict = "fits"
    if killed or peak > TIGHT * requested:
        verdict = "tight" if suggested > requested else "fits"
    elif suggested <= WORTH_SAYING * requested:
        verdict = "too_much"
    text = limit.format(suggested)
    return _advice(limit.resource, limit.unit, verdict, requested, used, facts, suggested, text, {limit.resource: text})


def _cpus(job: PreparedJob, ended: Sequence[Task]) -> Advice | None:
    requested = job.resources.cpus
    nodes = max(job.resources.nodes, 1)
    long_enough = [task for task in ended if (amounts.finite(task.elapsed_s) or 0.0) >= SHORTEST_S]
    used = _known(_ratio(task.cpu_s, task.elapsed_s, nodes) for task in long_enough)
    if not used:
        return None
    busy = statistics.median(used) / requested
    suggested = max(math.ceil(MARGIN * max(used)), 1)
    verdict: Verdict = "too_much" if busy < BUSY_CORES and suggested < requested else "fits"
    facts = f"It requested {requested} cores, of which {100 * busy:.0f} % were busy (at most {max(used):.1f} cores in one task)"
    text = f"{suggested} core{'s' * (suggested > 1)}"
    return _advice("cpus", "cores", verdict, requested, used, facts, suggested, text, {"cpus": suggested})


def _gpus(job: PreparedJob, ended: Sequence[Task]) -> Advice | None:
    requested = job.resources.gpus
    used = _known(task.gpu_utilisation for task in ended)
    if not requested or not used:
        return None
    median, peak = statistics.median(used), max(used)
    memory = max(_known(task.gpu_memory_mb for task in ended), default=None)
    gpus = f"{requested} GPU{'s' * (requested > 1)}"
    facts = f"It requested {gpus} per task, busy {median:.0f} % of the time (at most {peak:.0f} %)"
    if median >= BUSY_GPU_PERCENT:
        return _advice("gpus", "percent", "fits", requested, used, facts)
    if peak == 0 and memory == 0:
        return _advice("gpus", "percent", "too_much", requested, used, facts, 0, "none", {"gpus": 0, "gpu_type": None})
    hint = ": check whether the program uses the GPU, or waits for its data"
    return _advice("gpus", "percent", "too_much", requested, used, facts + hint)


def _advice(
    resource: Resource,
    unit: str,
    verdict: Verdict,
    requested: float,
    used: Sequence[float],
    facts: str,
    suggested: int | None = None,
    text: str = "",
    changes: dict[str, Any] | None = None,
) -> Advice:
    if verdict == "fits":
        suggested = changes = None
    ordered = sorted(used)
    return Advice(
        resource=resource,
        unit=unit,
        verdict=verdict,
        asked=requested,
        measured=len(used),
        median=round(statistics.median(ordered), 3),
        ninth_decile=round(ordered[math.ceil(0.9 * len(ordered)) - 1], 3),
        greatest=round(ordered[-1], 3),
        suggested=suggested,
        sentence=facts + (f": request {text}." if suggested is not None else "."),
        changes={"resources": changes} if changes else {},
    )


def _ratio(part: float | None, whole: float | None, nodes: int) -> float | None:
    numerator, denominator = amounts.finite(part), amounts.finite(whole)
    return None if numerator is None or not denominator else numerator / denominator / nodes


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in map(amounts.finite, values) if value is not None]


def _tasks(number: int) -> str:
    return "1 task" if number == 1 else f"{number:,} tasks"

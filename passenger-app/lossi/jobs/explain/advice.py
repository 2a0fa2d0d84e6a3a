"""What a job asked for beside what its tasks used, and what to ask for next time. Pure; `explaining` reads the tasks.

Never less than the greatest use that was seen, with a margin; nothing from a job of which no task succeeded.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from lossi import units
from lossi.contract import records
from lossi.contract.records import FINAL_STATES, PreparedJob
from lossi.jobs.explain import amounts
from lossi.jobs.explain.causes import memory_asked, memory_used
from lossi.jobs.explain.diagnose import more_memory, more_time, time_limit
from lossi.jobs.models import Task

MARGIN = 1.3
WORTH_SAYING = 0.75
"""Less is advised only where it is at most this share of what was asked for."""
TIGHT = 0.9
"""More is advised where the greatest use is beyond this share of what was asked for."""
BUSY_CORES = 0.25
BUSY_GPU_PERCENT = 10.0
LEAST_MEMORY_MB = 512
LEAST_TIME_S = 300
SHORTEST_S = 60.0
"""Shorter tasks are mostly start-up: what their cores did says nothing."""


class Advice(BaseModel):
    """One resource: asked for and used, per task (memory and cores: per node where it had several)."""

    model_config = ConfigDict(frozen=True)

    resource: Literal["memory", "time", "cpus", "gpus"]
    unit: str = Field(description="Of the numbers: MiB, s, cores, percent.")
    verdict: Literal["fits", "too_much", "tight"]
    asked: float | None = Field(default=None, description="What each task asked for; GPUs: their number.")
    measured: int = Field(description="Tasks of which the use is known.")
    median: float
    ninth_decile: float
    greatest: float
    suggested: int | None = Field(default=None, description="What to ask for; none: as before.")
    sentence: str
    changes: dict[str, Any] = Field(default={}, description="The same as `changes` for a resubmission.")


class JobAdvice(BaseModel):
    """What the tasks of a job used, and what to ask for next time."""

    model_config = ConfigDict(frozen=True)

    job_id: str
    succeeded: int = Field(description="Tasks that succeeded.")
    ended: int = Field(description="Tasks that ended.")
    sentence: str
    items: list[Advice] = []
    changes: dict[str, Any] = Field(default={}, description="All changes together.")


def advise(job: PreparedJob, tasks: Sequence[Task]) -> JobAdvice:
    """Return what to ask for, judged by the tasks of a job that have ended.

    Parameters
    ----------
    job
        What was asked for.
    tasks
        Tasks of the job; those that have not ended are passed over.
    """
    ended = [task for task in tasks if task.state in FINAL_STATES]
    succeeded = [task for task in ended if task.state == records.SUCCEEDED]
    if not succeeded:
        sentence = "No task has succeeded yet, so there is nothing to judge by."
        return JobAdvice(job_id=job.id, succeeded=0, ended=len(ended), sentence=sentence)
    found = (_memory(job, ended), _time(job, ended), _cpus(job, ended), _gpus(job, ended))
    items = [item for item in found if item is not None]
    resources: dict[str, Any] = {}
    for item in items:
        resources |= item.changes.get("resources", {})
    worth = [item.sentence for item in items if item.verdict != "fits"]
    if worth:
        sentence = " ".join(worth)
    elif items:
        sentence = "What it asks for fits what it uses."
    else:
        sentence = "Nothing was measured that could be compared with what it asked for."
    return JobAdvice(
        job_id=job.id,
        succeeded=len(succeeded),
        ended=len(ended),
        sentence=sentence,
        items=items,
        changes={"resources": resources} if resources else {},
    )


def _memory(job: PreparedJob, ended: Sequence[Task]) -> Advice | None:
    used = _known(memory_used(task, job) for task in ended)
    asked = next(iter(_known(memory_asked(task, job) for task in ended)), None)
    if not used or not asked:
        return None
    killed = [task for task in ended if task.state == records.OUT_OF_MEMORY]
    greatest = max(used)
    wanted = max(amounts.round_memory(MARGIN * greatest), LEAST_MEMORY_MB)
    if killed:
        wanted = max([wanted, *(more for task in killed if (more := more_memory(task, job)))])
    verdict = _verdict(wanted, greatest, asked, killed=bool(killed))
    facts = f"asked for {units.humanize_memory(asked)} of memory, {_greatest(used)} {units.humanize_memory(greatest)}"
    if killed:
        facts += f", and {_tasks(len(killed))} ran out of it"
    request = units.format_memory(wanted)
    return _advice("memory", "MiB", verdict, asked, used, wanted, facts, request, {"memory": request})


def _time(job: PreparedJob, ended: Sequence[Task]) -> Advice | None:
    used = _known(_last_attempt_s(task, job) for task in ended)
    asked = next(iter(_known(time_limit(task, job) for task in ended)), None)
    if not used or not asked:
        return None
    killed = [task for task in ended if task.state == records.TIMED_OUT]
    greatest = max(used)
    wanted = max(amounts.round_time(MARGIN * greatest), LEAST_TIME_S)
    if killed:
        wanted = max([wanted, *(more for task in killed if (more := more_time(task, job)))])
    verdict = _verdict(wanted, greatest, asked, killed=bool(killed))
    facts = f"asked for {units.humanize_duration(asked)}, {_greatest(used, 'longest run')} {units.humanize_duration(greatest)}"
    if killed:
        facts += f", and {_tasks(len(killed))} reached the limit"
    request = units.format_time(wanted)
    return _advice("time", "s", verdict, asked, used, wanted, facts, request, {"time": request})


def _cpus(job: PreparedJob, ended: Sequence[Task]) -> Advice | None:
    asked = job.resources.cpus
    nodes = max(job.resources.nodes, 1)
    long_enough = [task for task in ended if (amounts.finite(task.elapsed_s) or 0.0) >= SHORTEST_S]
    used = _known(_share(task.cpu_s, task.elapsed_s, nodes) for task in long_enough)
    if not used:
        return None
    greatest, share = max(used), statistics.median(used) / asked
    wanted = max(math.ceil(MARGIN * greatest), 1)
    idle = share < BUSY_CORES and wanted < asked
    facts = f"asked for {asked} cores, of which {100 * share:.0f} % were busy (at most {greatest:.1f} cores in one task)"
    return _advice(
        "cpus",
        "cores",
        "too_much" if idle else "fits",
        asked,
        used,
        wanted,
        facts,
        f"{wanted} cores" if wanted > 1 else "1 core",
        {"cpus": wanted},
    )


def _gpus(job: PreparedJob, ended: Sequence[Task]) -> Advice | None:
    asked = job.resources.gpus
    used = _known(task.gpu_utilisation for task in ended)
    if not asked or not used:
        return None
    median, greatest = statistics.median(used), max(used)
    held = max(_known(task.gpu_memory_mb for task in ended), default=None)
    gpus = "1 GPU" if asked == 1 else f"{asked} GPUs"
    facts = f"asked for {gpus} per task, busy {median:.0f} % of the time (at most {greatest:.0f} %)"
    if median >= BUSY_GPU_PERCENT:
        return _advice("gpus", "percent", "fits", asked, used, asked, facts, "", {})
    if greatest == 0 and held == 0:
        # The greatest use that was seen is none at all.
        return _advice("gpus", "percent", "too_much", asked, used, 0, facts, "none", {"gpus": 0, "gpu_type": None})
    hint = ": look whether the program uses the GPU, or waits for its data"
    return _advice("gpus", "percent", "too_much", asked, used, None, facts + hint, "", {})


def _advice(
    resource: Literal["memory", "time", "cpus", "gpus"],
    unit: str,
    verdict: Literal["fits", "too_much", "tight"],
    asked: float,
    used: Sequence[float],
    wanted: int | None,
    facts: str,
    request: str,
    changes: dict[str, Any],
) -> Advice:
    differs = verdict != "fits" and wanted is not None
    ordered = sorted(used)
    return Advice(
        resource=resource,
        unit=unit,
        verdict=verdict,
        asked=asked,
        measured=len(used),
        median=round(statistics.median(ordered), 3),
        ninth_decile=round(ordered[math.ceil(0.9 * len(ordered)) - 1], 3),
        greatest=round(ordered[-1], 3),
        suggested=wanted if differs else None,
        sentence=f"It {facts}" + (f": ask for {request}." if differs and request else "."),
        changes={"resources": changes} if differs and changes else {},
    )


def _verdict(wanted: float, greatest: float, asked: float, *, killed: bool) -> Literal["fits", "too_much", "tight"]:
    if killed or greatest > TIGHT * asked:
        return "tight" if wanted > asked else "fits"
    return "too_much" if wanted <= WORTH_SAYING * asked else "fits"


def _last_attempt_s(task: Task, job: PreparedJob) -> float | None:
    """Return how long the attempt that counts for the limit ran: ``elapsed_s`` is the sum over all attempts."""
    share, limit = amounts.finite(task.time_efficiency), time_limit(task, job)
    return share * limit if share is not None and limit else amounts.finite(task.elapsed_s)


def _share(part: float | None, whole: float | None, nodes: int) -> float | None:
    numerator, denominator = amounts.finite(part), amounts.finite(whole)
    return None if numerator is None or not denominator else numerator / denominator / nodes


def _known(values: Any) -> list[float]:
    return [value for value in map(amounts.finite, values) if value is not None]


def _greatest(used: Sequence[float], what: str = "greatest use") -> str:
    return f"the {what} of {_tasks(len(used))} was"


def _tasks(number: int) -> str:
    return "1 task" if number == 1 else f"{number:,} tasks"

"""What to request when a job is resubmitted because tasks needed more time or memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from lossi.contract.records import PreparedJob
from lossi.errors import Conflict, InvalidInput
from lossi.jobs.explain import amounts, explanations
from lossi.jobs.explain.diagnose import Diagnosis
from lossi.projects import Project
from lossi.units import format_memory, format_time, parse_memory, parse_time

Limit = Literal["time", "memory"]
_PARSE = {"time": parse_time, "memory": parse_memory}
_FORMAT = {"time": format_time, "memory": format_memory}


def raise_limits(
    project: Project,
    job: PreparedJob,
    more: Sequence[Limit],
    tasks: Sequence[int] | Literal["failed"] | None,
    changes: dict[str, Any],
) -> tuple[Sequence[int] | Literal["failed"], dict[str, str]]:
    """Return which tasks to submit again, and the resources to request for them.

    Parameters
    ----------
    project, job
        The job to resubmit.
    more
        What to request more of.
    tasks
        Which tasks; None: those that ran out of it.
    changes
        Other changes of resources.

    Raises
    ------
    Conflict
        When ``tasks`` is None and no task ran out of it.
    InvalidInput
        When ``changes`` has an amount of it too, or there is no amount to start from.
    """
    both = next((name for name in more if changes.get(name) is not None), None)
    if both is not None:
        raise InvalidInput(f"more {both} and an amount of {both} exclude each other", hint="choose one of them")
    chosen = None if tasks is None or tasks == "failed" else set(tasks)
    failed = [item for item in explanations.diagnose_failed(project, job.id) if chosen is None or item.task in chosen]
    short = {name: [item for item in failed if _suggested(item, name)] for name in dict.fromkeys(more)}
    if tasks is None:
        tasks = sorted({item.task for items in short.values() for item in items})
        if not tasks:
            raise Conflict(
                f"no task of job {job.id} ran out of {' or '.join(short)}",
                hint=f"`lossi jobs why {job.id}` says what ended them; --failed or --task chooses other tasks",
            )
    return tasks, {name: _FORMAT[name](_amount(job, name, items)) for name, items in short.items()}


def _suggested(diagnosis: Diagnosis, name: Limit) -> str | None:
    suggested: str | None = diagnosis.changes.get("resources", {}).get(name)
    return suggested


def _amount(job: PreparedJob, name: Limit, short: Sequence[Diagnosis]) -> int:
    """Return the greatest amount suggested for a task; without a suggestion, twice the request."""
    if short:
        return max(_PARSE[name](text) for item in short if (text := _suggested(item, name)))
    requested = job.resources.time_limit_s if name == "time" else job.resources.memory_mb
    if requested is None:
        raise InvalidInput(f"the job requested no {name}, so there is nothing to double", hint=f"pass an amount: --{name}")
    return amounts.round_time(2 * requested) if name == "time" else amounts.round_memory(2 * requested)

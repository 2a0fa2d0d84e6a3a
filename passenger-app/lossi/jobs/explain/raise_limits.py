"""What to ask for at the next try of a job that wanted more time or memory than it had."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from lossi import units
from lossi.contract.records import PreparedJob
from lossi.errors import Conflict, InvalidInput
from lossi.jobs.explain import amounts, explanations
from lossi.jobs.explain.diagnoses import Diagnosis
from lossi.projects import Project

Want = Literal["time", "memory"]
_READ = {"time": units.parse_time, "memory": units.parse_memory}
_WRITE = {"time": units.format_time, "memory": units.format_memory}


def raised(
    project: Project,
    job: PreparedJob,
    more: Sequence[Want],
    tasks: Sequence[int] | Literal["failed"] | None,
    given: dict[str, Any],
) -> tuple[Sequence[int] | Literal["failed"], dict[str, str]]:
    """Return which tasks to submit again, and what they ask for.

    Parameters
    ----------
    project, job
        The job that is repeated.
    more
        What it is to have more of.
    tasks
        Which tasks; None: those that died for want of it.
    given
        Resources that are changed anyway.

    Raises
    ------
    Conflict
        When no task died for want of it and none is named.
    InvalidInput
        When an amount is named too, or nothing is known to start from.
    """
    both = next((name for name in more if given.get(name) is not None), None)
    if both is not None:
        raise InvalidInput(f"more {both} and an amount of {both} exclude each other", hint="name one of them")
    found = explanations.deaths(project, job.id)
    chosen = None if tasks is None or tasks == "failed" else set(tasks)
    wants = {
        name: [one for one in found if _amount(one, name) and (chosen is None or one.task in chosen)]
        for name in dict.fromkeys(more)
    }
    if tasks is None:
        numbers = sorted({one.task for members in wants.values() for one in members})
        if not numbers:
            raise Conflict(
                f"no task of job {job.id} died for want of {' or '.join(wants)}",
                hint=f"lossi jobs why {job.id} says what they died of; --failed or --task takes others",
            )
        tasks = numbers
    return tasks, {name: _WRITE[name](_wanted(job, name, members)) for name, members in wants.items()}


def _amount(one: Diagnosis, name: str) -> str | None:
    found: str | None = one.changes.get("resources", {}).get(name)
    return found


def _wanted(job: PreparedJob, name: Want, members: Sequence[Diagnosis]) -> int:
    """Return the greatest amount that one of the tasks wants; where none says, twice what was asked for."""
    if members:
        return max(_READ[name](text) for one in members if (text := _amount(one, name)))
    asked = job.resources.time_limit_s if name == "time" else job.resources.memory_mb
    if asked is None:
        raise InvalidInput(f"the job asked for no {name}, so there is nothing to double", hint=f"name an amount: --{name}")
    return amounts.round_time(2 * asked) if name == "time" else amounts.round_memory(2 * asked)

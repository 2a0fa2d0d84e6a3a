"""Cancel jobs, and submit them again."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Literal

from lossi.contract.records import PreparedJob
from lossi.contract.states import FINAL_STATES, SUCCEEDED, has_ended
from lossi.errors import Conflict, Forbidden, InvalidInput, NotFound, did_you_mean
from lossi.jobs.explain.raise_limits import Limit, raise_limits
from lossi.jobs.models import Job
from lossi.jobs.state import job_directory, queries, refresh
from lossi.jobs.submit import prepare
from lossi.jobs.submit.code import EarlierCode
from lossi.jobs.submit.spec import JobSpec, validated
from lossi.jobs.submit.submission import submit
from lossi.projects import Project

Which = Sequence[int] | Literal["failed"] | None


def cancel(project: Project, id_or_part: str, tasks: Sequence[int] | None = None) -> Job:
    """Ask the scheduler to stop a job or some of its tasks. Their results so far are kept; tasks that have ended do not change.

    Raises
    ------
    NotFound
        When there is no such job or task.
    Forbidden
        When it belongs to another user.
    Conflict
        When it is still being submitted.
    Unavailable
        When the scheduler does not answer.
    """
    job = queries.get(project, id_or_part)
    if has_ended(job.state):
        return job
    directory, prepared = queries.directory_of(project, job.id)
    for number in tasks or ():
        queries.check_number(job.id, prepared.tasks, number)
    if directory.stat().st_uid != os.geteuid():
        raise Forbidden(f"job {job.id} belongs to {job.user}", hint=f"ask {job.user} to cancel it")
    submission = job_directory.read_submission(directory)
    if submission is None:
        raise Conflict(f"job {job.id} is still being submitted", hint="try again in a few seconds")
    refresh.scheduler_of(prepared, submission).cancel(
        refresh.handle(prepared, directory, submission), None if tasks is None else sorted(set(tasks))
    )
    return queries.get(project, job.id)


def resubmit(
    project: Project,
    id_or_part: str,
    *,
    tasks: Which = None,
    changes: dict[str, Any] | None = None,
    more: Sequence[Limit] = (),
    same_code: bool = False,
    idempotency_key: str | None = None,
) -> Job:
    """Submit a job again, all of it or some tasks, as a new job that refers to the old one.

    Parameters
    ----------
    project, id_or_part
        Which job.
    tasks
        Numbers of tasks, ``"failed"`` for all that ended without success, None for all.
    changes
        Members of the `JobSpec` to replace; ``parameters`` and ``resources`` are merged member by member.
    more
        ``time`` or ``memory``: request as much as was suggested for the tasks that ran out of it, else twice as much. If
        ``tasks`` is None, only those tasks are submitted again.
    same_code
        Use the code of the first submission instead of the code as it is now.
    idempotency_key
        As for `submit`.

    Raises
    ------
    NotFound
        When there is no such job or task.
    Conflict
        When no task has failed, or none ran out of what ``more`` names.
    InvalidInput
        When a change is not a member of a job, or is not valid.
    """
    directory, old = queries.directory_of(project, id_or_part)
    changes = dict(changes or {})
    if more:
        resources = _object("resources", changes.get("resources", {}))
        tasks, raised = raise_limits(project, old, more, tasks, resources)
        changes["resources"] = {**resources, **raised}
    spec = _apply(changes, project, directory, old, tasks)
    code = EarlierCode(directory, old) if same_code else None
    return submit(project, spec, idempotency_key=idempotency_key, code=code, resubmitted_from=old.id)


def _apply(changes: dict[str, Any], project: Project, directory: Path, old: PreparedJob, tasks: Which) -> JobSpec:
    """Return the request for the new job."""
    unknown = next((name for name in changes if name not in JobSpec.model_fields), None)
    if unknown is not None:
        known = ", ".join(sorted(JobSpec.model_fields))
        raise InvalidInput(
            f"a job has no {unknown!r}", hint=did_you_mean(unknown, JobSpec.model_fields) or f"its members are {known}"
        )
    parameters, resources = (_object(name, changes.pop(name, {})) for name in ("parameters", "resources"))
    data: dict[str, Any] = {**old.request, "sweep": old.sweep, **changes}
    data["resources"] = {**data["resources"], **resources}
    fixed = {**data["parameters"], **parameters}
    if "sweep" in changes or old.sweep is None:
        _task_numbers(project, old, tasks)  # the only task, or a new sweep: there must be something to repeat
    elif tasks is not None or set(parameters) & set(old.swept):
        data["sweep"] = _list_sweep(directory, old, _task_numbers(project, old, tasks), parameters)
        fixed = {name: value for name, value in fixed.items() if name not in old.swept or name in parameters}
    return validated({**data, "parameters": fixed})


def _object(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidInput(f"{name} must be an object", hint=f'write {name} as {{"name": value}}')
    return value


def _list_sweep(directory: Path, old: PreparedJob, tasks: Collection[int], fixed: Collection[str]) -> dict[str, Any] | None:
    """Return the sweep over some tasks of a job, without the parameters that are ``fixed`` now; None if nothing is left."""
    try:
        rows = [row for number, row in enumerate(prepare.read_rows(directory)) if number in tasks]
    except (OSError, ValueError) as error:
        raise NotFound(f"the parameters of job {old.id} cannot be read", why=str(error), hint="submit it as a new job") from None
    swept = [name for name in old.swept if name not in fixed]
    return {"list": [{name: row[name] for name in swept if name in row} for row in rows]} if swept else None


def _task_numbers(project: Project, old: PreparedJob, tasks: Which) -> set[int]:
    if tasks is None:
        return set(range(old.tasks))
    if tasks != "failed":
        for number in tasks:
            queries.check_number(old.id, old.tasks, number)
        if not tasks:
            raise InvalidInput("`tasks` is empty", hint="name tasks, or leave `tasks` out for all of them")
        return set(tasks)
    failed: set[int] = set()
    for state in sorted(FINAL_STATES - {SUCCEEDED}):
        cursor: str | None = None
        while True:
            page = queries.tasks(project, old.id, state=state, limit=1000, cursor=cursor)
            failed |= {task.task for task in page.items}
            cursor = page.next_cursor
            if cursor is None:
                break
    if not failed:
        raise Conflict(f"no task of job {old.id} has failed", hint="leave out --failed to resubmit all of them")
    return failed

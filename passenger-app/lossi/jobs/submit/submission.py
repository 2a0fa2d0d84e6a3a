"""Submitting: plan, prepare, hand over to the scheduler; once per idempotency key, whoever dies in between."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

from lossi.contract.records import PreparedJob
from lossi.errors import Conflict, LossiError, Unavailable
from lossi.jobs import schedulers, ulid
from lossi.jobs.models import Job, Preview
from lossi.jobs.state import queries, refresh
from lossi.jobs.submit import dependencies, keys, plan, preparer
from lossi.jobs.submit.code import Code, LiveCode
from lossi.jobs.submit.keys import Claim
from lossi.jobs.submit.plan import Plan
from lossi.jobs.submit.prepare import discard, prepare, preview as preview_plan, warm
from lossi.jobs.submit.spec import JobSpec
from lossi.projects import Project

WAIT_S = 10.0
"""How long a repeated request waits for the first one, which is still preparing the same job."""


def preview(project: Project, spec: JobSpec) -> Preview:
    """Return script, command line and first tasks of a job; nothing is written below ``.lossi/jobs``.

    Raises
    ------
    LossiError
        Whatever `submit` would refuse.
    """
    made = plan.make(project, spec, LiveCode(project), dependency=dependencies.expression(project, spec))
    return preview_plan(project, made)


def submit(
    project: Project,
    spec: JobSpec,
    *,
    idempotency_key: str | None = None,
    code: Code | None = None,
    resubmitted_from: str | None = None,
) -> Job:
    """Prepare a job and hand it to its scheduler.

    Parameters
    ----------
    project
        Where.
    spec
        What.
    idempotency_key
        The same key with the same request is the same job, however often and from wherever it is sent.
    code
        Where the code comes from; the project as it is now by default.
    resubmitted_from
        The job that this one repeats.

    Raises
    ------
    InvalidInput, NotFound, Forbidden, NotSupported
        When the request is refused; nothing is left behind.
    Conflict
        When the key was used for another request.
    Unavailable
        When the scheduler or the filesystem does not answer.
    """
    source = code or LiveCode(project)
    if idempotency_key is None:
        return _submit_new(project, _made(project, spec, source, resubmitted_from), source)
    keys.check(idempotency_key)
    digest = spec.digest() + (f"+{resubmitted_from}" if resubmitted_from else "")
    deadline = time.monotonic() + WAIT_S
    while True:
        found = keys.current(project, idempotency_key)
        if found is not None:
            job = _of_earlier(project, idempotency_key, found, digest)
            if job is not None:
                return job
        if found is None or (found.is_free and not (project.jobs / found.job_id).is_dir()) or not found.job_id:
            made = _made(project, spec, source, resubmitted_from, idempotency_key)
            warm(made)  # before the claim, so that nobody waits longer for another's than for their own
            mine = keys.claim(project, idempotency_key, made.job.id, digest, after=found)
            if mine is not None:
                return _submit_claimed(project, made, source, idempotency_key, mine)
        if time.monotonic() > deadline:
            raise Unavailable(
                "a job with this idempotency key is still being prepared by another process",
                hint="ask again with the same key in a few seconds",
            )
        time.sleep(0.05)


def _made(project: Project, spec: JobSpec, code: Code, resubmitted_from: str | None, key: str | None = None) -> Plan:
    waits_for = dependencies.expression(project, spec)
    return plan.make(project, spec, code, dependency=waits_for, resubmitted_from=resubmitted_from, idempotency_key=key)


def _of_earlier(project: Project, key: str, found: Claim, digest: str) -> Job | None:
    """Return the job that an earlier request with the same key made, handing it over if that one could not; None to wait."""
    if found.digest and found.digest != digest:
        raise Conflict(
            "this idempotency key was used for another request",
            why=f"it belongs to job {found.job_id}",
            hint="use a new key for a new job",
            job_id=found.job_id,
        )
    if not ulid.is_ulid(found.job_id):
        return None
    directory = project.jobs / found.job_id
    if refresh.read_submission(directory) is not None:
        return queries.get(project, found.job_id)
    if not found.is_free or not directory.is_dir():
        return None
    mine = keys.claim(project, key, found.job_id, digest, after=found)
    if mine is None:
        return None
    job = refresh.read_spec(directory)
    try:
        return _hand_over(project, job, directory, refresh.scheduler_of(job, None))
    except LossiError:
        with suppress(LossiError):
            keys.abandon(project, key, mine)
        raise


def _submit_claimed(project: Project, made: Plan, code: Code, key: str, mine: Claim) -> Job:
    try:
        return _submit_new(project, made, code)
    except BaseException:
        if (project.jobs / mine.job_id).is_dir():  # prepared, and perhaps submitted: the same key goes on from here
            with suppress(LossiError):
                keys.abandon(project, key, mine)
        else:
            keys.release(project, key, mine)
        raise


def _submit_new(project: Project, made: Plan, code: Code) -> Job:
    made.scheduler.preview(made.job, made.directory(project))  # refuses before anything is written
    job, directory = prepare(project, made, code)
    return _hand_over(project, job, directory, made.scheduler, fresh=True)


def _hand_over(
    project: Project, job: PreparedJob, directory: Path, scheduler: schedulers.Scheduler, *, fresh: bool = False
) -> Job:
    try:
        record = scheduler.submit(job, directory)
    except schedulers.NotSubmitted:
        if fresh:
            discard(directory)
        else:  # an earlier process may have handed it over
            _leave(directory)
        raise
    except Unavailable as error:
        # It may have been accepted all the same. If that cannot be found out now, the next look at the project will.
        try:
            known = scheduler.find(job.id)
        except LossiError:
            _leave(directory)
            error.details["job_id"] = job.id
            raise error from None
        if known is None:
            discard(directory)
            raise
        record = known
    except LossiError:
        discard(directory)
        raise
    except BaseException:
        _leave(directory)
        raise
    try:
        refresh.write_submission(directory, record)
    except LossiError:  # the scheduler has it: the next look at the project asks for the record again
        _leave(directory)
    with suppress(LossiError):
        refresh.refresh(project, again=[job.id])
    return queries.get(project, job.id)


def _leave(directory: Path) -> None:
    """Say that nobody is at work on a job any more, so that the next look finds out what became of it."""
    with suppress(OSError):
        (directory / preparer.FILE).unlink()

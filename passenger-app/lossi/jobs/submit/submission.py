"""Submit: plan, prepare, hand to the scheduler; once per idempotency key, whichever process dies in between."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

from lossi.contract.records import PreparedJob
from lossi.errors import Conflict, LossiError, Unavailable
from lossi.jobs import schedulers, ulid
from lossi.jobs.models import Job, Preview
from lossi.jobs.state import job_directory, queries, refresh
from lossi.jobs.submit import dependencies, keys, preparer
from lossi.jobs.submit.code import Code, LiveCode
from lossi.jobs.submit.keys import Claim
from lossi.jobs.submit.plan import Plan, make_plan
from lossi.jobs.submit.prepare import discard, prepare, preview as preview_plan, warm
from lossi.jobs.submit.spec import JobSpec
from lossi.projects import Project

WAIT_S = 10.0
"""How long a repeated request waits for the first one to prepare the job."""


def preview(project: Project, spec: JobSpec) -> Preview:
    """Return script, command line and first tasks of a job; nothing is written below ``.lossi/jobs``.

    Raises
    ------
    LossiError
        Whatever `submit` would refuse.
    """
    return preview_plan(project, _plan(project, spec, LiveCode(project)))


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
    project, spec
        Where to run what.
    idempotency_key
        Requests with the same key submit one job, however often and from wherever they are sent.
    code
        Where the code comes from (default: the project as it is now).
    resubmitted_from
        Id of the job that this one repeats.

    Raises
    ------
    InvalidInput, NotFound, Forbidden, NotSupported
        When the request is refused; nothing is left behind.
    Conflict
        When the key was used for a different request.
    Unavailable
        When the scheduler or the filesystem does not answer.
    """
    source = code or LiveCode(project)
    if idempotency_key is None:
        return _submit_new(project, _plan(project, spec, source, resubmitted_from), source)
    keys.check(idempotency_key)
    digest = spec.digest() + (f"+{resubmitted_from}" if resubmitted_from else "")
    deadline = time.monotonic() + WAIT_S
    while True:
        claim = keys.current(project, idempotency_key)
        if claim is not None:
            job = _resume(project, idempotency_key, claim, digest)
            if job is not None:
                return job
        if claim is None or (claim.is_free and not (project.jobs / claim.job_id).is_dir()) or not claim.job_id:
            plan = _plan(project, spec, source, resubmitted_from, idempotency_key)
            warm(plan)  # before the claim, so that nobody waits longer for another process than for their own
            mine = keys.claim(project, idempotency_key, plan.job.id, digest, after=claim)
            if mine is not None:
                return _submit_claimed(project, plan, source, idempotency_key, mine)
        if time.monotonic() > deadline:
            raise Unavailable(
                "a job with this idempotency key is still being prepared by another process",
                hint="try again with the same key in a few seconds",
            )
        time.sleep(0.05)


def _plan(project: Project, spec: JobSpec, code: Code, resubmitted_from: str | None = None, key: str | None = None) -> Plan:
    dependency = dependencies.expression(project, spec)
    return make_plan(project, spec, code, dependency=dependency, resubmitted_from=resubmitted_from, idempotency_key=key)


def _resume(project: Project, key: str, claim: Claim, digest: str) -> Job | None:
    """Return the job of an earlier request with the same key, submitting it if that request died before; None: wait."""
    if claim.digest and claim.digest != digest:
        raise Conflict(
            "this idempotency key was used for a different request",
            why=f"it belongs to job {claim.job_id}",
            hint="use a new key for a new job",
            job_id=claim.job_id,
        )
    if not ulid.is_ulid(claim.job_id):
        return None
    directory = project.jobs / claim.job_id
    if job_directory.read_submission(directory) is not None:
        return queries.get(project, claim.job_id)
    if not claim.is_free or not directory.is_dir():
        return None
    mine = keys.claim(project, key, claim.job_id, digest, after=claim)
    if mine is None:
        return None
    job = job_directory.read_spec(directory)
    try:
        return _hand_over(project, job, directory, refresh.scheduler_of(job, None))
    except LossiError:
        with suppress(LossiError):
            keys.abandon(project, key, mine)
        raise


def _submit_claimed(project: Project, plan: Plan, code: Code, key: str, mine: Claim) -> Job:
    try:
        return _submit_new(project, plan, code)
    except BaseException:
        if (project.jobs / mine.job_id).is_dir():  # prepared, perhaps submitted: the same key continues from here
            with suppress(LossiError):
                keys.abandon(project, key, mine)
        else:
            keys.release(project, key, mine)
        raise


def _submit_new(project: Project, plan: Plan, code: Code) -> Job:
    plan.scheduler.preview(plan.job, plan.directory(project))  # refuses before anything is written
    job, directory = prepare(project, plan, code)
    return _hand_over(project, job, directory, plan.scheduler, fresh=True)


def _hand_over(
    project: Project, job: PreparedJob, directory: Path, scheduler: schedulers.Scheduler, *, fresh: bool = False
) -> Job:
    try:
        record = scheduler.submit(job, directory)
    except schedulers.NotSubmitted:
        if fresh:
            discard(directory)
        else:  # an earlier process may have submitted it
            _leave(directory)
        raise
    except Unavailable as error:
        # The scheduler may have accepted it. If it cannot be asked now, the next refresh of the project will.
        try:
            accepted = scheduler.find(job.id)
        except LossiError:
            _leave(directory)
            error.details["job_id"] = job.id
            raise error from None
        if accepted is None:
            discard(directory)
            raise
        record = accepted
    except LossiError:
        discard(directory)
        raise
    except BaseException:
        _leave(directory)
        raise
    try:
        job_directory.write_submission(directory, record)
    except LossiError:  # the scheduler has it: the next refresh of the project asks for the record again
        _leave(directory)
    with suppress(LossiError):
        refresh.refresh(project, again=[job.id])
    return queries.get(project, job.id)


def _leave(directory: Path) -> None:
    """Mark that nobody works on a job any more, so that the next refresh finds out what became of it."""
    with suppress(OSError):
        (directory / preparer.FILE).unlink()

"""What a job waits for: from jobs of the project to the scheduler's syntax. Reads the index; asks the scheduler as listings do."""

from __future__ import annotations

from lossi.contract.records import SubmissionRecord
from lossi.contract.states import SUCCEEDED, has_ended
from lossi.errors import Conflict, InvalidInput
from lossi.jobs import schedulers
from lossi.jobs.models import Job
from lossi.jobs.state import job_directory, queries
from lossi.jobs.submit.spec import Dependency, JobSpec
from lossi.projects import Project


def expression(project: Project, spec: JobSpec) -> str | None:
    """Return the dependency to pass to the scheduler; None if there is nothing to wait for.

    Jobs that have ended are judged here, because schedulers forget them: the condition is met, or never will be.

    Raises
    ------
    NotSupported
        When the scheduler does not support dependencies.
    NotFound
        When there is no such job.
    InvalidInput
        When it is on another cluster.
    Conflict
        When its end does not meet the condition.
    """
    if not spec.after:
        return None
    scheduler = schedulers.get(spec.scheduler, spec.cluster)
    if not scheduler.capabilities.dependencies:
        return scheduler.dependency([])  # refuses
    unfinished = [job for after in spec.after if (job := _unfinished(project, after, scheduler)) is not None]
    return scheduler.dependency(unfinished) if unfinished else None


def _unfinished(
    project: Project, dependency: Dependency, scheduler: schedulers.Scheduler
) -> tuple[schedulers.Condition, SubmissionRecord, int] | None:
    """Return a job to wait for as `Scheduler.dependency` takes it; None if it has ended as required."""
    job = queries.get(project, dependency.job)
    if has_ended(job.state):
        _check_met(job, dependency)
        return None
    directory, prepared = queries.directory_of(project, job.id)
    submission = job_directory.read_submission(directory)
    if submission is None:
        raise Conflict(f"job {job.id} is still being submitted", hint="try again in a few seconds")
    if submission.cluster != scheduler.cluster or schedulers.systems(submission.scheduler) != schedulers.systems(scheduler.name):
        raise InvalidInput(
            f"job {job.id} runs on {submission.cluster or 'this machine'}, this one on {scheduler.cluster}",
            why="a cluster knows only its own jobs",
            hint="submit both to the same cluster",
        )
    return dependency.condition, submission, prepared.tasks


def _check_met(job: Job, dependency: Dependency) -> None:
    if dependency.condition == "ok" and job.state != SUCCEEDED:
        raise Conflict(
            f"job {job.id}, which this one depends on, did not succeed: {job.state.replace('_', ' ')}",
            hint=f"`lossi jobs why {job.id}` says why; resubmit that job first, or use the condition `any`",
        )
    if dependency.condition == "not_ok" and job.state == SUCCEEDED:
        raise Conflict(f"job {job.id} succeeded, and this one runs only if it fails", hint="there is nothing to do")

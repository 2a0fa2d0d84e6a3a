"""What a job waits for: from jobs of the project to the scheduler's expression. Reads the index, asks the scheduler as listings do."""

from __future__ import annotations

from lossi.contract.records import FINAL_STATES, SUCCEEDED, SubmissionRecord
from lossi.errors import Conflict, InvalidInput
from lossi.jobs import schedulers
from lossi.jobs.models import Job
from lossi.jobs.state import queries, refresh
from lossi.jobs.submit.spec import Dependency, JobSpec
from lossi.projects import Project


def expression(project: Project, spec: JobSpec) -> str | None:
    """Return what the scheduler must be told so that a job waits for others; None when there is nothing to wait for.

    A job that has ended already is judged here, because a scheduler forgets: it is no condition any more, or it can never be met.

    Raises
    ------
    NotSupported
        When the scheduler knows no dependencies.
    NotFound
        When there is no such job.
    InvalidInput
        When it is on another cluster.
    Conflict
        When it has ended in a way that the condition excludes.
    """
    if not spec.after:
        return None
    scheduler = schedulers.get(spec.scheduler, spec.cluster)
    if not scheduler.capabilities.dependencies:
        return scheduler.dependency([])  # refuses
    waited_for = [earlier for after in spec.after if (earlier := _earlier(project, after, scheduler)) is not None]
    return scheduler.dependency(waited_for) if waited_for else None


def _earlier(
    project: Project, after: Dependency, scheduler: schedulers.Scheduler
) -> tuple[schedulers.Condition, SubmissionRecord, int] | None:
    """Return an earlier job as `Scheduler.dependency` takes it; None if it has ended as it had to."""
    job = queries.get(project, after.job)
    if job.state in FINAL_STATES:
        _check_met(job, after)
        return None
    directory, prepared = queries.directory_of(project, job.id)
    submission = refresh.read_submission(directory)
    if submission is None:
        raise Conflict(f"job {job.id} is still being submitted", hint="try again in a few seconds")
    if submission.cluster != scheduler.cluster or schedulers.systems(submission.scheduler) != schedulers.systems(scheduler.name):
        raise InvalidInput(
            f"job {job.id} runs on {submission.cluster or 'this machine'}, this one on {scheduler.cluster}",
            why="a scheduler knows only its own jobs",
            hint="submit both to the same cluster",
        )
    return after.condition, submission, prepared.tasks


def _check_met(job: Job, wanted: Dependency) -> None:
    if wanted.condition == "ok" and job.state != SUCCEEDED:
        raise Conflict(
            f"job {job.id}, which this one is to follow, has ended as {job.state.replace('_', ' ')}",
            hint=f"lossi jobs why {job.id} says why; submit that one again first, or use the condition `any`",
        )
    if wanted.condition == "not_ok" and job.state == SUCCEEDED:
        raise Conflict(f"job {job.id} has succeeded, and this one was to run only if it failed", hint="there is nothing to do")

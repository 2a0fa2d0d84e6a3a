"""Why a job waits: the scheduler's reason in words, what the user can do, and whether waiting alone helps. Pure."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from lossi.contract.states import QUEUED
from lossi.jobs import schedulers
from lossi.jobs.models import Job
from lossi.jobs.schedulers import PendingReason


class Waiting(BaseModel):
    """Why a job or some of its tasks wait."""

    model_config = ConfigDict(frozen=True)

    word: str = Field(description="The scheduler's reason.")
    sentence: str = Field(description="What it means.")
    suggestion: str = Field(default="", description="What the user can do.")
    passes: bool = Field(description="Whether waiting alone helps.")
    tasks: int = Field(default=1, description="Number of tasks that wait.")
    expected_start: str | None = Field(
        default=None, description="When the scheduler expects it to start, if it says so; many jobs start earlier."
    )


_NO_REASON = PendingReason("The scheduler has not considered it yet")
OWN_LIMIT = "as many of its tasks run at once as the job itself allows"
"""The reason of tasks that wait for others of the same job (`JobSpec.max_parallel`)."""
_OWN_LIMIT = PendingReason(
    "As many of its tasks run at once as the job itself allows", "Submit it with a higher --max-parallel if more may run at once"
)


def explain_pending(reason: str, scheduler: str | None = None, *, tasks: int = 1, expected_start: str | None = None) -> Waiting:
    """Return what a scheduler's reason for waiting means.

    Parameters
    ----------
    reason
        The scheduler's reason, such as ``Resources``, or a sentence.
    scheduler
        Name of the scheduler; None: unknown.
    tasks
        Number of tasks that wait for it.
    expected_start
        ISO 8601 in UTC, if the scheduler says it.
    """
    text = " ".join(reason.split()).strip(" ()")
    meaning = _meaning(text, scheduler)
    return Waiting(
        word=text,
        sentence=f"{meaning.sentence}.",
        suggestion=meaning.suggestion and f"{meaning.suggestion}.",
        passes=meaning.passes,
        tasks=tasks,
        expected_start=expected_start,
    )


def explain_briefly(job: Job) -> str:
    """Return the reason for a job's state in one sentence; empty if nothing is known."""
    return explain_pending(job.reason, job.scheduler).sentence if job.state == QUEUED and job.reason else job.reason


def _meaning(text: str, scheduler: str | None) -> PendingReason:
    if not text:
        return _NO_REASON
    if text == OWN_LIMIT:
        return _OWN_LIMIT
    for system in schedulers.systems(scheduler):
        meaning = system.explain_pending(text)
        if meaning is not None:
            return meaning
    if " " in text:
        return PendingReason(text[:1].upper() + text[1:].rstrip("."))
    return PendingReason(f"The scheduler gives the reason {text!r}", "Its documentation says what that means")

"""What this room answers with: jobs and tasks as they are now, pages of them, a preview; REST and the command show them as they are.

Times are ISO 8601 in UTC, durations seconds, memory MiB. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from lossi.contract.records import PreparedJob, Progress
from lossi.contract.states import has_ended, is_active
from lossi.jsonable import plain
from lossi.projects.facts import TaskFacts

LONGEST_SHOWN = 10_000
"""Characters of a parameter's value that a listing shows."""

T = TypeVar("T")

_FROZEN = ConfigDict(frozen=True)


class Page(BaseModel, Generic[T]):
    """A part of a longer list."""

    model_config = _FROZEN

    items: list[T]
    next_cursor: str | None = Field(default=None, description="Pass it to get the next page; none on the last one.")
    total: int = Field(default=0, description="Entries on all pages.")
    stale: str = Field(default="", description="Not empty: why this may be old, for example that the scheduler does not answer.")


class JobDefinition(BaseModel):
    """What was requested and decided before submission."""

    model_config = _FROZEN

    parameters: dict[str, Any] = Field(default={}, description="The fixed parameters; long values are shortened.")
    sweep: dict[str, Any] | None = Field(default=None, description="The sweep as requested; left out if long.")
    swept: list[str] = Field(default=[], description="Parameters that differ between tasks.")
    command: list[str] = []
    working_directory: str = "."
    language: str = "python"
    kernel: str | None = None
    max_parallel: int | None = None
    tags: dict[str, str] = {}
    environment: dict[str, Any] = Field(default={}, description="The environment as resolved: variant, digest, interpreter.")
    resources: dict[str, Any] = Field(default={}, description="Per task, in MiB and seconds.")
    code: dict[str, Any] = Field(default={}, description="The code snapshot: digests, commit, what was left out and linked.")
    experiment_id: str = ""
    artifact_location: str = ""
    idempotency_key: str | None = None
    lossi_version: str = ""


class Job(BaseModel):
    """One submission, as it is now."""

    model_config = _FROZEN

    id: str
    name: str
    kind: str = Field(description="notebook, script or command; unknown if the job directory cannot be read.")
    source: str | None = Field(default=None, description="Notebook or script, relative to the project.")
    experiment: str
    environment: str
    image_digest: str | None = None
    commit_id: str | None = None
    dirty: bool = Field(default=False, description="Whether the working tree differed from the commit.")
    user: str
    scheduler: str | None = None
    scheduler_id: str | None = None
    cluster: str | None = None
    tasks: int
    state: str
    scheduler_state: str = Field(default="", description="The scheduler's own state.")
    reason: str = ""
    hint: str = Field(default="", description="What to do next, if anything.")
    counts: dict[str, int] = Field(default={}, description="Number of tasks by state.")
    created: str
    started: str | None = None
    ended: str | None = None
    sweep: bool = False
    resubmitted_from: str | None = None
    progress: float | None = Field(
        default=None, description="Share of the work that is done, 0 to 1; running tasks count by their cells."
    )
    expected_start: str | None = Field(default=None, description="When the scheduler expects a waiting job to start.")
    directory: str = Field(description="The job directory.")
    definition: JobDefinition | None = Field(default=None, description="What was requested; not in lists.")

    @property
    def done(self) -> int:
        """Number of tasks that have ended."""
        return sum(number for state, number in self.counts.items() if has_ended(state))

    @property
    def is_active(self) -> bool:
        """Whether something is still to come."""
        return is_active(self.state)


class Task(TaskFacts):
    """One task of a job, as it is now."""

    parameters: dict[str, Any] = Field(default={}, description="All parameters of the task; in lists long values are shortened.")
    shortened: list[str] = Field(default=[], description="Parameters whose values are shortened here.")
    progress: Progress | None = Field(default=None, description="Where a running task is.")
    run_ids: list[str] = Field(default=[], description="MLflow runs; the first is the task's own.")


class Preview(BaseModel):
    """What a submission would do; nothing of it exists."""

    model_config = _FROZEN

    job: PreparedJob = Field(description="The job as it would be prepared, without digests.")
    script: str = Field(description="The batch script.")
    argv: list[str] = Field(description="What the scheduler would be called with.")
    tasks: list[dict[str, Any]] = Field(description="Parameters of the first tasks.")
    total: int = Field(description="Number of tasks.")
    warnings: list[str] = Field(default=[], description="What may differ from what the user expects.")
    expected_start: str | None = Field(
        default=None, description="When it would start if it were submitted now, if the scheduler says so."
    )


def shortened(parameters: Mapping[str, Any], longest: int = LONGEST_SHOWN) -> tuple[dict[str, Any], list[str]]:
    """Return parameters for a list, and the names of those cut to ``longest`` characters."""
    result: dict[str, Any] = {}
    cut: list[str] = []
    for name, value in parameters.items():
        result[name] = plain(value)
        text = value if isinstance(value, str) else json.dumps(result[name], ensure_ascii=False)
        if len(text) > longest:
            result[name] = text[:longest] + "…"
            cut.append(name)
    return result, cut

"""What is answered to "why": why a task or a job died, why it waits. Used as they are by REST and the command line. Pure."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from lossi.jobs.explain.causes import Kind
from lossi.jobs.explain.pending_reasons import Waiting


class Evidence(BaseModel):
    """What the diagnosis rests on."""

    model_config = ConfigDict(frozen=True)

    cell: int | None = Field(default=None, description="Number of the last code cell that ran, from 1.")
    cells: int | None = Field(default=None, description="Code cells in all.")
    first_line: str = Field(default="", description="That cell's first line.")
    exception: str = Field(default="", description="Name of the exception.")
    message: str = Field(default="", description="Its message, shortened.")
    exit_code: int | None = None
    signal: int | None = None
    host: str | None = None
    lines: list[str] = Field(default=[], description="The last lines of the log, without terminal escapes.")


class Diagnosis(BaseModel):
    """Why a task ended without success, and what to do next."""

    model_config = ConfigDict(frozen=True)

    job_id: str
    task: int
    state: str
    kind: Kind = Field(description="`none`: it has not died.")
    sentence: str = Field(description="What happened.")
    suggestion: str = Field(default="", description="What to do next.")
    changes: dict[str, Any] = Field(
        default={}, description="The same as `changes` for a resubmission, where there is such a thing."
    )
    again: bool = Field(default=False, description="Whether trying again without a change makes sense.")
    evidence: Evidence = Evidence()


class DeathGroup(BaseModel):
    """Tasks of a job that died of the same."""

    model_config = ConfigDict(frozen=True)

    kind: Kind
    count: int
    tasks: list[int] = Field(description="Numbers of the first of them.")
    example: Diagnosis = Field(description="Of the first one.")


class JobDiagnosis(BaseModel):
    """Why tasks of a job died, and why others wait."""

    model_config = ConfigDict(frozen=True)

    job_id: str
    state: str
    tasks: int
    sentence: str
    groups: list[DeathGroup] = Field(default=[], description="What killed tasks, the most frequent first.")
    waiting: Waiting | None = Field(default=None, description="Why tasks wait, where some do.")


class TaskExplanation(Diagnosis):
    """Why one task died, or why it waits."""

    waiting: Waiting | None = None

"""JobSpec: a request for a job, in the one form that the command line, REST and the pages share. Pure.

Checks what needs no project; `plan` checks the rest (does the notebook exist, does it have these parameters, is there such an
environment).
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from lossi.contract.text import CONTROL
from lossi.errors import InvalidInput
from lossi.jobs import schedulers
from lossi.jobs.resources import Resources
from lossi.jobs.submit.sweep import Sweep

_TAG_KEY = re.compile(r"[\w.\- /:]{1,250}")  # as mlflow.utils.validation


def _one_line(value: str) -> str:
    if CONTROL.search(value):
        raise ValueError("must be one line without control characters")
    return value


def _no_nul(value: str) -> str:
    if "\0" in value:
        raise ValueError("must not contain a NUL character")
    return value


Line = Annotated[str, Field(min_length=1), AfterValidator(_one_line)]
Argument = Annotated[str, AfterValidator(_no_nul)]
PathText = Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_no_nul)]


class Dependency(BaseModel):
    """Another job of the project that must have ended."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    job: Annotated[str, Field(min_length=3, max_length=26, pattern="^[0-9a-z]+$")] = Field(
        description="Its id, or the first or last characters of the id."
    )
    condition: Literal["ok", "any", "not_ok"] = Field(
        default="ok",
        description="ok: all its tasks succeeded (else this job is cancelled); any: it ended; not_ok: it failed.",
    )


class JobSpec(BaseModel):
    """A request for a job: what to run (one of notebook, script and command), with which parameters, where and how."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    notebook: PathText | None = Field(default=None, description="Notebook to run, a path below the project.")
    script: PathText | None = Field(default=None, description="Python or R script to run, a path below the project.")
    command: list[Argument] | None = Field(
        default=None, min_length=1, description="Command to run: program and arguments; no shell reads it."
    )
    arguments: list[Argument] = Field(default=[], description="More arguments of the script.")
    working_directory: PathText | None = Field(
        default=None,
        description="Folder below the project in which a command runs; notebooks and scripts run in their own folder.",
    )
    parameters: dict[str, JsonValue] = Field(default={}, description="Parameters that are the same for all tasks.")
    sweep: Sweep | None = Field(default=None, description="Combinations of parameters, one task each.")
    environment: Line | None = Field(
        default=None, max_length=200, description="Environment from the catalogue; unset: the first one that can run here."
    )
    resources: Resources = Field(default=Resources(), description="What each task gets.")
    name: Line | None = Field(default=None, max_length=128, description="Name of the job; unset: the notebook's or script's.")
    experiment: Line | None = Field(
        default=None, max_length=500, description="MLflow experiment; unset: the notebook's or script's name."
    )
    tags: dict[str, Annotated[str, Field(max_length=8000)]] = Field(default={}, description="Tags for every run.")
    max_parallel: int | None = Field(default=None, ge=1, le=1_000_000, description="Most tasks to run at once.")
    scheduler: Line | None = Field(
        default=None,
        max_length=64,
        description=f"How to submit: {', '.join(schedulers.names())}; unset: as configured for the cluster.",
    )
    cluster: Line | None = Field(default=None, max_length=64, description="Cluster; unset: the default one.")
    after: list[Dependency] = Field(
        default=[], max_length=100, description="Jobs that must all have ended before this one starts."
    )
    requeue: bool = Field(
        default=True,
        description="Restart a task, in the same run, after a node failure or preemption.",
    )

    @property
    def kind(self) -> Literal["notebook", "script", "command"]:
        """What is run."""
        if self.notebook is not None:
            return "notebook"
        return "script" if self.script is not None else "command"

    @model_validator(mode="after")
    def _one_source(self) -> JobSpec:
        sources = [name for name in ("notebook", "script", "command") if getattr(self, name) is not None]
        if len(sources) != 1:
            raise ValueError(f"give one of notebook, script and command{', not ' + ' and '.join(sources) if sources else ''}")
        if self.arguments and self.script is None:
            raise ValueError("arguments go with a script; a notebook takes parameters, a command has its own")
        if self.working_directory is not None and self.command is None:
            raise ValueError("working_directory goes with a command; notebooks and scripts run in their own folder")
        if self.command is not None and not self.command[0]:
            raise ValueError("the command's program is empty")
        return self

    @model_validator(mode="after")
    def _tag_keys(self) -> JobSpec:
        for key in self.tags:
            if not _TAG_KEY.fullmatch(key) or key.startswith(("/", "lossi.")) or ".." in key.split("/"):
                raise ValueError(
                    f"tag {key!r}: up to 250 letters, digits and _ - . / : or spaces, and not beginning with 'lossi.', which is reserved"
                )
        return self

    def digest(self) -> str:
        """Return the SHA-256 of the request; equal requests have equal digests."""
        text = json.dumps(self.model_dump(), sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()


def validated(data: dict[str, Any]) -> JobSpec:
    """Return a JobSpec from plain data, with a `LossiError` instead of Pydantic's error.

    Raises
    ------
    InvalidInput
        Names the first invalid field, and all of them in ``details["errors"]``.
    """
    try:
        return JobSpec.model_validate(data)
    except ValidationError as error:
        errors = [
            {"field": ".".join(str(part) for part in item["loc"]), "message": item["msg"].removeprefix("Value error, ")}
            for item in error.errors(include_url=False, include_context=False, include_input=False)
        ]
        first = errors[0]
        field = f"{first['field']}: " if first["field"] else ""
        raise InvalidInput(f"{field}{first['message']}", hint="correct this field of the job", errors=errors) from None

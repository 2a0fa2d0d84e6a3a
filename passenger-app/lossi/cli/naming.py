"""How jobs and tasks are named on the command line."""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer

from lossi.errors import InvalidInput

JobId = Annotated[str, typer.Argument(metavar="JOB", help="Job id, or its first or last characters; `last` is the newest job.")]
TaskId = Annotated[
    str,
    typer.Argument(metavar="JOB[.TASK]", help="Job id and task number, as in 01kx….3; `last` is the newest job."),
]


def split(text: str) -> tuple[str, int | None]:
    """Return job and task of ``JOB[.TASK]``."""
    match = re.fullmatch(r"([0-9A-Za-z]+)(?:\.([0-9]{1,7}))?", text)
    if match is None:
        raise InvalidInput(f"{text!r} is not a job or task", hint="write JOB or JOB.TASK, as `lossi jobs list` shows them")
    return match[1], None if match[2] is None else int(match[2])


def identify(project: Any, text: str) -> str:
    """Return the full id for ``last``, a full id, or a part that only one id has."""
    from lossi import jobs

    if text != "last":
        return str(jobs.get(project, text).id)
    newest = jobs.list_jobs(project, limit=1).items
    if not newest:
        raise InvalidInput("there are no jobs yet", hint="submit one: lossi run NOTEBOOK.ipynb")
    return str(newest[0].id)

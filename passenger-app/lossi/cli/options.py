"""Options that many commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from lossi.projects import Project as ProjectDirectory

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
Project = Annotated[
    str | None,
    typer.Option("--project", "-P", help="Project, by folder or name (default: the one around the current folder)."),
]


def project(text: str | None) -> ProjectDirectory:
    """Return the project that ``--project`` names, or the one around the current folder.

    Raises
    ------
    NotFound
        When there is none.
    """
    from lossi import projects

    return projects.by_name_or_path(text) if text else projects.find(Path.cwd())

"""What operations share: the project of a request, and common query parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import current_app
from pydantic import BaseModel, ConfigDict, Field

from lossi.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from pathlib import Path

    from lossi.projects import Project


class ProjectQuery(BaseModel):
    """The project of an operation."""

    model_config = ConfigDict(extra="forbid")

    project: str | None = Field(
        None,
        min_length=1,
        max_length=4096,
        description="Name or absolute path of the project (default: the one that the server was started for, or the only known one).",
    )


class PageQuery(ProjectQuery):
    """A page of a list."""

    limit: int = Field(100, ge=1, le=1000, description="Entries per page.")
    cursor: str | None = Field(None, max_length=512, description="`next_cursor` of the previous page.")


def project(text: str | None) -> Project:
    """Return the project that a request names; it must be in an allowed root or known to the user.

    Raises
    ------
    NotFound
        When there is no such project, or the user may not see it.
    InvalidInput
        When the request names none and there are several.
    """
    from lossi import projects
    from lossi.files import roots

    if text:
        if "\0" in text or (not text.startswith("/") and "/" in text):
            raise NotFound(f"no project {text!r}", hint="GET /api/v1/projects lists the known ones")
        named = projects.by_name_or_path(text)
        known = {item.root for item in known_projects()}
        if named.root not in known and not roots.default(default_root()).allows(named.root):
            raise NotFound(f"no project {text!r}", hint="GET /api/v1/projects lists the known ones")
        return named
    default = default_project()
    if default is not None:
        return default
    candidates = known_projects()
    if len(candidates) == 1:
        return candidates[0]
    if not candidates:
        raise NotFound("you have no projects yet", hint="run `lossi project init` in a folder to make it a project")
    raise InvalidInput(
        "no project was named and there are several", hint="send `project` with a name or path from GET /api/v1/projects"
    )


def known_projects() -> list[Project]:
    """Return the projects that the user has used or the site offers, if the portal may show them."""
    from lossi import projects
    from lossi.files import roots

    return [item for item in projects.registered() if roots.portal_allows(item.root)]


def default_root() -> Path | None:
    """Return the folder of the project that the server was started for, if any."""
    default = default_project()
    return default.root if default else None


def default_project() -> Project | None:
    """Return the project that the server was started for, if any."""
    default: Project | None = current_app.config.get("LOSSI_PROJECT")
    return default

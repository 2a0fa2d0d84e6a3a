"""What every operation needs to know about the request: which project it speaks of, and the shared forms of parameters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import current_app
from pydantic import BaseModel, ConfigDict, Field

from lossi.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from pathlib import Path

    from lossi.projects import Project


class ProjectQuery(BaseModel):
    """Which project an operation speaks of."""

    model_config = ConfigDict(extra="forbid")

    project: str | None = Field(
        None,
        min_length=1,
        max_length=4096,
        description="Name or absolute path of the project; without it, the one the server was started for, or the only known one.",
    )


class PageQuery(ProjectQuery):
    """A page of a longer list."""

    limit: int = Field(100, ge=1, le=1000, description="Entries on a page.")
    cursor: str | None = Field(None, max_length=512, description="`next_cursor` of the page before.")


def project(text: str | None) -> Project:
    """Return the project that a request names; it must lie in an allowed root or be known to the user.

    Raises
    ------
    NotFound
        When there is no such project, or it may not be seen.
    InvalidInput
        When none was named and there are several.
    """
    from lossi import projects
    from lossi.files import roots

    if text:
        if "\0" in text or (not text.startswith("/") and "/" in text):
            raise NotFound(f"no project {text!r}", hint="GET /api/v1/projects lists the known ones")
        found = projects.by_name_or_path(text)
        known = {item.root for item in known_projects()}
        if found.root not in known and not roots.default(default_root()).allows(found.root):
            raise NotFound(f"no project {text!r}", hint="GET /api/v1/projects lists the known ones")
        return found
    default = default_project()
    if default is not None:
        return default
    candidates = known_projects()
    if len(candidates) == 1:
        return candidates[0]
    if not candidates:
        raise NotFound("you have no project yet", hint="make one with `lossi project init` in its folder")
    raise InvalidInput("which project?", hint="send `project` with a name or path from GET /api/v1/projects")


def known_projects() -> list[Project]:
    """Return the projects that the user has used or the site offers, as far as the portal's own limit lets them be shown."""
    from lossi import projects
    from lossi.files import roots

    return [item for item in projects.registered() if roots.portal_allows(item.root)]


def default_root() -> Path | None:
    """Return the folder of the project that the server was started for, if any."""
    found = default_project()
    return found.root if found else None


def default_project() -> Project | None:
    """Return the project that the server was started for, if any."""
    found: Project | None = current_app.config.get("LOSSI_PROJECT")
    return found

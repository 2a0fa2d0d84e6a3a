"""Links from a project's page to the forms of Lossi's interactive apps; they prefill a form and submit nothing."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

SETTING = "LOSSI_SESSION_APPS"
"""Setting of the web application: names of the installed apps."""


@dataclass(frozen=True)
class SessionApp:
    """One Batch Connect app.

    Attributes
    ----------
    name
        Of its folder, next to the portal's.
    field
        Field of its form for the project's folder.
    """

    name: str
    title: str
    field: str


ALL = (
    SessionApp("lossi-jupyter", "Jupyter", "folder"),
    SessionApp("lossi-mlflow-session", "MLflow", "store"),
)


def installed(portal: Path) -> list[str]:
    """Return the names of the apps that are installed next to the portal."""
    return [app.name for app in ALL if (portal.parent / app.name / "manifest.yml").is_file()]


def links(project: Path, present: list[str], mount: str) -> list[tuple[str, str]]:
    """Return title and URL of each form, prefilled with a project.

    Parameters
    ----------
    project
        The project's folder.
    present
        As `installed` returns it.
    mount
        Where the portal is mounted: ``/pun/sys/lossi``, or below ``/pun/dev`` for the user's own apps.
    """
    kind = "dev" if mount.startswith("/pun/dev/") else "sys"
    return [
        (
            app.title,
            f"/pun/sys/dashboard/batch_connect/{kind}/{app.name}/session_contexts/new?"
            + urlencode({app.field: os.fspath(project)}, errors="surrogateescape"),
        )
        for app in ALL
        if app.name in present
    ]

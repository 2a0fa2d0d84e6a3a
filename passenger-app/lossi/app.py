"""The web application: authentication, REST operations and pages. Imports nothing heavy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from flask_openapi3 import Info

from lossi import __version__
from lossi.api import problems, security
from lossi.api.operations import Application

if TYPE_CHECKING:
    from flask import Flask

    from lossi.projects import Project

PREFIX = "/api/v1"


def create_app(auth: security.AuthMode | None = None, *, project: Project | None = None) -> Flask:
    """Return the WSGI application.

    Parameters
    ----------
    auth
        How requests are authenticated (default: as in the portal).
    project
        The project of requests that name none.
    """
    from lossi import api

    auth = auth or security.portal_mode()
    app = Application(
        "lossi",
        info=Info(
            title="Lossi",
            version=__version__,
            description="Machine-learning runs between the notebook and the supercomputer. Every action of the pages and of the command is an operation here.",
        ),
        doc_ui=False,
        security_schemes={
            "token": {"type": "http", "scheme": "bearer"},
            "session": {"type": "apiKey", "in": "cookie", "name": auth.cookie},
        },
        responses={"default": problems.Problem},
        validation_error_model=problems.Problem,
        validation_error_callback=problems.from_validation,
        static_folder=str(Path(__file__).parent / "static"),
        template_folder=str(Path(__file__).parent / "templates"),
    )
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.config["LOSSI_PROJECT"] = project
    app.config["MAX_CONTENT_LENGTH"] = 64 * 2**20
    app.url_defaults(_versioned)
    problems.register(app)
    security.register(app, auth)
    api.register(app, PREFIX)
    return app


def _versioned(endpoint: str, values: dict[str, Any]) -> None:
    """Add the version to URLs of static files: the portal's server lets browsers cache them."""
    if endpoint == "static":
        values.setdefault("v", __version__)

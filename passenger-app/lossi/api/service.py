"""The service itself: health, session, the OpenAPI document."""

from __future__ import annotations

import os
import pwd
from typing import Any

from flask import Response, current_app, jsonify
from flask_openapi3 import Tag
from pydantic import BaseModel, Field

from lossi import __version__
from lossi.api import problems, security
from lossi.api.operations import Operations

api = Operations("service", __name__, abp_tags=[Tag(name="service", description="Health, session and this document.")])


class Health(BaseModel):
    """Whether the parts that Lossi depends on work."""

    status: str = Field(description="`ok`, or `degraded` if a part does not work.")
    version: str
    checks: dict[str, str] = Field(description="Part → `ok` or what is wrong.")


class SessionInfo(BaseModel):
    """The user of the session, and what browsers need for writes."""

    user: str
    version: str
    csrf_token: str = Field(description="Send it as `X-CSRF-Token` with every write from a browser session.")
    default_project: str | None = Field(description="Absolute path of the project used if a request names none.")


@api.get("/health", summary="Health", responses={200: Health})
def health() -> Response:
    """Check that the state folder can be written and the catalogue is valid."""
    from lossi import environments, settings
    from lossi.errors import LossiError

    checks: dict[str, str] = {}
    try:
        folder = settings.state_dir()
        folder.mkdir(parents=True, exist_ok=True)
        checks["state_folder"] = "ok" if os.access(folder, os.W_OK) else f"{folder} is not writable"
    except OSError as error:
        checks["state_folder"] = str(error)
    try:
        settings.load()
        problems = environments.load().problems
        checks["catalogue"] = "ok" if not problems else "; ".join(str(problem) for problem in problems)[:1000]
    except LossiError as error:
        checks["catalogue"] = str(error)
    healthy = all(value == "ok" for value in checks.values())
    return jsonify(Health(status="ok" if healthy else "degraded", version=__version__, checks=checks).model_dump())


@api.get("/session", summary="Session", responses={200: SessionInfo})
def session() -> Response:
    """Return the user, the version and the CSRF token of this browser session."""
    project = current_app.config.get("LOSSI_PROJECT")
    info = SessionInfo(
        user=pwd.getpwuid(os.getuid()).pw_name,
        version=__version__,
        csrf_token=security.csrf_token(),
        default_project=str(project.root) if project else None,
    )
    return jsonify(info.model_dump())


@api.get("/openapi.json", doc_ui=False)
def document() -> Response:
    """Return the OpenAPI 3.1 document of this API."""
    return jsonify(openapi(current_app))


def openapi(app: Any) -> dict[str, Any]:
    """Return the OpenAPI document of ``app`` with the media type of errors and the security schemes."""
    data = dict(app.api_doc)
    data["security"] = [{"token": []}, {"session": []}]
    problem = {
        "description": "A problem document",
        "content": {problems.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    for operations in data.get("paths", {}).values():
        for operation in operations.values():
            responses = operation.setdefault("responses", {})
            for status in [status for status in responses if status.startswith(("4", "5"))]:
                responses[status] = problem
            responses["default"] = problem
    return data

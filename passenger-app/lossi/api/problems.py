"""Errors as RFC 9457 problem documents (application/problem+json): the one place where errors become HTTP."""

from __future__ import annotations

import json
import secrets
import sys
import traceback
from typing import Any

from flask import Flask, Response, render_template, request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from werkzeug.exceptions import HTTPException

from lossi.errors import LossiError
from lossi.jsonable import plain

MEDIA_TYPE = "application/problem+json"


class Problem(BaseModel):
    """Fields of every error response."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="Kind of problem, stable for programs, for example `/problems/not-found`.")
    title: str = Field(description="The kind of problem in words.")
    status: int = Field(description="HTTP status.")
    detail: str = Field(description="What happened.")
    why: str = Field("", description="The cause, if it is known.")
    hint: str = Field("", description="What to do next.")


def answer(status: int, slug: str, title: str, detail: str, *, why: str = "", hint: str = "", **members: Any) -> Response:
    """Return a problem document as a response: a page for browsers outside the API, otherwise JSON."""
    document = {
        **members,
        "type": f"/problems/{slug}",
        "title": title,
        "status": status,
        "detail": detail,
        "why": why,
        "hint": hint,
    }
    if not request.path.startswith("/api/") and request.accept_mimetypes.best_match([MEDIA_TYPE, "text/html"]) == "text/html":
        response = Response(render_template("problem.html", problem=document), status=status, mimetype="text/html")
    else:
        response = Response(json.dumps(plain(document), ensure_ascii=True), status=status, mimetype=MEDIA_TYPE)
    response.vary.add("Accept")
    return response


def from_error(error: LossiError) -> Response:
    """Return the response to a LossiError."""
    response = answer(error.status, error.slug, error.title, error.what, why=error.why, hint=error.hint, **error.details)
    if error.status == 503:
        response.headers["Retry-After"] = "5"
    return response


def from_validation(error: ValidationError) -> Response:
    """Return the response to a request that does not fit its model."""
    errors = [
        {"field": ".".join(str(part) for part in item["loc"]), "message": item["msg"]}
        for item in error.errors(include_url=False, include_context=False, include_input=False)
    ]
    first = errors[0] if errors else {"field": "", "message": "not valid"}
    return answer(
        422,
        "invalid-input",
        "The request is not valid",
        f"{first['field'] or 'the request'}: {first['message']}",
        hint="openapi.json and the API reference page describe each request",
        errors=errors,
    )


def register(app: Flask) -> None:
    """Answer every error with a problem document; never show a traceback."""

    @app.errorhandler(LossiError)
    def lossi_error(error: LossiError) -> Response:
        return from_error(error)

    @app.errorhandler(ValidationError)
    def validation_error(error: ValidationError) -> Response:
        return from_validation(error)

    @app.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Response | HTTPException:
        status = error.code or 500
        if status < 400:  # redirects of the router
            return error
        hint = "the API reference page lists the operations" if status in (404, 405) else ""
        response = answer(status, "http-error", error.name, error.description or error.name, hint=hint)
        for name, value in error.get_headers():
            if name not in ("Content-Type", "Content-Length"):
                response.headers[name] = value
        return response

    @app.errorhandler(Exception)
    def unexpected(error: Exception) -> Response:
        incident = secrets.token_hex(4)
        sys.stderr.write(f"lossi: incident {incident} at {request.method} {request.path}\n{traceback.format_exc()}")
        return answer(
            500,
            "internal-error",
            "Something unexpected happened",
            f"this is a bug in Lossi (incident {incident})",
            hint=f"please report it with the lines of the server's log for incident {incident}",
            incident=incident,
        )

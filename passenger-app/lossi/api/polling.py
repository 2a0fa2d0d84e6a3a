"""Cheap polling: every JSON response has an ETag, and a client that has it already gets 304 without a body."""

from __future__ import annotations

from flask import Flask, Response, request


def register(app: Flask) -> None:
    """Make JSON responses conditional."""

    @app.after_request
    def conditional(response: Response) -> Response:
        if (
            request.method == "GET"
            and response.status_code == 200
            and response.mimetype == "application/json"
            and not response.is_streamed
        ):
            response.add_etag(weak=True)
            response.make_conditional(request)
        return response

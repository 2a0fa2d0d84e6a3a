"""REST under ``/api/v1`` and the start page: translates between HTTP and the rooms, never decides.

One module per resource, each with its `APIBlueprint`; errors become problem documents in `problems`, doors and headers
are in `security`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask_openapi3 import OpenAPI

__all__ = ["register"]


def register(app: OpenAPI, prefix: str) -> None:
    """Mount every resource below ``prefix`` and the pages at the root."""
    from lossi.api import environments, jobs, notebooks, pages, polling, projects, runs, service

    for module in (service, projects, environments, notebooks, jobs, runs):
        app.register_api(module.api, url_prefix=prefix)
    app.register_blueprint(pages.pages)
    polling.register(app)

"""REST under ``/api/v1`` and the pages: translates between HTTP and the rooms, never decides.

One module per resource, each with its `Operations`. `problems` turns errors into problem documents; `security` has
authentication and headers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flask_openapi3 import OpenAPI

__all__ = ["register"]


def register(app: OpenAPI, prefix: str) -> None:
    """Mount every resource below ``prefix`` and the pages at the root."""
    from lossi.api import (
        clusters,
        diagnosis,
        environments,
        job_pages,
        jobs,
        notebooks,
        pages,
        polling,
        projects,
        recent,
        runs,
        service,
    )

    for module in (service, projects, clusters, environments, notebooks, jobs, diagnosis, runs, recent):
        app.register_api(module.api, url_prefix=prefix)
    app.register_blueprint(pages.pages)
    app.register_blueprint(job_pages.pages)
    polling.register(app)

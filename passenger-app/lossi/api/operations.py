"""REST operations whose OpenAPI description is made on demand.

flask-openapi3 makes the JSON schemas of all models on import, which takes a third of the time until a process's first answer;
here they are made with the first request for the OpenAPI document.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask_openapi3 import APIBlueprint, OpenAPI


class Operations(APIBlueprint):
    """The operations of one resource."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._undescribed: list[tuple[str, Callable[..., Any], dict[str, Any]]] = []

    def _collect_openapi_info(self, rule: str, func: Callable[..., Any], **description: Any) -> Any:
        self._undescribed.append((rule, func, description))
        return super()._collect_openapi_info(rule, func, **{**description, "doc_ui": False})

    def describe(self, app: Application) -> None:
        """Add these operations to the OpenAPI document of the application that they are registered with."""
        while self._undescribed:
            rule, func, description = self._undescribed.pop(0)
            super()._collect_openapi_info(rule, func, **description)
        for tag in self.tags:
            if tag.name not in app.tag_names:
                app.tags.append(tag)
                app.tag_names.append(tag.name)
        app.paths.update(self.paths)
        app.components_schemas.update(self.components_schemas)


class Application(OpenAPI):
    """The web application."""

    @property
    def api_doc(self) -> dict[str, Any]:
        """The OpenAPI document."""
        if not self.spec_json:
            for blueprint in self.blueprints.values():
                if isinstance(blueprint, Operations):
                    blueprint.describe(self)
        document: dict[str, Any] = super().api_doc
        return document

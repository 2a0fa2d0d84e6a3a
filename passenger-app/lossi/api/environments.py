"""Environments: the merged catalogue, and what of it can be started on this machine."""

from __future__ import annotations

from flask import Response, jsonify
from flask_openapi3 import Tag
from pydantic import BaseModel, Field

from lossi.api import context
from lossi.api.operations import Operations
from lossi.environments import Catalog, Environment, Problem, Way
from lossi.jsonable import plain

api = Operations(
    "environments",
    __name__,
    abp_tags=[
        Tag(name="environments", description="Named software stacks: images by architecture and accelerator, or a local Python.")
    ],
)


class EnvironmentPath(BaseModel):
    """An environment."""

    name: str = Field(min_length=1, max_length=200, description="Its name in the catalogue.")


class EnvironmentAnswer(Environment):
    """An environment of the catalogue and the ways to start it."""

    ways: tuple[Way, ...] = Field(description="Each local Python and image, and whether it can be started on this machine.")


class EnvironmentList(BaseModel):
    """The merged catalogue."""

    environments: list[EnvironmentAnswer]
    problems: list[Problem] = Field(description="Entries and files that are left out because they are not valid.")


@api.get("/environments", summary="List environments", responses={200: EnvironmentList})
def list_environments(query: context.ProjectQuery) -> Response:
    """List the environments: shipped, the site's, the user's and the project's."""
    catalog = _catalog(query)
    return jsonify(
        {"environments": [_answer(environment) for environment in catalog.environments], "problems": plain(catalog.problems)}
    )


@api.get("/environments/<string:name>", summary="Show an environment", responses={200: EnvironmentAnswer})
def show_environment(path: EnvironmentPath, query: context.ProjectQuery) -> Response:
    """Show one environment with its images and its local Python."""
    return jsonify(_answer(_catalog(query).get(path.name)))


def _catalog(query: context.ProjectQuery) -> Catalog:
    from lossi import environments

    project = context.project(query.project) if query.project else context.default_project()
    return environments.load(project.root if project else None)


def _answer(environment: Environment) -> dict[str, object]:
    from lossi import environments

    return {**plain(environment), "ways": plain(environments.ways(environment))}

"""Projects: the directories that Lossi works in."""

from __future__ import annotations

from flask import Response, jsonify
from flask_openapi3 import Tag
from pydantic import BaseModel, ConfigDict, Field

from lossi.api import context
from lossi.api.operations import Operations
from lossi.jsonable import plain
from lossi.projects import ProjectInfo

api = Operations(
    "projects", __name__, abp_tags=[Tag(name="projects", description="The directories that hold code, jobs and runs.")]
)


class ProjectList(BaseModel):
    """The projects that the user has used, and those that the site offers to everybody."""

    projects: list[ProjectInfo]


class NewProject(BaseModel):
    """A folder to turn into a project."""

    model_config = ConfigDict(extra="forbid")

    path: str = Field(min_length=1, max_length=4096, description="Absolute path of an existing folder in an allowed root.")


@api.get("/projects", summary="List projects", responses={200: ProjectList})
def list_projects() -> Response:
    """List the known projects."""
    from lossi import projects

    known = context.known_projects()
    default = context.default_project()
    if default is not None and default.root not in {project.root for project in known}:
        known = [default, *known]
    return jsonify({"projects": [plain(projects.describe(project)) for project in known]})


@api.get("/projects/current", summary="Show a project", responses={200: ProjectInfo})
def show_project(query: context.ProjectQuery) -> Response:
    """Show the project of the request."""
    from lossi import projects

    return jsonify(plain(projects.describe(context.project(query.project))))


@api.post("/projects", summary="Make a folder a project", responses={201: ProjectInfo})
def create_project(body: NewProject) -> tuple[Response, int]:
    """Make an existing folder a project and remember it."""
    from lossi import projects
    from lossi.errors import InvalidInput
    from lossi.files import roots

    if not body.path.startswith("/") or "\0" in body.path:
        raise InvalidInput("the path of a project must be absolute", hint="send the full path, starting with /")
    folder = roots.default(context.default_root()).resolve(body.path)
    return jsonify(plain(projects.describe(projects.init(folder)))), 201

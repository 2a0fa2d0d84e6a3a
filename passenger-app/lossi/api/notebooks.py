"""Notebooks of a project: their parameters, and the notebook as a harmless HTML page."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any, BinaryIO, Literal

from flask import Response, jsonify, make_response, send_file
from flask_openapi3 import Tag
from pydantic import BaseModel, Field

from lossi.api import context
from lossi.api.operations import Operations
from lossi.errors import InvalidInput
from lossi.files import beneath
from lossi.jsonable import plain

api = Operations("notebooks", __name__, abp_tags=[Tag(name="notebooks", description="Notebooks of a project.")])

WAIT_S = 0.8
"""The web process serves one request at a time; a page that takes longer is rendered while others are served."""

_WAITING_PAGE = """\
<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta http-equiv="refresh" content="1"><title>Rendering…</title></head>
<body><p>The notebook is being rendered. This page reloads itself.</p></body></html>
"""


class NotebookQuery(context.ProjectQuery):
    """Which notebook."""

    path: str = Field(min_length=1, max_length=4096, description="Path of the notebook, relative to the project.")


class NotebookParameter(BaseModel):
    """A parameter of a notebook."""

    name: str
    type: Literal["int", "float", "str", "bool", "list", "dict", "none", "any"] = Field(
        description="`none`: the default has no type; `any`: the default is an expression."
    )
    default: Any = Field(
        None, description="The default if it is a literal; NaN and infinities as `NaN`, `Infinity`, `-Infinity`."
    )
    source: str = Field(description="The default as written in the notebook.")
    comment: str
    required: bool = Field(description="Declared without a default.")
    optional: bool = Field(description="`null` is allowed.")


class NotebookParameters(BaseModel):
    """The parameters of a notebook."""

    path: str
    title: str
    language: str = Field(description="In lower case: `python`, `r`, …; `unknown` if not stated.")
    kernel: str | None = Field(description="The kernelspec that it names.")
    cell_index: int | None = Field(description="Index of the cell tagged `parameters` among all cells, from 0; null without one.")
    parameters: list[NotebookParameter]
    notes: list[str] = Field(description="What could not be read, and why.")


@api.get("/notebooks/parameters", summary="Show the parameters of a notebook", responses={200: NotebookParameters})
def parameters(query: NotebookQuery) -> Response:
    """Show names, types, defaults and comments from the cell tagged `parameters`."""
    from lossi import notebooks

    with _opened(query) as stream:
        notebook = notebooks.read(stream)
    declared = notebooks.parameters(notebook)
    items = [
        NotebookParameter(
            name=item.name,
            type=item.type,  # type: ignore[arg-type]
            default=plain(item.default),
            source=item.source,
            comment=item.comment,
            required=item.required,
            optional=item.optional,
        )
        for item in declared.parameters
    ]
    answer = NotebookParameters(
        path=query.path,
        title=notebook.title,
        language=declared.language,
        kernel=notebook.kernel,
        cell_index=declared.cell_index,
        parameters=items,
        notes=list(declared.notes),
    )
    return jsonify(answer.model_dump())


@api.get(
    "/notebooks/render",
    summary="Show a notebook as HTML",
    responses={
        200: {"content": {"text/html": {"schema": {"type": "string"}}}},
        202: {"description": "Still rendering: try again", "content": {"text/html": {"schema": {"type": "string"}}}},
    },
)
def render(query: NotebookQuery) -> Response:
    """Show a notebook with its outputs as one page with its own origin, no scripts and no external content."""
    with _opened(query) as stream:
        return rendered(stream)


def rendered(source: Path | BinaryIO) -> Response:
    """Return a notebook as HTML, or 202 and a page that reloads itself if rendering takes longer than `WAIT_S`."""
    from lossi import notebooks

    try:
        return html_answer(notebooks.render(source, wait_s=WAIT_S))
    except notebooks.StillRendering:
        response = make_response(_WAITING_PAGE, 202)
        response.headers.update(
            {"Content-Type": "text/html; charset=utf-8", "Retry-After": "1", "Cache-Control": "no-store", **_HARMLESS}
        )
        # Without `sandbox`, in which a page cannot reload itself; nothing in it comes from the user.
        response.headers["Content-Security-Policy"] = "default-src 'none'; frame-ancestors 'self'"
        return response


def html_answer(page: Path) -> Response:
    """Return a page made from a notebook, with its own origin and without scripts."""
    response = send_file(page, mimetype="text/html", etag=page.stem, conditional=True, max_age=0)
    response.headers.update(_HARMLESS)
    response.headers["Cache-Control"] = "private, no-cache"
    return response


_HARMLESS = {"Content-Security-Policy": "sandbox", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}


def _opened(query: NotebookQuery) -> BinaryIO:
    if not query.path.endswith(".ipynb"):
        raise InvalidInput(f"{query.path} is not a notebook", why="its name does not end in .ipynb", hint="choose a *.ipynb file")
    descriptor = beneath.open_beneath(context.project(query.project).root, query.path)
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InvalidInput(f"{query.path} is not a notebook", why="it is a folder", hint="choose a *.ipynb file")
    return os.fdopen(descriptor, "rb")

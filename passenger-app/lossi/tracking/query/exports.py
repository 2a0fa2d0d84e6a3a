"""Runs as a file, CSV or JSON, made piece by piece.

Between two pieces the store is closed: a slow reader of a download must not keep a writer waiting.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

from lossi.errors import InvalidInput
from lossi.files.text import csv_cell
from lossi.projects import Project
from lossi.tracking.query import columns as cells, search
from lossi.tracking.query.models import View
from lossi.tracking.query.store import Store
from lossi.tracking.query.values import Cell

ROWS = 1000
"""Runs in one piece."""

Format = Literal["csv", "json"]
Row = tuple[Cell, ...]


def export(
    project: Project,
    *,
    filter: str = "",
    order_by: Sequence[str] = (),
    experiments: Sequence[str | int] | None = None,
    view: View = "active",
    columns: Sequence[str] | None = None,
    format: Format = "csv",
) -> Iterator[str]:
    """Return all matching runs as pieces of a text: one line, or one object, per run.

    CSV is RFC 4180 with a header; cells that a spreadsheet would take for a formula begin with an apostrophe. JSON is one
    array of flat objects with the same names. Not-a-number and infinite metrics are NaN, Infinity and -Infinity in both (as
    strings in JSON), missing values are empty or null.

    Parameters
    ----------
    project, filter, order_by, experiments, view, columns
        As for `query.search`.
    format
        "csv" or "json".

    Raises
    ------
    InvalidInput, NotFound, Forbidden, Unavailable
        As for `query.search`, before the first piece.
    """
    if format not in ("csv", "json"):
        raise InvalidInput(f"{format!r} is not a format", hint="choose csv or json")
    asked = search.question(filter, order_by, experiments, view, columns)
    wanted = search.ask(project, asked, lambda store: _wanted(store, asked))
    names = [cells.column_name(kind, key) for kind, key in wanted.names]
    pieces = _pieces(project, asked, wanted)
    first = next(pieces)  # what can go wrong does so before anything was sent
    return _text(_csv(names) if format == "csv" else _json(names), first, pieces)


def _wanted(store: Store, asked: search.Question) -> cells.Selection:
    """Return the columns of the whole file."""
    occurring = cells.occurring(store, asked.selection, search.matching(store, asked))
    names: dict[tuple[str, str], None] = {}
    for kind, key in asked.selection.names:
        if key == "*":
            names.update(dict.fromkeys(item for item in occurring if item[0] == kind))
        else:
            names[kind, key] = None
    return cells.Selection(list(names))


def _pieces(project: Project, asked: search.Question, wanted: cells.Selection) -> Iterator[list[Row]]:
    start: list[Any] | None = None
    while True:
        rows, start = search.ask(project, asked, _piece(asked, wanted, start))
        yield rows
        if start is None:
            return


def _piece(
    asked: search.Question, wanted: cells.Selection, start: list[Any] | None
) -> Callable[[Store], tuple[list[Row], list[Any] | None]]:
    def read(store: Store) -> tuple[list[Row], list[Any] | None]:
        run_ids, last, _ = search.page_of_ids(store, asked, search.matching(store, asked), ROWS, start)
        found = cells.read_cells(store, wanted, run_ids)
        return list(zip(*found.values(), strict=True)), last

    return read


def _text(form: Callable[[list[Row], bool], str], first: list[Row], rest: Iterator[list[Row]]) -> Iterator[str]:
    yield form(first, True)
    for rows in rest:
        yield form(rows, False)
    yield form([], False)


def _csv(names: list[str]) -> Callable[[list[Row], bool], str]:
    def form(rows: list[Row], is_first: bool) -> str:
        target = io.StringIO()
        writer = csv.writer(target)
        if is_first:
            writer.writerow([csv_cell(name) for name in names])
        writer.writerows([csv_cell(value) for value in row] for row in rows)
        return target.getvalue()

    return form


def _json(names: list[str]) -> Callable[[list[Row], bool], str]:
    def form(rows: list[Row], is_first: bool) -> str:
        text = ",\n".join(json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False, allow_nan=False) for row in rows)
        if is_first:
            return "[\n" + text
        return ",\n" + text if rows else "\n]\n"

    return form

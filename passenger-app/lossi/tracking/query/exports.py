"""Export runs as CSV or JSON, piece by piece.

Between two pieces the store is closed, so that a slow download does not keep a writer waiting.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
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
    """Return all matching runs as pieces of text: one line or one object per run.

    CSV is RFC 4180 with a header; cells that a spreadsheet would read as a formula begin with an apostrophe. JSON is one array of
    flat objects with the same names. Metrics may be NaN, Infinity and -Infinity in both (strings in JSON); missing values are
    empty or null.

    Parameters
    ----------
    project, filter, order_by, experiments, view, columns
        See `search.search`.
    format
        "csv" or "json".

    Raises
    ------
    InvalidInput, NotFound, Forbidden, Unavailable
        As `search.search`, before the first piece.
    """
    if format not in ("csv", "json"):
        raise InvalidInput(f"{format!r} is not a format", hint="choose csv or json")
    query = search.parse_query(filter, order_by, experiments, view, columns)
    selection = search.read_for(project, query, lambda store: _all_columns(store, query))
    names = [cells.column_name(kind, key) for kind, key in selection.names]
    pieces = _pieces(project, query, selection)
    first = next(pieces)  # errors are raised before anything is sent
    return _text(_csv(names) if format == "csv" else _json(names), first, pieces)


def _all_columns(store: Store, query: search.RunQuery) -> cells.Selection:
    """Return the columns of the whole file."""
    occurring = cells.occurring(store, query.selection, search.matching(store, query))
    names: dict[tuple[str, str], None] = {}
    for kind, key in query.selection.names:
        if key == "*":
            names.update(dict.fromkeys(item for item in occurring if item[0] == kind))
        else:
            names[kind, key] = None
    return cells.Selection(list(names))


def _pieces(project: Project, query: search.RunQuery, selection: cells.Selection) -> Iterator[list[Row]]:
    start: list[Any] | None = None
    while True:
        rows, start = search.read_for(project, query, partial(_piece, query=query, selection=selection, start=start))
        yield rows
        if start is None:
            return


def _piece(
    store: Store, query: search.RunQuery, selection: cells.Selection, start: list[Any] | None
) -> tuple[list[Row], list[Any] | None]:
    run_ids, last, _ = search.page_of_ids(store, query, search.matching(store, query), ROWS, start)
    columns = cells.read_cells(store, selection, run_ids)
    return list(zip(*columns.values(), strict=True)), last


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

"""Search runs by filter and order; the result has columns and pages."""

# ruff: noqa: S608  (statements contain only names from this package; values are always bound)
from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from lossi.errors import InvalidInput, NotFound, did_you_mean
from lossi.projects import Project
from lossi.tracking.query import columns as cells
from lossi.tracking.query.conditions import Matching, Ordering, after, needs_jobs, ordering, where
from lossi.tracking.query.filters import Condition, Order, parse_filter, parse_order_by
from lossi.tracking.query.models import RunTable, View
from lossi.tracking.query.store import Store, read
from lossi.tracking.query.values import is_storable

T = TypeVar("T")

LONGEST_IN_CURSOR = 40
"""Longer texts of a sort key are read again instead, so that a cursor fits into a URL."""
MAX_ORDERS = 20


@dataclass(frozen=True)
class RunQuery:
    """A validated search for runs."""

    conditions: tuple[Condition, ...]
    orders: tuple[Order, ...]
    experiments: tuple[str, ...] | None
    view: View
    selection: cells.Selection

    @property
    def with_jobs(self) -> bool:
        """Whether the project's index is needed."""
        return self.selection.with_jobs or needs_jobs(self.conditions, self.orders)

    @property
    def fingerprint(self) -> str:
        """Return a digest of what a cursor is bound to: the same runs in the same order."""
        bound = repr((self.conditions, self.orders, self.experiments, self.view))
        return hashlib.sha256(bound.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def parse_query(
    filter: str = "",
    order_by: Sequence[str] = (),
    experiments: Sequence[str | int] | None = None,
    view: View = "active",
    columns: Sequence[str] | None = None,
) -> RunQuery:
    """Validate a search before any store is opened.

    Raises
    ------
    InvalidInput
        With the part that is not valid, and where.
    """
    if view not in ("active", "deleted", "all"):
        raise InvalidInput(f"{view!r} is not a view", hint="choose active, deleted or all")
    if len(order_by) > MAX_ORDERS:
        raise InvalidInput(f"more than {MAX_ORDERS} order_by clauses", hint="order by fewer columns")
    for text in (filter, *order_by):
        if not is_storable(text):
            raise InvalidInput(f"{text!r} is not valid Unicode", hint="remove the characters shown as \\u…")
    return RunQuery(
        conditions=tuple(parse_filter(filter)),
        orders=tuple(parse_order_by(order_by)),
        experiments=None if experiments is None else tuple(str(item) for item in experiments),
        view=view,
        selection=cells.select_columns(columns),
    )


def search(
    project: Project,
    *,
    filter: str = "",
    order_by: Sequence[str] = (),
    experiments: Sequence[str | int] | None = None,
    view: View = "active",
    limit: int | None = 100,
    cursor: str | None = None,
    columns: Sequence[str] | None = None,
) -> RunTable:
    """Return runs as columns.

    Parameters
    ----------
    project
        The runs' project.
    filter, order_by
        MLflow's language, extended by ``job.<column>`` (see `filters`). Without an order: newest first.
    experiments
        Ids or names; None for all.
    view
        "active", "deleted" or "all".
    limit
        Most runs on the page; None for all.
    cursor
        `next_cursor` of the previous page.
    columns
        Names of columns, ``metrics.*`` for all of a kind. None: attributes, facts of the task, and every param, metric and tag
        that occurs, without most of MLflow's own tags.

    Raises
    ------
    InvalidInput
        For a filter, order, column or cursor that is not valid.
    NotFound
        For an experiment that does not exist.
    Forbidden, Unavailable
        If the store cannot be read.
    """
    query = parse_query(filter, order_by, experiments, view, columns)
    if limit is not None and limit < 1:
        raise InvalidInput(f"limit {limit} is not possible", hint="set it to 1 or more")
    start = _decode(cursor, query) if cursor else None
    return read_for(project, query, lambda store: _page(store, query, limit, start))


def read_for(project: Project, query: RunQuery, answer: Callable[[Store], T]) -> T:
    """Read the store for a query; if the index cannot be read, facts of tasks that were not explicitly selected are missing.

    Raises
    ------
    Forbidden, Unavailable
        If the store cannot be read, or the index and the query needs it.
    """
    required = not query.selection.default or needs_jobs(query.conditions, query.orders)
    return read(project, answer, with_jobs=query.with_jobs, jobs_required=required)


def _page(store: Store, query: RunQuery, limit: int | None, start: list[Any] | None) -> RunTable:
    selected = matching(store, query)
    run_ids, last, following = page_of_ids(store, query, selected, limit, start)
    total = following if start is None else _count(store, selected)
    # All pages of a query have the same columns.
    also = cells.occurring(store, query.selection, selected) if total > len(run_ids) else ()
    return RunTable.model_construct(
        columns=cells.read_cells(store, query.selection, run_ids, also),
        total=total,
        next_cursor=_encode(last, query) if last else None,
        **store.marks,
    )


def matching(store: Store, query: RunQuery) -> Matching:
    """Return the runs of the store that match a query."""
    conditions = where(query.conditions, store.relations)
    tables = f"{store.relations['runs']} r"
    if needs_jobs(query.conditions, ()):
        tables += store.job_join
    sql, values = conditions.sql, list(conditions.values)
    if query.view != "all":
        sql += " AND r.lifecycle_stage = ?"
        values.append(query.view)
    if query.experiments is not None:
        sql += " AND r.experiment_id IN (SELECT value FROM json_each(?))"
        values.append(json.dumps(_experiment_ids(store, query.experiments)))
    return Matching(tables, sql, values)


def _experiment_ids(store: Store, experiments: Sequence[str]) -> list[int]:
    known = store.rows(f"SELECT experiment_id, name FROM {store.relations['experiments']}")
    by_name = {str(name): identifier for identifier, name in known}
    by_id = {str(identifier): identifier for identifier, _ in known}
    result = []
    for text in experiments:
        identifier = by_id.get(text, by_name.get(text))
        if identifier is None:
            hint = did_you_mean(text, by_name) or "`lossi runs list` without an experiment shows all runs"
            raise NotFound(f"no experiment {text!r}", hint=hint)
        result.append(identifier)
    return result


def page_of_ids(
    store: Store, query: RunQuery, selected: Matching, limit: int | None, start: list[Any] | None
) -> tuple[list[str], list[Any] | None, int]:
    """Return the run ids of a page, the sort key of its last row if more follow, and the number of runs after ``start``."""
    order = ordering(query.orders, store.relations)
    tables = selected.tables
    if needs_jobs((), query.orders) and not needs_jobs(query.conditions, ()):
        tables += store.job_join
    keys = ", ".join(key.sql for key in order.keys)
    sql = f"SELECT {keys}, count(*) OVER () FROM {tables}{order.joins.sql} WHERE {selected.conditions}"
    values = [*order.joins.values, *selected.values]
    if start is not None:
        condition = after(order.keys, _with_long_texts(store, order, tables, start))
        sql += f" AND ({condition.sql})"
        values += condition.values
    directions = ", ".join(f"{position} {'ASC' if key.ascending else 'DESC'}" for position, key in enumerate(order.keys, 1))
    sql += f" ORDER BY {directions}"
    if limit is not None:
        sql += " LIMIT ?"
        values.append(limit + 1)
    rows = store.rows(sql, values)
    more = limit is not None and len(rows) > limit
    number = int(rows[0][-1]) if rows else 0
    rows = rows[:limit]
    return [row[-2] for row in rows], list(rows[-1][:-1]) if more else None, number


def _count(store: Store, selected: Matching) -> int:
    return int(store.rows(f"SELECT count(*) FROM {selected.tables} WHERE {selected.conditions}", selected.values)[0][0])


def _encode(key: Sequence[Any], query: RunQuery) -> str:
    """Return the cursor of the page after the row with this sort key, whose last element is the run id."""
    short = [{"of": "run"} if isinstance(item, str) and len(item) > LONGEST_IN_CURSOR else item for item in key]
    return base64.urlsafe_b64encode(json.dumps([query.fingerprint, short]).encode()).decode().rstrip("=")


def _decode(cursor: str, query: RunQuery) -> list[Any]:
    hint = "pass `next_cursor` of the previous page, with the same filter, order_by, experiments and view"
    try:
        fingerprint, key = json.loads(base64.urlsafe_b64decode(cursor.encode() + b"=" * (-len(cursor) % 4)))
        plain = all(item is None or is_storable(item) or item == {"of": "run"} for item in key)
    except (ValueError, TypeError, binascii.Error, RecursionError):
        raise InvalidInput("the cursor is not valid", hint=hint) from None
    if not plain or not key or not isinstance(key[-1], str) or len(key) != len(ordering(query.orders, _ANY).keys):
        raise InvalidInput("the cursor is not valid", hint=hint)
    if fingerprint != query.fingerprint:
        raise InvalidInput("the cursor belongs to another query", hint=hint)
    return list(key)


_ANY = dict.fromkeys(("tags", "params", "latest_metrics"), "")


def _with_long_texts(store: Store, order: Ordering, tables: str, key: list[Any]) -> list[Any]:
    """Return the sort key with the long texts that the cursor leaves out."""
    if {"of": "run"} not in key:
        return key
    keys = ", ".join(item.sql for item in order.keys)
    rows = store.rows(f"SELECT {keys} FROM {tables}{order.joins.sql} WHERE r.run_uuid = ?", [*order.joins.values, key[-1]])
    if not rows:
        raise InvalidInput("the cursor's run no longer exists", hint="start again from the first page")
    return [full if item == {"of": "run"} else item for item, full in zip(key, rows[0], strict=True)]

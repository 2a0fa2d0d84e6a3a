"""Metric histories of many runs, small enough to draw: every point, or buckets that keep the extremes."""

# ruff: noqa: S608  (statements contain only names from this package; values are always bound)
from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Literal

from lossi.errors import InvalidInput
from lossi.projects import Project
from lossi.tracking.query.models import Histories, Series
from lossi.tracking.query.runs import missing_runs
from lossi.tracking.query.store import Store, read
from lossi.tracking.query.values import Cell, number

MOST_BUCKETS = 2000
BUCKETS_IN_ALL = 200_000

Axis = Literal["step", "time"]
Point = tuple[int, int, float, int]
"""(x, the other of step and time, value, is_nan); sorts like MLflow's order of points."""


def default_buckets(runs: int) -> int:
    """Return the number of buckets per run that keeps the whole answer small."""
    return max(2, min(MOST_BUCKETS, BUCKETS_IN_ALL // max(runs, 1)))


def history(
    project: Project, run_ids: Sequence[str], keys: Sequence[str], buckets: int | None = None, x: Axis = "step"
) -> Histories:
    """Return the histories of metrics.

    A series with at most as many points as buckets is exact. Otherwise its range of x is cut into buckets of equal width, and
    each that has points keeps the smallest and largest value that is not NaN, the last value and the number of points.

    Parameters
    ----------
    project
        The runs' project.
    run_ids, keys
        Runs and metric keys; series are in this order, run by run, without those that have no points.
    buckets
        Most entries of a series; None: min(2000, 200,000 / runs).
    x
        "step", or "time" (milliseconds since 1970).

    Raises
    ------
    InvalidInput
        If there is no run or key, or ``buckets`` or ``x`` is not valid.
    NotFound
        With the ids (`run_ids`) that the store does not have.
    Forbidden, Unavailable
        If the store cannot be read.
    """
    runs = list(dict.fromkeys(run_ids))
    names = list(dict.fromkeys(keys))
    if not runs or not names:
        raise InvalidInput("a history needs at least one run and one metric", hint="pass run ids and metric keys")
    if x not in ("step", "time"):
        raise InvalidInput(f"{x!r} is not an axis", hint="choose step or time")
    if buckets is not None and not 2 <= buckets <= BUCKETS_IN_ALL:
        raise InvalidInput(f"{buckets} buckets are not possible", hint=f"choose 2 to {BUCKETS_IN_ALL:,}, or omit it")
    number_of_buckets = buckets or default_buckets(len(runs))
    return read(project, lambda store: _histories(store, project, runs, names, number_of_buckets, x))


def _histories(store: Store, project: Project, runs: list[str], keys: list[str], buckets: int, x: Axis) -> Histories:
    known = {row[0] for row in store.rows(_of_runs(f"SELECT run_uuid FROM {store.relations['runs']}"), [json.dumps(runs)])}
    unknown = [run_id for run_id in runs if run_id not in known]
    if unknown:
        raise missing_runs(project, unknown)
    points = _points(store, runs, keys, x)
    series = [
        _series(run_id, key, sorted(points[run_id, key]), buckets) for run_id in runs for key in keys if (run_id, key) in points
    ]
    return Histories.model_construct(x=x, buckets=buckets, series=series, **store.marks)


def _of_runs(sql: str) -> str:
    return f"{sql} WHERE run_uuid IN (SELECT value FROM json_each(?))"


def _points(store: Store, runs: list[str], keys: list[str], x: Axis) -> dict[tuple[str, str], list[Point]]:
    """Read all points of the runs and keys.

    MLflow's table can be read by its primary key, which starts with the metric's key and finds the points of all runs, or by an
    index on the run, which finds the points of all keys. The one that reads fewer points is used.
    """
    table = store.relations["metrics"]
    values = [json.dumps(runs), json.dumps(keys)]
    of_runs = store.rows(f"SELECT count(*) FROM {table} WHERE run_uuid IN (SELECT value FROM json_each(?))", values[:1])[0][0]
    # Counted no further than needed. For equal numbers reading by key is faster: that index has all columns.
    sql = f"SELECT count(*) FROM (SELECT 1 FROM {table} WHERE key IN (SELECT value FROM json_each(?)) LIMIT ?)"
    by_key = store.rows(sql, [values[1], 2 * of_runs + 1])[0][0] <= 2 * of_runs
    run_column, key_column = ("+run_uuid", "key") if by_key else ("run_uuid", "+key")  # `+` keeps SQLite from using an index
    order = (
        "CAST(ifnull(step, 0) AS INTEGER), CAST(ifnull(timestamp, 0) AS INTEGER)"
        if x == "step"
        else "CAST(ifnull(timestamp, 0) AS INTEGER), CAST(ifnull(step, 0) AS INTEGER)"
    )
    sql = (
        f"SELECT run_uuid, key, {order}, ifnull(value + 0.0, 0.0), is_nan FROM {table} "
        f"WHERE {run_column} IN (SELECT value FROM json_each(?)) AND {key_column} IN (SELECT value FROM json_each(?))"
    )
    points: defaultdict[tuple[str, str], list[Point]] = defaultdict(list)
    for row in store.connection.execute(sql, values):
        points[row[:2]].append(row[2:])
    return points


def _series(run_id: str, key: str, points: list[Point], buckets: int) -> Series:
    if len(points) <= buckets:
        return Series.model_construct(
            run_id=run_id,
            key=key,
            points=len(points),
            exact=True,
            x=[point[0] for point in points],
            last=[number(point[2], point[3]) for point in points],
        )
    entries = [_entry(members) for members in _cut(points, buckets)]
    xs, last, low, high, count = (list(column) for column in zip(*entries, strict=True))
    return Series.model_construct(
        run_id=run_id, key=key, points=len(points), exact=False, x=xs, last=last, min=low, max=high, count=count
    )


def _cut(points: list[Point], buckets: int) -> list[list[Point]]:
    """Return the points, sorted by x, in buckets of equal width; empty ones are left out."""
    first = points[0][0]
    width = points[-1][0] - first + 1
    cut: dict[int, list[Point]] = {}
    for point in points:
        cut.setdefault((point[0] - first) * buckets // width, []).append(point)
    return list(cut.values())


def _entry(points: list[Point]) -> tuple[int, Cell, Cell, Cell, int]:
    last = points[-1]
    values = [value for _, _, value, is_nan in points if not is_nan]
    low, high = (min(values), max(values)) if values else (None, None)
    ends = (number(low), number(high)) if values else ("NaN", "NaN")
    return last[0], number(last[2], last[3]), *ends, len(points)

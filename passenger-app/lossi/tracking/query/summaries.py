"""Last, smallest and largest value of each metric of runs, with the steps at which they were reached."""

# ruff: noqa: S608  (statements contain only names from this package; values are always bound)
from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from lossi.tracking.query.models import MetricSummary
from lossi.tracking.query.store import Store
from lossi.tracking.query.values import number

Extremes = list[Any]
"""[points, smallest value, its first step, largest value, its first step] of one metric; the values start infinite."""
NONE: Extremes = [0, math.inf, None, -math.inf, None]


def summaries(store: Store, run_ids: Sequence[str]) -> dict[str, dict[str, MetricSummary]]:
    """Return run id → metric key (sorted) → summary, for the runs that have metrics.

    The last value is MLflow's: that of the highest step, then of the latest time, then the largest.
    """
    ids = json.dumps(list(run_ids))
    extremes = _extremes(store, ids)
    result: dict[str, dict[str, MetricSummary]] = {}
    sql = (
        f"SELECT run_uuid, key, value, CAST(ifnull(step, 0) AS INTEGER), is_nan FROM {store.relations['latest_metrics']} "
        "WHERE run_uuid IN (SELECT value FROM json_each(?)) ORDER BY key"
    )
    for run_id, key, value, step, is_nan in store.connection.execute(sql, [ids]):
        count, low, low_step, high, high_step = extremes.get((run_id, key), NONE)
        result.setdefault(run_id, {})[str(key)] = MetricSummary(
            last=number(value, is_nan),
            last_step=step,
            min=number(low) if low_step is not None else None,
            min_step=low_step,
            max=number(high) if high_step is not None else None,
            max_step=high_step,
            count=count,
        )
    return result


def _extremes(store: Store, ids: str) -> dict[tuple[str, str], Extremes]:
    # A foreign store may have other types where MLflow writes numbers: SQLite converts them.
    sql = (
        f"SELECT run_uuid, key, ifnull(value + 0.0, 0.0), CAST(ifnull(step, 0) AS INTEGER), is_nan FROM {store.relations['metrics']} "
        "WHERE run_uuid IN (SELECT value FROM json_each(?))"
    )
    extremes: dict[tuple[str, str], Extremes] = {}
    # This loop runs once per logged point, a million times for a hundred long runs.
    for run_id, key, value, step, is_nan in store.connection.execute(sql, [ids]):
        entry = extremes.get((run_id, key))
        if entry is None:
            entry = extremes[run_id, key] = NONE.copy()
        entry[0] += 1
        if is_nan:
            continue
        if value <= entry[1] and (value < entry[1] or entry[2] is None or step < entry[2]):
            entry[1], entry[2] = value, step
        if value >= entry[3] and (value > entry[3] or entry[4] is None or step < entry[4]):
            entry[3], entry[4] = value, step
    return extremes

"""How values of the store look outside: plain JSON types, never NaN or infinite floats, never bytes."""

from __future__ import annotations

import math

Cell = str | int | float | None
"""What one cell of an answer holds. A metric that is not a finite number is "NaN", "Infinity" or "-Infinity"."""

STORED_INFINITY = 1.7976931348623157e308
"""MLflow's SQL store writes ±inf as the greatest float (mlflow.store.tracking.sqlalchemy_store, sanitize_metric_value)."""


def number(value: object, is_nan: object = 0) -> Cell:
    """Return a stored metric value for an answer.

    Parameters
    ----------
    value, is_nan
        As in the columns of MLflow's tables `metrics` and `latest_metrics`, where NaN is the value 0 with `is_nan` set.
    """
    if is_nan:
        return "NaN"
    if type(value) is float:
        if -STORED_INFINITY < value < STORED_INFINITY:
            return value
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value if value is None or type(value) is int else text(value)


def text(value: object) -> str | None:
    """Return a stored text for an answer; a foreign store may hold other types where MLflow writes text."""
    if value is None or type(value) is str:
        return value
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def cell(value: object) -> Cell:
    """Return any stored value for an answer."""
    return number(value) if type(value) is float else value if type(value) is int else text(value)


def is_storable(value: object) -> bool:
    """Return whether SQLite can compare with this: text that is valid Unicode, or a number of 64 bits."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return False
        return True
    return isinstance(value, float) or (isinstance(value, int) and -(2**63) <= value < 2**63)

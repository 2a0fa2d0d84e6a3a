"""Values of the store as plain JSON types: never NaN or infinite floats, never bytes."""

from __future__ import annotations

import math

Cell = str | int | float | None
"""One cell of an answer. A metric that is not a finite number is "NaN", "Infinity" or "-Infinity"."""

STORED_INFINITY = 1.7976931348623157e308
"""MLflow's SQL store writes ±inf as the largest float (mlflow.store.tracking.sqlalchemy_store, sanitize_metric_value)."""


def number(value: object, is_nan: object = 0) -> Cell:
    """Return a metric value of MLflow's tables `metrics` and `latest_metrics`, where NaN is the value 0 with `is_nan` set."""
    if is_nan:
        return "NaN"
    if type(value) is float:
        if -STORED_INFINITY < value < STORED_INFINITY:
            return value
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value if value is None or type(value) is int else text(value)


def text(value: object) -> str | None:
    """Return a stored text; a foreign store may have other types where MLflow writes text."""
    if value is None or type(value) is str:
        return value
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def cell(value: object) -> Cell:
    """Return any stored value."""
    return number(value) if type(value) is float else value if type(value) is int else text(value)


def milliseconds(value: object) -> int | None:
    """Return a stored time; a foreign store may have something else there."""
    return value if type(value) is int else None


def is_storable(value: object) -> bool:
    """Return whether SQLite can compare with this: valid Unicode, or a 64-bit number."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return False
        return True
    return isinstance(value, float) or (isinstance(value, int) and -(2**63) <= value < 2**63)

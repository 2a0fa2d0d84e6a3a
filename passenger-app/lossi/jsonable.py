"""Convert anything that Lossi returns to JSON types, for the command line, REST and error documents."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any


def plain(data: Any) -> Any:
    """Return Pydantic models, records and paths as JSON types; NaN and infinities, which JSON lacks, as strings."""
    if isinstance(data, (str, int)) or data is None:  # the most frequent types
        return data
    if isinstance(data, dict):
        return {str(key): plain(value) for key, value in data.items()}
    if hasattr(data, "model_dump"):
        return plain(data.model_dump())
    if hasattr(data, "__dataclass_fields__"):
        return {name: plain(getattr(data, name)) for name in data.__dataclass_fields__}
    if isinstance(data, Mapping):
        return {str(key): plain(value) for key, value in data.items()}
    if isinstance(data, (list, tuple, set, frozenset)):
        return [plain(item) for item in data]
    if isinstance(data, float) and not math.isfinite(data):
        return "NaN" if math.isnan(data) else "Infinity" if data > 0 else "-Infinity"
    return data if isinstance(data, float) else str(data)


def from_text(text: str) -> Any:
    """Return the JSON value that ``text`` is, or else ``text`` itself: how untyped text becomes a parameter."""
    try:
        return json.loads(text)
    except ValueError:
        return text

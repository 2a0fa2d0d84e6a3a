"""What is answered is always valid JSON."""

from __future__ import annotations

import json
import math
from pathlib import Path

from pydantic import BaseModel

from lossi.contract.records import TaskError
from lossi.jsonable import plain


class Answer(BaseModel):
    value: float
    inside: dict[str, list[float]]


def test_numbers_that_json_lacks_become_words_wherever_they_are() -> None:
    answer = Answer(value=math.nan, inside={"x": [1.0, math.inf, -math.inf]})
    assert plain(answer) == {"value": "NaN", "inside": {"x": [1.0, "Infinity", "-Infinity"]}}
    json.dumps(plain(answer), allow_nan=False)


def test_records_paths_and_tuples_become_plain() -> None:
    data = {"error": TaskError("KeyError", "x"), "path": Path("/a"), "pair": (1, None), 3: True}
    assert plain(data) == {
        "error": {"name": "KeyError", "message": "x", "cell": None, "traceback": ""},
        "path": "/a",
        "pair": [1, None],
        "3": True,
    }

"""Sweeps: which combinations, in which order, how many."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
from typing import Any

import pytest
from hypothesis import given, strategies as st
from pydantic import TypeAdapter, ValidationError

from lossi.errors import InvalidInput
from lossi.jobs.submit.sweep import Sweep
from lossi.jsonable import from_text

VALUES = st.one_of(st.integers(), st.floats(allow_nan=False), st.booleans(), st.none(), st.text(max_size=8))
NAMES = st.from_regex(r"[a-z]{1,5}", fullmatch=True)


def sweep(data: dict[str, Any]) -> Any:
    return TypeAdapter(Sweep).validate_python(data)


def test_a_grid_combines_everything_and_the_last_parameter_changes_fastest() -> None:
    grid = sweep({"grid": {"a": [1, 2], "b": ["x", "y", "z"]}})
    assert grid.total() == 6
    assert list(grid.combinations()) == [{"a": a, "b": b} for a in (1, 2) for b in "xyz"]


@given(st.dictionaries(NAMES, st.lists(VALUES, min_size=1, max_size=4), min_size=1, max_size=4))
def test_a_grid_has_as_many_combinations_as_it_says_and_each_once(grid: dict[str, list[Any]]) -> None:
    rows = list(sweep({"grid": grid}).combinations())
    assert len(rows) == sweep({"grid": grid}).total() == math.prod(len(values) for values in grid.values())
    assert [tuple(row.values()) for row in rows] == list(itertools.product(*grid.values()))


@given(st.lists(st.dictionaries(NAMES, VALUES, max_size=4), min_size=1, max_size=10))
def test_a_list_is_kept_unchanged(rows: list[dict[str, Any]]) -> None:
    kept = sweep({"list": rows})
    assert list(kept.combinations()) == rows
    assert set(kept.names) == {name for row in rows for name in row}


@given(st.integers(0, 2**63 - 1), st.integers(1, 30))
def test_random_draws_repeat_with_their_seed_and_stay_in_their_ranges(seed: int, samples: int) -> None:
    definition = {
        "random": {
            "u": {"distribution": "uniform", "low": -1.0, "high": 1.0},
            "l": {"distribution": "loguniform", "low": 1e-4, "high": 1.0},
            "i": {"distribution": "int", "low": 1.0, "high": 3.0},
            "c": {"choice": ["a", None, 2]},
        },
        "samples": samples,
        "seed": seed,
    }
    first, second = list(sweep(definition).combinations()), list(sweep(definition).combinations())
    assert first == second
    assert len(first) == samples
    for row in first:
        assert -1 <= row["u"] <= 1
        assert 1e-4 <= row["l"] <= 1
        assert row["i"] in (1, 2, 3)
        assert type(row["i"]) is int
        assert row["c"] in ("a", None, 2)


def test_draws_are_the_same_on_every_machine() -> None:
    definition = {
        "random": {
            "lr": {"distribution": "loguniform", "low": 1e-4, "high": 1},
            "n": {"distribution": "int", "low": 1, "high": 9},
        }
    }
    drawn = list(sweep({**definition, "samples": 3, "seed": 7}).combinations())
    assert [row["n"] for row in drawn] == [5, 5, 2]
    assert [round(row["lr"], 9) for row in drawn] == [0.133714648, 0.017664997, 0.001063201]


def test_another_parameter_does_not_change_the_draws_of_the_others() -> None:
    alone_values = {"a": {"distribution": "uniform", "low": 0, "high": 1}}
    two = {**alone_values, "b": {"choice": [1, 2]}}
    alone = [row["a"] for row in sweep({"random": alone_values, "samples": 5}).combinations()]
    assert [row["a"] for row in sweep({"random": two, "samples": 5}).combinations()] == alone


def test_loguniform_draws_are_spread_over_the_orders_of_magnitude() -> None:
    drawn = [
        row["x"]
        for row in sweep(
            {"random": {"x": {"distribution": "loguniform", "low": 1e-4, "high": 1}}, "samples": 4000}
        ).combinations()
    ]
    for low in (1e-4, 1e-3, 1e-2, 1e-1):
        assert 800 < sum(low <= value < low * 10 for value in drawn) < 1200


@given(st.lists(st.lists(st.text(max_size=6), min_size=2, max_size=2), min_size=1, max_size=5))
def test_a_csv_table_keeps_every_field(rows: list[list[str]]) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows([["a", "b"], *rows])
    assert [list(row.values()) for row in sweep({"csv": text.getvalue()}).combinations()] == rows


@pytest.mark.parametrize(
    ("text", "says"),
    [("a,b\n1\n", "row 2 .* has 1 fields instead of 2"), ("a\n", "no combinations"), ("a,a\n1,2\n", "repeated name"), ("a,\n1,2\n", "empty"),
     ('a\n"1\n', "cannot read")],
)  # fmt: skip
def test_a_csv_table_that_is_wrong_says_where(text: str, says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        sweep({"csv": text}).total()


def test_a_csv_table_may_have_a_byte_order_mark_blank_lines_and_a_large_field() -> None:
    large = "x" * 1_000_000
    assert list(sweep({"csv": f"\ufeffa,b\r\n\r\n1,{large}\r\n"}).combinations()) == [{"a": "1", "b": large}]


@pytest.mark.parametrize(
    "wrong",
    [{}, {"gird": {"a": [1]}}, {"grid": {}}, {"grid": {"a": []}}, {"grid": {"a": 1}}, {"list": []}, {"list": [1]}, {"csv": ""},
     {"grid": {"a": [1]}, "seed": 1},
     {"random": {"a": {"distribution": "uniform", "low": 2, "high": 1}}},
     {"random": {"a": {"distribution": "loguniform", "low": 0, "high": 1}}},
     {"random": {"a": {"distribution": "int", "low": 0.5, "high": 1}}},
     {"random": {"a": {"distribution": "uniform", "low": -1.7e308, "high": 1.7e308}}},
     {"random": {"a": {"distribution": "uniform", "low": 0, "high": math.inf}}},
     {"random": {"a": {"distribution": "normal", "low": 0, "high": 1}}},
     {"random": {"a": {"choice": []}}}, {"random": {"a": {"choice": [1]}}, "samples": 0}],
)  # fmt: skip
def test_an_invalid_sweep_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        sweep(wrong)


def test_ten_thousand_combinations_are_made() -> None:
    rows = list(sweep({"grid": {"a": list(range(100)), "b": list(range(100))}}).combinations())
    assert len(rows) == 10_000


def test_a_huge_grid_is_counted_without_being_expanded() -> None:
    assert sweep({"grid": {name: list(range(1000)) for name in "abcd"}}).total() == 10**12


@given(VALUES)
def test_text_that_is_json_is_that_value_and_other_text_is_itself(value: Any) -> None:
    assert from_text(json.dumps(value)) == value
    assert from_text("not json " + json.dumps(value)) == "not json " + json.dumps(value)

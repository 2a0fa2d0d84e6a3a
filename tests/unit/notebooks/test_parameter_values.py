from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, strategies as st

from lossi import notebooks
from lossi.errors import InvalidInput, NotSupported

CELL = "lr = 0.1\nepochs = 3\nname = 'a'\nverbose = False\nlayers = [1]\noptions = {}\nthing = None\ncomputed = 1 + 1\nmaybe: int | None = None"


@pytest.fixture
def declared(notebook: Any) -> notebooks.Parameters:
    return notebooks.parameters(notebooks.read(notebook((CELL, "parameters"))))


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("lr", "1", 1.0), ("lr", "1e-3", 0.001), ("lr", "-inf", -math.inf), ("lr", " 0.5 ", 0.5),
        ("epochs", "3", 3), ("epochs", "-3", -3),
        ("name", "3", "3"), ("name", "", ""), ("name", " null ", " null "), ("name", "$(rm -rf /)`\"'\n\x85\u2028é漢", "$(rm -rf /)`\"'\n\x85\u2028é漢"),
        ("verbose", "true", True), ("verbose", "False", False), ("verbose", "1", True), ("verbose", "off", False),
        ("layers", "[1, 2.5, \"a\"]", [1, 2.5, "a"]), ("options", '{"a": [null]}', {"a": [None]}),
        ("thing", "3", 3), ("thing", "abc", "abc"), ("thing", "None", None), ("thing", "True", True), ("thing", '"3"', "3"),
        ("computed", "[1]", [1]), ("maybe", "none", None), ("maybe", "4", 4),
    ],
)  # fmt: skip
def test_text_is_converted_to_the_parameters_type(declared: notebooks.Parameters, name: str, text: str, value: Any) -> None:
    checked = notebooks.check_values(declared, {name: text}, from_text=True)
    assert checked == {name: value}
    assert type(checked[name]) is type(value)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("lr", "fast"), ("lr", ""), ("epochs", "1.5"), ("epochs", "1e3"), ("epochs", "9" * 5000), ("verbose", "maybe"),
        ("layers", "1,2"), ("layers", '{"a": 1}'), ("layers", "['a']"), ("options", "[1]"), ("options", "{a: 1}"),
        ("epochs", "none"), ("layers", "[" * 100_000),
    ],
)  # fmt: skip
def test_text_of_the_wrong_type_is_refused(declared: notebooks.Parameters, name: str, text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        notebooks.check_values(declared, {name: text}, from_text=True)
    assert repr(name) in caught.value.what
    assert caught.value.hint
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("name", "value", "result"),
    [
        ("lr", 1, 1.0), ("lr", "NaN", math.nan), ("lr", "-Infinity", -math.inf), ("lr", 10**400, 10**400),
        ("epochs", 3.0, 3), ("layers", (1, 2), [1, 2]), ("thing", {"a": [1, None]}, {"a": [1, None]}), ("maybe", None, None),
        ("computed", None, None), ("name", "x" * 1_000_000, "x" * 1_000_000),
    ],
)  # fmt: skip
def test_json_values_of_the_right_type(declared: notebooks.Parameters, name: str, value: Any, result: Any) -> None:
    checked = notebooks.check_values(declared, {name: value})[name]
    assert type(checked) is type(result)
    assert checked == result or (checked != checked and result != result)


@pytest.mark.parametrize(
    ("name", "value", "hint"),
    [
        ("lr", "0.1", "lr="), ("lr", True, "lr="), ("lr", None, "lr="), ("epochs", 2.5, "epochs: float"), ("epochs", "3", "epochs: float"),
        ("epochs", True, ""), ("name", 3, "in quotes"), ("name", None, "in quotes"), ("verbose", 1, "true or false"), ("verbose", "true", ""),
        ("layers", {}, "[1, 2]"), ("options", [], '{"a": 1}'), ("thing", object(), ""), ("thing", {1: 2}, ""), ("layers", [object()], ""),
    ],
)  # fmt: skip
def test_json_values_of_the_wrong_type(declared: notebooks.Parameters, name: str, value: Any, hint: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        notebooks.check_values(declared, {name: value})
    assert repr(name) in caught.value.what
    assert hint in caught.value.hint
    assert caught.value.details["parameter"] == name


def test_misspelt_name_gets_a_suggestion(declared: notebooks.Parameters) -> None:
    with pytest.raises(InvalidInput, match="no parameter 'epoch'") as caught:
        notebooks.check_values(declared, {"epoch": 3})
    assert caught.value.hint == "did you mean 'epochs'?"


def test_unknown_name_lists_the_parameters(declared: notebooks.Parameters) -> None:
    with pytest.raises(InvalidInput) as caught:
        notebooks.check_values(declared, {"zzzz": 3})
    assert "lr, epochs" in caught.value.hint


@pytest.mark.parametrize("name", ["a b", "x;y", "__import__('os')", "", "1x", "x" * 1_000_000, "ä-b\n"])
def test_names_that_are_not_identifiers(declared: notebooks.Parameters, name: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        notebooks.check_values(declared, {name: 1})
    assert len(str(caught.value)) < 700


def test_missing_required_parameter(notebook: Any) -> None:
    declared = notebooks.parameters(notebooks.read(notebook(("data: str  # which\nlr = 0.1", "parameters"))))
    with pytest.raises(InvalidInput, match="'data' is missing"):
        notebooks.check_values(declared, {"lr": 0.2})
    assert notebooks.check_values(declared, {"data": "x"}) == {"data": "x"}


def test_values_without_a_tagged_cell_say_how_to_tag_one(notebook: Any) -> None:
    declared = notebooks.parameters(notebooks.read(notebook("lr = 0.1")))
    assert notebooks.check_values(declared, {}) == {}
    with pytest.raises(InvalidInput) as caught:
        notebooks.check_values(declared, {"lr": 0.2})
    assert "no cell is tagged" in caught.value.why
    assert "Property Inspector" in caught.value.hint


def test_values_for_a_julia_notebook_are_refused(notebook: Any) -> None:
    declared = notebooks.parameters(notebooks.read(notebook(("x = 1", "parameters"), language="julia")))
    assert notebooks.check_values(declared, {}) == {}
    with pytest.raises(NotSupported) as caught:
        notebooks.check_values(declared, {"x": "$(run(`id`))"})
    assert "Julia" in caught.value.why


@pytest.mark.parametrize("value", ["a\0b", "\ud800", ["a\0"], {"k\0": 1}, 2**60, [[2**60]]])
def test_values_that_r_cannot_represent_are_refused_before_submission(notebook: Any, value: Any) -> None:
    declared = notebooks.parameters(notebooks.read(notebook(("my.x <- NULL", "parameters"), language="r")))
    assert notebooks.check_values(declared, {"my.x": "é\u2028"}) == {"my.x": "é\u2028"}
    with pytest.raises(InvalidInput, match="cannot be passed to R"):
        notebooks.check_values(declared, {"my.x": value})


@given(value=st.floats() | st.integers())
def test_a_number_written_as_text_is_the_same_number(value: float) -> None:
    item = notebooks.Parameter("x", "float" if isinstance(value, float) else "int")
    declared = notebooks.Parameters("python", 0, (item,))
    checked = notebooks.check_values(declared, {"x": repr(value)}, from_text=True)["x"]
    assert checked == value or checked != checked


def test_ten_thousand_combinations_are_checked(declared: notebooks.Parameters) -> None:
    for number in range(10_000):
        values = {"lr": 0.1, "epochs": number, "name": "x", "layers": [1, 2]}
        assert notebooks.check_values(declared, values) == values

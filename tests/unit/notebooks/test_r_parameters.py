from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, strategies as st

from lossi import notebooks
from lossi.notebooks import r_parameters
from lossi.runner import r_translator


@pytest.mark.parametrize(
    ("line", "kind", "default", "comment"),
    [
        ("x <- 5L", "int", 5, ""),
        ("x <- -5L  # below", "int", -5, "below"),
        ("x = 0.1 # rate", "float", 0.1, "rate"),
        ("x <- 10", "float", 10.0, ""),
        ("x <- 1e-3; y <- 2", "float", 0.001, ""),
        ("x <- 0xFFL", "int", 255, ""),
        ("x <- .5", "float", 0.5, ""),
        ("x <- Inf", "float", math.inf, ""),
        ("x <- -Inf", "float", -math.inf, ""),
        ("x <- TRUE", "bool", True, ""),
        ("x <- F  # off", "bool", False, "off"),
        ("x <- NULL", "none", None, ""),
        ("x <- NA", "none", None, ""),
        ("x <- NA_integer_", "int", None, ""),
        ("x <- 'a # \"b\"'  # text", "str", 'a # "b"', "text"),
        ('x <- "tab\\t\\u00e9\\U{1f600}\\x41"', "str", "tab\té😀A", ""),
        ('x <- r"(C:\\new)"', "str", "C:\\new", ""),
        ("x <- c(1, 2.5)", "list", [1.0, 2.5], ""),
        ("x <- c(1L, NA)", "list", [1, None], ""),
        ("x <- c('a', \"b\")", "list", ["a", "b"], ""),
        ("x <- c(a = 1, `b c` = 2)", "dict", {"a": 1.0, "b c": 2.0}, ""),
        ("x <- list()", "list", [], ""),
        ("x <- character(0)", "list", [], ""),
        ("x <- list(1L, 'a', list(b = TRUE))", "list", [1, "a", {"b": True}], ""),
        ("x <- list('a b' = 1)", "dict", {"a b": 1.0}, ""),
        ("x <-\n  5L", "int", 5, ""),
        ("x <- c(1,  # first\n  2)  # both", "list", [1.0, 2.0], "both"),
        ("x <- 1 + 2  # sum", "any", None, "sum"),
        ("x <- seq(1, 10)", "any", None, ""),
        ("x <- 1:10", "any", None, ""),
        ("x <- c(1, 'a')", "any", None, ""),
        ("x <- list(1, b = 2)", "any", None, ""),
        ("x <- function(a = 1) a", "any", None, ""),
        ('x <- "bad \\q"', "any", None, ""),
    ],
)
def test_one_assignment(line: str, kind: str, default: Any, comment: str) -> None:
    item = r_parameters.read(line)[0][0]
    assert (item.name, item.type, item.default, item.comment) == ("x", kind, default, comment)
    assert type(item.default) is type(default)


def test_names_order_and_statements_that_are_not_parameters() -> None:
    source = "library(ggplot2)\n.hidden <- 1\nlearning.rate <- 0.1\nf(x = 3)\nif (TRUE) {\n  y <- 1\n}\n`odd name` <- 2\nif_ok <- 3\nTRUE -> z\na == b\n# c <- 4\nlearning.rate <- 0.2"
    assert [item.name for item in r_parameters.read(source)[0]] == [".hidden", "learning.rate", "if_ok"]
    assert r_parameters.read(source)[0][1].default == 0.2


def test_hostile_cells_are_read_quickly() -> None:
    for source in (
        "x <- " + "c(" * 5000,
        "x <- " + "-" * 50_000 + "1",
        'x <- "',
        'x <- r"---(',
        "`",
        "x <- c(,)",
        "x <- c(1",
        "x <- '\\u{110000}'",
        "x <- c(1 2)",
    ):
        assert all(item.type == "any" for item in r_parameters.read(source)[0])


def test_r_notebook(notebook: Any) -> None:
    parameters = notebooks.parameters(notebooks.read(notebook(("lr <- 0.1  # rate", "parameters"), language="r")))
    assert parameters.language == "r"
    assert parameters.parameters[0].comment == "rate"


TEXT = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"))
PLAIN = st.recursive(
    st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, min_size=2, max_size=4),
    max_leaves=8,
)


@given(value=PLAIN)
def test_values_written_by_the_runner_for_r_are_read_back(value: Any) -> None:
    """Two independent pieces: the translator of the runner and the reader here agree on R's literals."""
    code = r_translator.assignments({"x": value})
    item = r_parameters.read(code)[0][0]
    if "paste0(" not in code:
        assert _same(item.default, value)


def _same(read: Any, written: Any) -> bool:
    if isinstance(written, list):
        return isinstance(read, list) and len(read) == len(written) and all(map(_same, read, written))
    if isinstance(written, (int, float)) and not isinstance(written, bool):
        return not isinstance(read, bool) and isinstance(read, (int, float)) and float(read) == float(written)
    return type(read) is type(written) and read == written

"""Values as R code, checked as text; test_r_for_real.py asks R itself."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from lossi.runner import r_translator


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (None, "NULL"), (True, "TRUE"), (False, "FALSE"), (3, "3L"), (-3, "-3L"), (2**31, "2147483648"), (0.1, "0.1"), (5.0, "5.0"),
        (1e-5, "1e-05"), (math.nan, "NaN"), (math.inf, "Inf"), (-math.inf, "-Inf"), ("a'b", '"a\'b"'), ('a"b\\', '"a\\"b\\\\"'),
        ("\n\x85", '"\\u{a}\\u{85}"'), ("é😀", '"\\u{e9}\\U{1f600}"'), ([], "list()"), ([1, 2], "c(1L, 2L)"), ([1, 2.5], "c(1.0, 2.5)"),
        ([1, None], "c(1L, NA_integer_)"), ([1.5, None], "c(1.5, NA_real_)"), (["a", None], 'c("a", NA_character_)'), ([True, None], "c(TRUE, NA)"),
        ([1, "a"], 'list(1L, "a")'), ([[1], [2]], "list(c(1L), c(2L))"), ([None, None], "list(NULL, NULL)"), ([True, 1], "list(TRUE, 1L)"),
        ({}, "structure(list(), names = character(0))"), ({"a b": 1}, 'structure(list(1L), names = c("a b"))'),
        ({"": None}, 'structure(list(NULL), names = c(""))'),
    ],
)  # fmt: skip
def test_values_as_code(value: Any, code: str) -> None:
    assert r_translator.assignments({"x": value}) == f"x <- {code}\n"


@pytest.mark.parametrize("name", ["", "1x", "_x", "a b", "x;y", "x\n", "if", "TRUE", "NA_real_", ".1x", "`x`", "x<-1;y"])
def test_names_that_r_cannot_assign(name: str) -> None:
    with pytest.raises(ValueError, match="not a name of an R variable"):
        r_translator.assignments({name: 1})


@pytest.mark.parametrize("name", ["x", "learning.rate", ".x", "x_1", "größe", "If"])
def test_names_that_r_can_assign(name: str) -> None:
    assert r_translator.assignments({name: 1}) == f"{name} <- 1L\n"


@pytest.mark.parametrize("value", ["\0", "\ud800", 2**53 + 1, -(10**400), object(), {1: 2}, [["\0"]], {"\0": 1}, b"x"])
def test_values_that_r_cannot_represent_are_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="parameter 'x'"):
        r_translator.assignments({"x": value})


@given(text=st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0")))
def test_no_text_can_end_its_literal(text: str) -> None:
    code = r_translator.literal(text)
    assert code.isascii()
    assert all(character.isprintable() for line in code.split("\n") for character in line)
    for line in code.split("\n"):
        if line.startswith('"'):
            inside = line.rstrip(",")[1:-1].replace("\\\\", "").replace('\\"', "")
            assert '"' not in inside
            assert not inside.endswith("\\")
        assert len(line) < 500


def test_registering_replaces_papermills_translator() -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from lossi.runner import r_translator; assert 'papermill' not in sys.modules;"
        "assert r_translator.register(); from papermill.translators import translate_parameters as t;"
        "print([t(kernel, language, {'x': float('nan')}, 'a\\nb') for kernel, language in (('ir', 'R'), ('mine', 'R'), ('mine', 'r'))])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(Path(r_translator.__file__).parents[2])], capture_output=True, text=True, timeout=300
    )
    assert done.stdout == repr(["# a b\nx <- NaN\n"] * 3) + "\n", done.stderr


def test_translator_needs_only_the_standard_library_of_python_3_9() -> None:
    import ast
    import inspect

    from lossi.contract import text as names

    for module in (r_translator, names):
        tree = ast.parse(inspect.getsource(module), feature_version=(3, 9))
        imported = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
        imported |= {str(node.module) for node in tree.body if isinstance(node, ast.ImportFrom)}
        assert imported <= set(sys.stdlib_module_names) | {"__future__", "contract.text"}

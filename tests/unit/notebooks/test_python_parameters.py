from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, strategies as st

from lossi import notebooks
from lossi.notebooks import python_parameters


def read(source: str) -> dict[str, notebooks.Parameter]:
    return {item.name: item for item in python_parameters.read(source)[0]}


@pytest.mark.parametrize(
    ("line", "kind", "default", "comment"),
    [
        ("x = 3", "int", 3, ""),
        ("x = -3  # below zero", "int", -3, "below zero"),
        ("x = +1_000", "int", 1000, ""),
        ("x = 0.1", "float", 0.1, ""),
        ("x = -1e-3  # rate", "float", -0.001, "rate"),
        ("x = 'a # b'  # real comment", "str", "a # b", "real comment"),
        ('x = "a" "b"', "str", "ab", ""),
        ('x = r"a\\n"', "str", "a\\n", ""),
        ("x = True", "bool", True, ""),
        ("x = None  # nothing", "none", None, "nothing"),
        ("x = [1, 'a', None]", "list", [1, "a", None], ""),
        ("x = (1, 2)", "list", [1, 2], ""),
        ("x = {'a': [1, {'b': -2.5}]}", "dict", {"a": [1, {"b": -2.5}]}, ""),
        ("x = []", "list", [], ""),
        ("x = dict()", "dict", {}, ""),
        ("x: float = 1  # learning rate", "float", 1.0, "learning rate"),
        ("x: 'float' = 1", "float", 1.0, ""),
        ("x: int | None = None", "int", None, ""),
        ("x: Optional[str] = None", "str", None, ""),
        ("x: typing.Union[int, float] = 2", "float", 2.0, ""),
        ("x: list[int] = []", "list", [], ""),
        ("x: typing.Dict[str, int] = {}", "dict", {}, ""),
        ("x: Literal['a', 'b'] = 'a'  # which", "str", "a", "which"),
        ("x: Any = 3", "any", 3, ""),
        ("x: np.ndarray = 3", "int", 3, ""),
        ("x = 3  # type: float how much", "float", 3.0, "how much"),
        ("x = 2 * 3  # computed", "any", None, "computed"),
        ("x = os.environ['HOME']", "any", None, ""),
        ("x: str = Path('a') / 'b'", "str", None, ""),
        ("x = {1: 'a'}", "any", None, ""),
        ("x = {1, 2}", "any", None, ""),
        ("x = b'bytes'", "any", None, ""),
        ("x = f'{y}'", "any", None, ""),
        ("x = 1j", "any", None, ""),
        ("x = not True", "any", None, ""),
        ("x = lambda: 0", "any", None, ""),
    ],
)
def test_one_assignment(line: str, kind: str, default: Any, comment: str) -> None:
    (item,) = python_parameters.read(line)[0]
    assert (item.name, item.type, item.default, item.comment) == ("x", kind, default, comment)
    assert type(item.default) is type(default)
    assert item.source == line.split("=", 1)[1].split("  #")[0].strip()


@pytest.mark.parametrize("text", ["float('nan')", "math.nan", "np.nan", 'float("NaN")'])
def test_nan_is_a_float(text: str) -> None:
    item = read(f"x = {text}")["x"]
    assert item.type == "float"
    assert math.isnan(item.default)


@pytest.mark.parametrize(
    ("text", "value"), [("float('-inf')", -math.inf), ("-math.inf", -math.inf), ("np.inf", math.inf), ("1e999", math.inf)]
)
def test_infinities_are_floats(text: str, value: float) -> None:
    assert read(f"x = {text}")["x"].default == value


def test_values_over_several_lines_keep_source_and_comment() -> None:
    source = 'a = 1\nlayers = [\n    64,  # first\n    32,\n]  # sizes\ntext = """one\n# no comment\ntwo"""\nd = {  # options\n    "é": 1,\n}\n'
    parameters = read(source)
    assert parameters["layers"].default == [64, 32]
    assert parameters["layers"].comment == "sizes"
    assert parameters["layers"].source == "[\n    64,  # first\n    32,\n]"
    assert (parameters["text"].default, parameters["text"].comment) == ("one\n# no comment\ntwo", "")
    assert (parameters["d"].default, parameters["d"].comment) == ({"é": 1}, "options")


def test_several_targets_and_order() -> None:
    parameters = read("a = b = 1; c = 'x'  # last\n(d, e) = 2, [3]\na = 4\nf, *g = 1, 2\nh.i = 5\nj[0] = 6\n__k = 7")
    assert list(parameters) == ["a", "b", "c", "d", "e"]
    assert [item.default for item in parameters.values()] == [4, 1, "x", 2, [3]]
    assert parameters["c"].comment == "last"


def test_declared_without_default_is_required() -> None:
    parameters = read("lr: float  # must be given\nanything: Any\nmaybe: int | None")
    assert parameters["lr"].required
    assert (parameters["lr"].type, parameters["lr"].comment, parameters["lr"].optional) == ("float", "must be given", False)
    assert parameters["maybe"].optional


def test_only_the_top_level_counts() -> None:
    assert list(read("import os\nif True:\n    a = 1\nfor i in []: b = 2\ndef f():\n    c = 3\nd = 4\nd += 1")) == ["d"]


@pytest.mark.parametrize(
    "magic",
    [
        "%matplotlib inline",
        "!pip install 'it",
        "%%time",
        "x?",
        "?x",
        "files = !ls",
        "%env A=b\\\n  c",
        "pip install foo",
        "t = %timeit -o 1",
    ],
)
def test_magics_do_not_break_the_cell(magic: str) -> None:
    parameters = read(f"{magic}\nlr = 0.1  # rate\nname = '''\n%no magic\n'''\nn = (1\n%2)\n")
    assert parameters["lr"].comment == "rate"
    assert parameters["name"].default == "\n%no magic\n"
    assert parameters["n"].source == "(1\n%2)".strip("()")


def test_cell_in_another_language_has_no_parameters() -> None:
    assert read("%%bash\nlr=0.1") == {}


def test_invalid_line_becomes_a_note_and_the_others_count() -> None:
    parameters, notes = python_parameters.read("lr = 0.1\nn = = 3\nif x:\n    y = (\nz = 1  # after")
    assert [item.name for item in parameters][0] == "lr"
    assert "line 2" in notes[0]
    assert "cannot be parsed" in notes[0]


def test_hostile_cells_are_read_quickly() -> None:
    for source in (
        "x = " + "(" * 5000,
        "x = " + "-" * 50_000 + "1",
        "x = 9**9**9**9",
        "x = '\0'",
        "x = " + "[" * 90 + "]" * 90,
        "\ud800 = 1",
    ):
        python_parameters.read(source)


def test_first_tagged_cell_counts_and_the_others_are_noted(notebook: Any) -> None:
    content = notebook("a = 0", ("b = 1", ["parameters", "x"]), ("c = 2", "parameters"), ("b = 3", "injected-parameters"))
    parameters = notebooks.parameters(notebooks.read(content))
    assert parameters.cell_index == 1
    assert [item.name for item in parameters.parameters] == ["b"]
    assert any("only the first" in note and "not 3" in note for note in parameters.notes)
    assert any("injected-parameters" in note for note in parameters.notes)


def test_other_languages_are_noted_and_julia_is_named(notebook: Any) -> None:
    parameters = notebooks.parameters(notebooks.read(notebook(("x = 1", "parameters"), language="julia")))
    assert parameters.parameters == ()
    assert "Julia" in parameters.notes[-1]
    parameters = notebooks.parameters(notebooks.read(notebook(("let x", "parameters"), language=None)))
    assert "unknown" in parameters.notes[-1]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(value=JSON, comment=st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF)))
def test_every_literal_is_read_as_its_value(value: Any, comment: str) -> None:
    comment = "".join(character for character in comment if character.isprintable()).strip("# ")
    if comment.startswith("type:"):
        return
    item = read(f"before = 1\nx = {value!r}  # {comment}\nafter = 2")["x"]
    assert json.dumps(item.default) == json.dumps(value)
    assert item.source == repr(value)
    assert item.comment == comment

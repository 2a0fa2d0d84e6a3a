"""Read a Python notebook's parameters from the syntax tree of the tagged cell. Runs no code."""

from __future__ import annotations

import ast
import math
import re
import warnings
from collections.abc import Iterator
from typing import Any

from lossi.notebooks import ipython
from lossi.notebooks.parameter import NotPlain, Parameter, type_of

_ANNOTATIONS = {
    "int": "int", "float": "float", "str": "str", "bool": "bool", "list": "list", "dict": "dict", "List": "list", "Dict": "dict",
    "Sequence": "list", "tuple": "list", "Tuple": "list", "Mapping": "dict", "None": "none",
}  # fmt: skip
_CONSTANTS = {"nan": math.nan, "NaN": math.nan, "NAN": math.nan, "inf": math.inf, "Inf": math.inf, "infty": math.inf}
_NUMERIC_MODULES = frozenset(("math", "np", "numpy", "torch"))
_TYPE_COMMENT = re.compile(r"type:\s*(?P<type>\S+)\s*(?P<rest>.*)")


def read(source: str) -> tuple[tuple[Parameter, ...], tuple[str, ...]]:
    """Return the parameters that a cell assigns, in order, and notes on lines that could not be parsed.

    Parameters are assignments at the cell's top level: ``name = value``, ``name: type = value``, ``a = b = value``,
    ``a, b = 1, 2`` and, without a default, ``name: type``. The last assignment of a name wins. Names that start with two
    underscores are ignored.
    """
    parameters: dict[str, Parameter] = {}
    notes: list[str] = []
    for first, text in _parts(ipython.masked(source)):
        try:
            tree = _tree(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            line = first + (error.lineno or 1) if isinstance(error, SyntaxError) else first + 1
            reason = error.msg if isinstance(error, SyntaxError) else "too deeply nested, or not text"
            notes.append(f"line {line} of the parameters cell cannot be parsed: {reason}")
            continue
        lines = text.split("\n")
        for statement in tree.body:
            for item in _assigned(statement, lines):
                if not item.name.startswith("__"):
                    parameters[item.name] = item
    return tuple(parameters.values()), tuple(notes)


def _parts(text: str) -> Iterator[tuple[int, str]]:
    """Yield (number of lines before, text): the whole cell, or its statements if the whole does not parse."""
    try:
        _tree(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        block: list[str] = []
        first = 0
        for line in ipython.logical_lines(text):
            if line.text.strip() and not line.indent and block:
                yield first, "\n".join(block)
                block, first = [], line.first
            block += line.lines
        if block:
            yield first, "\n".join(block)
        return
    yield 0, text


def _tree(text: str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(text)


def _assigned(statement: ast.stmt, lines: list[str]) -> Iterator[Parameter]:
    if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
        comment = _comment(statement, lines)[1]
        annotation = _from_annotation(statement.annotation)
        yield _parameter(statement.target.id, annotation, statement.value, comment, lines)
    elif isinstance(statement, ast.Assign):
        annotation, comment = _comment(statement, lines)
        for target in statement.targets:
            for name, value in _pairs(target, statement.value):
                yield _parameter(name, annotation, value, comment, lines)


def _pairs(target: ast.expr, value: ast.expr) -> Iterator[tuple[str, ast.expr]]:
    if isinstance(target, ast.Name):
        yield target.id, value
    elif (
        isinstance(target, (ast.Tuple, ast.List))
        and isinstance(value, (ast.Tuple, ast.List))
        and len(target.elts) == len(value.elts)
        and not any(isinstance(item, ast.Starred) for item in (*target.elts, *value.elts))
    ):
        for element, its_value in zip(target.elts, value.elts, strict=True):
            yield from _pairs(element, its_value)


def _parameter(
    name: str, annotation: tuple[str | None, bool], value: ast.expr | None, comment: str, lines: list[str]
) -> Parameter:
    declared, optional = annotation
    if value is None:
        return Parameter(
            name, declared or "any", comment=comment, required=True, optional=optional or declared in (None, "any", "none")
        )
    source = _segment(value, lines)
    try:
        default = _plain(value)
    except (NotPlain, RecursionError):
        return Parameter(name, declared or "any", None, source, comment, optional=optional or declared in (None, "any"))
    kind = declared or type_of(default)
    if kind == "float" and type(default) is int and abs(default) <= 2**53:
        default = float(default)
    return Parameter(name, kind, default, source, comment, optional=optional or default is None or kind == "any")


def _plain(node: ast.expr) -> Any:
    """Return a literal as JSON types, or raise NotPlain."""
    if isinstance(node, ast.Constant) and (node.value is None or isinstance(node.value, (bool, int, float, str))):
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
        number = _plain(node.operand)
        if type(number) in (int, float):
            return -number if isinstance(node.op, ast.USub) else number
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_plain(item) for item in node.elts]
    if isinstance(node, ast.Dict):
        return {_key(key): _plain(value) for key, value in zip(node.keys, node.values, strict=True)}
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in _NUMERIC_MODULES:
        if node.attr in _CONSTANTS:
            return _CONSTANTS[node.attr]
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        return _called(node.func.id, node.args)
    raise NotPlain


def _key(node: ast.expr | None) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    raise NotPlain


def _called(function: str, arguments: list[ast.expr]) -> Any:
    """Return the value of a call such as ``float("nan")``."""
    if function in ("list", "tuple", "dict") and not arguments:
        return {} if function == "dict" else []
    if function == "float" and len(arguments) == 1 and isinstance(arguments[0], ast.Constant):
        try:
            return float(arguments[0].value)  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError):
            pass
    raise NotPlain


def _from_annotation(node: ast.expr) -> tuple[str | None, bool]:
    """Return the type that an annotation names (None: none of ours) and whether None is allowed."""
    if isinstance(node, ast.Constant):
        if node.value is None:
            return "none", True
        return _from_text(node.value) if isinstance(node.value, str) else (None, False)
    if isinstance(node, ast.Name):
        return ("any", True) if node.id in ("Any", "object") else (_ANNOTATIONS.get(node.id), False)
    if isinstance(node, ast.Attribute):
        return ("any", True) if node.attr == "Any" else (_ANNOTATIONS.get(node.attr), False)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _union([_from_annotation(node.left), _from_annotation(node.right)])
    if isinstance(node, ast.Subscript):
        return _from_subscript(node)
    return None, False


def _from_subscript(node: ast.Subscript) -> tuple[str | None, bool]:
    base = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
    members = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    if base == "Optional":
        return _from_annotation(members[0])[0], True
    if base == "Union":
        return _union([_from_annotation(member) for member in members])
    if base in ("Annotated", "Final"):
        return _from_annotation(members[0])
    if base == "Literal":
        constants = [member.value for member in members if isinstance(member, ast.Constant)]
        return _union([(type_of(value), value is None) for value in constants])
    return _ANNOTATIONS.get(base), False


def _union(members: list[tuple[str | None, bool]]) -> tuple[str | None, bool]:
    optional = any(member[1] or member[0] == "none" for member in members)
    kinds = {member[0] for member in members} - {"none"}
    if kinds == {"int", "float"}:
        return "float", optional
    return (kinds.pop() if len(kinds) == 1 else "any" if kinds else "none"), optional


def _from_text(annotation: str) -> tuple[str | None, bool]:
    try:
        return _from_annotation(ast.parse(annotation.strip(), mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None, False


def _comment(statement: ast.stmt, lines: list[str]) -> tuple[tuple[str | None, bool], str]:
    """Return (type of a type comment, comment) after a statement, or after the bracket that ends its first line."""
    rest = _behind(lines[_row(statement.end_lineno)], statement.end_col_offset or 0).lstrip(" \t;").rstrip()
    if not rest.startswith("#") and statement.end_lineno != statement.lineno:
        opened = re.search(r"[\[({]\s*(#.*)", lines[_row(statement.lineno)])
        rest = opened[1] if opened else ""
    text = rest.lstrip("#").strip() if rest.startswith("#") else ""
    typed = _TYPE_COMMENT.fullmatch(text)
    if typed:
        return _from_text(typed["type"]), typed["rest"].lstrip("#").strip()
    return (None, False), text


def _segment(node: ast.expr, lines: list[str]) -> str:
    """Return the source of a node; columns of the syntax tree count UTF-8 bytes."""
    first, last = _row(node.lineno), _row(node.end_lineno)
    if first == last:
        return (
            lines[first].encode("utf-8", "surrogatepass")[node.col_offset : node.end_col_offset].decode("utf-8", "surrogatepass")
        )
    head = _behind(lines[first], node.col_offset)
    tail = lines[last].encode("utf-8", "surrogatepass")[: node.end_col_offset].decode("utf-8", "surrogatepass")
    return "\n".join((head, *lines[first + 1 : last], tail))


def _behind(line: str, column: int) -> str:
    return line.encode("utf-8", "surrogatepass")[column:].decode("utf-8", "surrogatepass")


def _row(number: int | None) -> int:
    return (number or 1) - 1

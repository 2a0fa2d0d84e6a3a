"""Read an R notebook's parameters with a parser of assignments and literals. Runs no code and does not need R.

Literals follow https://cran.r-project.org/doc/manuals/r-release/R-lang.html#Literal-constants
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

from lossi.contract.text import R_NAME, is_r_name
from lossi.notebooks.parameter import NotPlain, Parameter

_ASSIGNMENT = re.compile(rf"\s*(?P<name>{R_NAME}|`[^`\\]+`)\s*(?P<arrow><-|=(?!=))\s*(?P<value>.*)", re.S)
_STRING = re.compile(r"\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'", re.S)
_RAW = re.compile(r"[rR](?P<quote>[\"'])(?P<dashes>-*)(?P<open>[\[({])")
_NUMBER = re.compile(r"(?P<hex>0[xX][0-9a-fA-F]+)(?P<hl>L?)|(?P<dec>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?P<dl>L?)")
_ESCAPE = re.compile(
    r"\\(?:x(?P<hex>[0-9a-fA-F]{1,2})|(?P<octal>[0-7]{1,3})|u(?:\{(?P<ub>[0-9a-fA-F]{1,4})\}|(?P<u>[0-9a-fA-F]{1,4}))"
    r"|U(?:\{(?P<Ub>[0-9a-fA-F]{1,8})\}|(?P<U>[0-9a-fA-F]{1,8}))|(?P<one>.))",
    re.S,
)
_SIMPLE_ESCAPES = {
    "n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v", "\\": "\\", '"': '"', "'": "'", "`": "`", " ": " ", "\n": "\n",
}  # fmt: skip
_CLOSING = {"(": ")", "[": "]", "{": "}"}
_WORDS: dict[str, tuple[str, Any]] = {
    "TRUE": ("bool", True), "FALSE": ("bool", False), "T": ("bool", True), "F": ("bool", False), "NULL": ("none", None),
    "NA": ("none", None), "Inf": ("float", math.inf), "NaN": ("float", math.nan), "NA_integer_": ("int", None),
    "NA_real_": ("float", None), "NA_character_": ("str", None),
}  # fmt: skip
_EMPTY_VECTORS = frozenset(("character", "numeric", "integer", "double", "logical", "vector"))


def read(source: str) -> tuple[tuple[Parameter, ...], tuple[str, ...]]:
    """Return the parameters that a cell assigns (``name <- value`` or ``name = value``), in order, and notes."""
    parameters: dict[str, Parameter] = {}
    for text, comment in statements(source):
        match = _ASSIGNMENT.fullmatch(text)
        if not match:
            continue
        name = match["name"].strip("`")
        # A name that needs backquotes cannot be the name of a flag or field.
        if is_r_name(name):
            parameters[name] = _parameter(name, match["value"].strip(), comment)
    return tuple(parameters.values()), ()


def _parameter(name: str, source: str, comment: str) -> Parameter:
    try:
        kind, default = _Reader(source).whole()
    except (NotPlain, RecursionError):
        return Parameter(name, "any", None, source, comment, optional=True)
    return Parameter(name, kind, default, source, comment, optional=default is None)


def statements(source: str) -> Iterator[tuple[str, str]]:
    """Yield (statement, comment after it) of R code; statements end at line ends outside brackets, strings and operators."""
    text, comment, depth, position = "", "", 0, 0
    while position < len(source):
        string = _string_end(source, position)
        if string is not None:
            text, position = text + source[position:string], string
            continue
        character = source[position]
        position += 1
        if character == "#":
            end = source.find("\n", position)
            end = len(source) if end < 0 else end
            comment, position = source[position:end].strip("# \t"), end
        elif character in "\n;" and depth <= 0 and not text.rstrip().endswith(tuple("+-*/^=<>&|!~,:")):
            if text.strip():
                yield text.strip(), comment
            text, comment = "", ""
        else:
            depth += (character in "([{") - (character in ")]}")
            text += character
    if text.strip():
        yield text.strip(), comment


def _string_end(source: str, position: int) -> int | None:
    """Return the end of the string or backquoted name that starts here, or None."""
    character = source[position]
    if character in "\"'":
        match = _STRING.match(source, position)
        return match.end() if match else len(source)
    if character == "`":
        end = source.find("`", position + 1)
        return len(source) if end < 0 else end + 1
    if character in "rR" and (position == 0 or not (source[position - 1].isalnum() or source[position - 1] in "._")):
        return _raw_end(source, position)
    return None


def _raw_end(source: str, position: int) -> int | None:
    match = _RAW.match(source, position)
    if not match:
        return None
    close = _raw_close(match)
    end = source.find(close, match.end())
    return len(source) if end < 0 else end + len(close)


def _raw_close(match: re.Match[str]) -> str:
    return _CLOSING[match["open"]] + match["dashes"] + match["quote"]


class _Reader:
    """Parses one literal."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0

    def whole(self) -> tuple[str, Any]:
        """Return (type, value) of the literal, which must be the whole text."""
        result = self.value()
        self.space()
        if self.position != len(self.text):
            raise NotPlain
        return result

    def value(self) -> tuple[str, Any]:
        self.space()
        text, position = self.text, self.position
        if position >= len(text):
            raise NotPlain
        if text[position] in "+-":
            self.position += 1
            kind, number = self.value()
            if kind not in ("int", "float") or number is None:
                raise NotPlain
            return kind, -number if text[position] == "-" else number
        end = _string_end(text, position)
        if end is not None and text[position] != "`":
            self.position = end
            return "str", _unquoted(text[position:end])
        number_match = _NUMBER.match(text, position)
        if number_match:
            self.position = number_match.end()
            return _number(number_match)
        word = re.compile(R_NAME).match(text, position)
        if not word:
            raise NotPlain
        self.position = word.end()
        if text[self.position : self.position + 1] == "(":
            return self.call(word[0])
        if word[0] not in _WORDS:
            raise NotPlain
        return _WORDS[word[0]]

    def call(self, function: str) -> tuple[str, Any]:
        self.position += 1
        names: list[str | None] = []
        items: list[tuple[str, Any]] = []
        self.space()
        while not self.taken(")"):
            if items and not self.taken(","):
                raise NotPlain
            names.append(self.argument_name())
            items.append(self.value())
            self.space()
        if function in _EMPTY_VECTORS and [item[1] for item in items] in ([], [0]):
            return "list", []
        if function == "c":
            return _combined(names, items)
        if function == "list":
            return _collected(names, [item[1] for item in items])
        raise NotPlain

    def argument_name(self) -> str | None:
        self.space()
        match = re.compile(rf"(?P<name>{R_NAME}|`[^`\\]+`|\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*')\s*=(?!=)", re.S).match(
            self.text, self.position
        )
        if not match:
            return None
        self.position = match.end()
        name = match["name"]
        return _unquoted(name) if name[0] in "\"'" else name.strip("`")

    def taken(self, character: str) -> bool:
        if self.text.startswith(character, self.position):
            self.position += 1
            return True
        return False

    def space(self) -> None:
        while self.position < len(self.text) and self.text[self.position].isspace():
            self.position += 1


def _number(match: re.Match[str]) -> tuple[str, Any]:
    if match["hex"]:
        value: float = int(match["hex"], 16)
    else:
        value = float(match["dec"])
    if (match["hl"] or match["dl"]) and value == int(value):
        return "int", int(value)
    return "float", float(value)


def _unquoted(text: str) -> str:
    """Return the value of an R string literal."""
    raw = _RAW.match(text)
    if raw:
        close = _raw_close(raw)
        if len(text) < raw.end() + len(close) or not text.endswith(close):
            raise NotPlain
        return text[raw.end() : -len(close)]
    if len(text) < 2 or text[-1] != text[0]:
        raise NotPlain
    return _ESCAPE.sub(_unescaped, text[1:-1])


def _unescaped(match: re.Match[str]) -> str:
    if match["one"]:
        if match["one"] not in _SIMPLE_ESCAPES:
            raise NotPlain
        return _SIMPLE_ESCAPES[match["one"]]
    digits = match["hex"] or match["ub"] or match["u"] or match["Ub"] or match["U"]
    number = int(match["octal"], 8) if match["octal"] else int(digits, 16)
    if not 0 < number <= 0x10FFFF:
        raise NotPlain
    return chr(number)


def _combined(names: list[str | None], items: list[tuple[str, Any]]) -> tuple[str, Any]:
    """Return the value of ``c(…)``. R coerces elements to one type, so only elements of one type are accepted."""
    kinds = {kind for kind, value in items if value is not None}
    if not items:
        return "none", None
    if kinds == {"int", "float"}:
        items = [("float", value if value is None else float(value)) for _, value in items]
        kinds = {"float"}
    if len(kinds) > 1 or kinds & {"list", "dict"} or not kinds:
        raise NotPlain
    return _collected(names, [value for _, value in items])


def _collected(names: list[str | None], values: list[Any]) -> tuple[str, Any]:
    if all(name is None for name in names):
        return "list", values
    if any(name is None for name in names) or len(set(names)) != len(names):
        raise NotPlain
    return "dict", {str(name): value for name, value in zip(names, values, strict=True)}

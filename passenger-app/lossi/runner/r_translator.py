"""Writes parameters as R code: the cell that papermill injects after the one tagged ``parameters``.

Papermill's own translator drops leading underscores, turns every list into ``list(…)`` and writes NaN and infinities as Python
does. Here nothing depends on the session's locale, and no value can end its literal.
"""

from __future__ import annotations

import math
import re
from typing import Any, Dict, List

from ..contract.text import CONTROL, is_r_name

_INTEGER_MAX = 2147483647
_EXACT_MAX = 2**53
_LINE = 400
"""Characters on a line of code: R's parser fails on long lines with escapes (seen with R 4.2)."""
_PLAIN_OR_ONE = re.compile(r"[ !#-\[\]-~]{1,200}|.", re.S)


def assignments(parameters: Dict[str, Any]) -> str:
    """Return one line ``name <- value`` for each parameter.

    Whole numbers become integers (``3L``), other numbers doubles; None is NULL; a list of scalars of one kind becomes a
    vector (None in it NA), any other list a list; an object becomes a named list.

    Raises
    ------
    ValueError
        When a name is not valid in R, or a value cannot be written in R: NUL, half a surrogate pair, a whole number above
        2**53, a type that JSON lacks.
    """
    lines = []
    for name, value in parameters.items():
        if not is_r_name(name):
            raise ValueError("%r is not a name of an R variable" % (name,))
        try:
            lines.append("%s <- %s\n" % (name, literal(value)))
        except ValueError as error:
            raise ValueError("parameter %r: %s" % (name, error)) from None
    return "".join(lines)


def literal(value: Any) -> str:
    """Return an R expression for a value of JSON's types; raises ValueError as `assignments` does."""
    if value is None:
        return "NULL"
    if isinstance(value, (bool, int, float, str)):
        return _scalar(value)
    if isinstance(value, (list, tuple)):
        return _sequence(list(value))
    if isinstance(value, dict):
        return _named_list(value)
    raise ValueError("R has no form for a value of type %s" % type(value).__name__)


def _scalar(value: Any) -> str:
    if isinstance(value, bool):
        return "TRUE" if value else "FALSE"
    if isinstance(value, int):
        if abs(value) <= _INTEGER_MAX:
            return "%dL" % value
        if abs(value) <= _EXACT_MAX:
            return "%d" % value
        raise ValueError(
            "R has no exact whole number %d" % value if abs(value) < 10**40 else "the whole number is too large for R"
        )
    if isinstance(value, float):
        if math.isnan(value):
            return "NaN"
        if math.isinf(value):
            return "Inf" if value > 0 else "-Inf"
        return repr(value)
    return _string(value)


def _sequence(items: List[Any]) -> str:
    kinds = {_kind(item) for item in items if item is not None}
    if len(kinds) == 1 and None not in kinds:
        missing = {"logical": "NA", "number": "NA_real_", "string": "NA_character_"}[kinds.copy().pop() or ""]
        if kinds == {"number"}:
            # One double makes the whole vector double, which has more exact whole numbers.
            whole = all(item is None or (isinstance(item, int) and abs(item) <= _INTEGER_MAX) for item in items)
            missing = "NA_integer_" if whole else missing
            items = items if whole else [float(item) if _exact(item) else item for item in items]
        return "c(%s)" % _joined([missing if item is None else _scalar(item) for item in items])
    return "list(%s)" % _joined([literal(item) for item in items])


def _kind(item: Any) -> Any:
    if isinstance(item, bool):
        return "logical"
    if isinstance(item, (int, float)):
        return "number"
    return "string" if isinstance(item, str) else None


def _exact(item: Any) -> bool:
    return isinstance(item, int) and abs(item) <= _EXACT_MAX


def _named_list(value: Dict[Any, Any]) -> str:
    names = list(value)
    if not all(isinstance(name, str) for name in names):
        raise ValueError("the names of an object must be text")
    items = _joined([literal(item) for item in value.values()])
    # Not list("name" = …): that takes no empty name and none above 10,000 bytes.
    return "structure(list(%s), names = %s)" % (
        items,
        "c(%s)" % _joined([_string(name) for name in names]) if names else "character(0)",
    )


def _string(text: str) -> str:
    """Return a string expression: printable ASCII as it is, everything else as Unicode escapes, which every locale reads alike."""
    pieces: List[str] = []
    size = _LINE
    for part in _PLAIN_OR_ONE.findall(text):
        code = part if len(part) > 1 else _escaped(part)
        if size + len(code) > _LINE:
            pieces.append("")
            size = 0
        pieces[-1] += code
        size += len(code)
    if len(pieces) <= 1:
        return '"%s"' % "".join(pieces)
    return "paste0(\n%s\n)" % ",\n".join('"%s"' % piece for piece in pieces)


def _escaped(character: str) -> str:
    if character in '"\\':
        return "\\" + character
    if " " <= character <= "~":
        return character
    number = ord(character)
    if number == 0:
        raise ValueError("R text cannot hold a NUL")
    if 0xD800 <= number <= 0xDFFF:
        raise ValueError("the text holds half a surrogate pair")
    return "\\U{%x}" % number if number > 0xFFFF else "\\u{%x}" % number


def _joined(items: List[str]) -> str:
    """Return the items separated by commas, one per line if a single line would be long."""
    return ", ".join(items) if sum(map(len, items)) < _LINE else ",\n".join(items)


def register() -> bool:
    """Make papermill use this translator for R; False without papermill."""
    try:
        from papermill import translators
    except ImportError:
        return False

    class SafeRTranslator(translators.RTranslator):  # type: ignore[misc]
        @classmethod
        def codify(cls, parameters: Dict[str, Any], comment: str = "Parameters") -> str:
            return "# %s\n%s" % (CONTROL.sub(" ", comment), assignments(parameters))

    for name in ("R", "r", "ir"):
        translators.papermill_translators.register(name, SafeRTranslator)
    return True

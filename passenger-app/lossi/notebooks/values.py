"""Check and convert values for a notebook's parameters. Pure functions.

A checked value can be written as JSON and assigned in the notebook's language.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from lossi.contract.text import is_r_name
from lossi.errors import InvalidInput, NotSupported, did_you_mean
from lossi.notebooks.parameter import Parameter
from lossi.notebooks.tagged_cell import HOW_TO_TAG, LANGUAGES, Parameters, not_readable

TRUE = frozenset(("true", "yes", "on", "1"))
FALSE = frozenset(("false", "no", "off", "0"))
NONE = frozenset(("none", "null"))

_EXPECTED = {
    "int": "a whole number", "float": "a number", "str": "text", "bool": "true or false", "list": "a list", "dict": "an object",
}  # fmt: skip
_EXAMPLES = {
    "int": "3", "float": "0.1, 1e-3, nan or inf", "bool": "true or false", "list": '\'[1, 2]\'', "dict": '\'{"a": 1}\'',
}  # fmt: skip
_SHOWN = 60
_R_EXACT = 2**53


def check_values(parameters: Parameters, values: Mapping[str, object], *, from_text: bool = False) -> dict[str, Any]:
    """Return the values as they will be assigned, in the same order.

    Parameters
    ----------
    parameters
        The notebook's parameters.
    values
        By name, as JSON types.
    from_text
        Whether strings come from a command line or CSV file and are converted: ``3`` to 3 for an int, JSON for a list or
        dict, ``true`` or ``false`` for a bool.

    Raises
    ------
    InvalidInput
        When a name is unknown, a required one is missing, a value has the wrong type, or the notebook has no tagged cell.
    NotSupported
        When parameters of the notebook's language are not supported.
    """
    if values:
        _refuse_unless_supported(parameters)
    known = parameters.by_name
    checked: dict[str, Any] = {}
    for name, value in values.items():
        item = known.get(name)
        if item is None:
            raise _unknown(name, parameters)
        if from_text and isinstance(value, str):
            value = _from_text(item, value)
        checked[name] = _checked(item, value)
        if parameters.language == "r":
            _check_for_r(name, checked[name])
    missing = [item.name for item in parameters.parameters if item.required and item.name not in checked]
    if missing:
        raise InvalidInput(
            f"parameter {missing[0]!r} is missing",
            why="it has no default in the notebook",
            hint=f"set it: {missing[0]}=…",
            parameter=missing[0],
        )
    return checked


def _refuse_unless_supported(parameters: Parameters) -> None:
    if parameters.language not in LANGUAGES:
        raise NotSupported(
            "cannot set parameters of this notebook", why=not_readable(parameters.language), hint="use a Python or R notebook"
        )
    if parameters.cell_index is None:
        raise InvalidInput("the notebook takes no parameters", why="no cell is tagged `parameters`", hint=HOW_TO_TAG)


def _unknown(name: str, parameters: Parameters) -> InvalidInput:
    names = [item.name for item in parameters.parameters]
    if not (name.isidentifier() or (parameters.language == "r" and is_r_name(name))):
        why = "a parameter's name must be an identifier: letters, digits and underscores"
    else:
        why = "the parameters cell does not assign it" + (f"; {parameters.notes[-1]}" if parameters.notes and not names else "")
    hint = did_you_mean(name, names) or (
        f"it has {_shortened(', '.join(names), 300)}" if names else "assign it in the tagged cell"
    )
    return InvalidInput(f"the notebook has no parameter {_shortened(name)!r}", why=why, hint=hint, parameter=_shortened(name))


def _from_text(item: Parameter, text: str) -> Any:
    """Return a string converted to the parameter's type."""
    word = text.strip()
    if item.type == "str":
        return text
    if item.optional and word.lower() in NONE:
        return None
    try:
        if item.type == "int":
            return int(word)
        if item.type == "float":
            return float(word)
        if item.type == "bool" and word.lower() in TRUE | FALSE:
            return word.lower() in TRUE
        if item.type in ("list", "dict"):
            return json.loads(word)
    except (ValueError, RecursionError) as error:
        if item.type in ("list", "dict"):
            raise _wrong_type(item, text, f"not valid JSON: {error}") from None
        raise _wrong_type(item, text) from None
    if item.type in ("any", "none"):
        return _literal(text)
    raise _wrong_type(item, text)


def _literal(text: str) -> Any:
    """Return the value of a text that is JSON or a Python constant, else the text itself."""
    words = {"True": True, "False": False, "None": None, "nan": math.nan, "inf": math.inf, "-inf": -math.inf}
    if text.strip() in words:
        return words[text.strip()]
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _checked(item: Parameter, value: object) -> Any:
    """Return the value as the parameter's type, or raise InvalidInput."""
    if value is None and (item.optional or item.type in ("any", "none")):
        return None
    if item.type == "int" and isinstance(value, float) and value.is_integer():
        return int(value)
    if item.type == "float" and isinstance(value, str) and value in ("NaN", "Infinity", "-Infinity"):
        return float(value)
    if item.type == "float" and isinstance(value, int) and not isinstance(value, bool):
        return float(value) if abs(value) <= 2**53 else value
    fits = {
        "int": isinstance(value, int) and not isinstance(value, bool),
        "float": isinstance(value, float),
        "str": isinstance(value, str),
        "bool": isinstance(value, bool),
        "list": isinstance(value, (list, tuple)),
        "dict": isinstance(value, dict),
    }.get(item.type, True)
    if not fits:
        raise _wrong_type(item, value)
    return _plain(item, value)


def _plain(item: Parameter, value: object, depth: int = 0) -> Any:
    """Return the value as JSON types only, or raise InvalidInput."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if depth < 100 and isinstance(value, (list, tuple)):
        return [_plain(item, element, depth + 1) for element in value]
    if depth < 100 and isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {key: _plain(item, element, depth + 1) for key, element in value.items()}
    raise _wrong_type(
        item, value, "only numbers, text, true, false, null, and lists and objects of these are allowed, at most 100 levels deep"
    )


def _wrong_type(item: Parameter, value: object, why: str = "") -> InvalidInput:
    shown = repr(_shortened(value)) if isinstance(value, str) else _shortened(repr(value))
    what = f"parameter {item.name!r} must be {_EXPECTED.get(item.type, 'another value')}, not {shown}"
    if not why and item.source:
        why = f"its default is {_shortened(item.source)}"
    if item.type == "int" and isinstance(value, (str, float)) and _is_number(value):
        hint = f"pass a whole number, or declare it as a number in the parameters cell: {item.name}: float = …"
    elif item.type == "str":
        hint = "pass it as text, in quotes"
    else:
        hint = f"for example {item.name}={_EXAMPLES.get(item.type, '…')}"
    return InvalidInput(what, why=why, hint=hint, parameter=item.name)


def _is_number(value: str | float) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def _check_for_r(name: str, value: object) -> None:
    """Raise InvalidInput for a value that R cannot represent."""
    if isinstance(value, (list, tuple)):
        for element in value:
            _check_for_r(name, element)
    elif isinstance(value, dict):
        for key, element in value.items():
            _check_for_r(name, key)
            _check_for_r(name, element)
    elif isinstance(value, str) and ("\0" in value or any("\ud800" <= character <= "\udfff" for character in value)):
        raise InvalidInput(
            f"parameter {name!r} cannot be passed to R", why="the text contains a NUL or an invalid character", hint="remove it"
        )
    elif isinstance(value, int) and abs(value) > _R_EXACT:
        raise InvalidInput(
            f"parameter {name!r} cannot be passed to R", why="R has no exact whole numbers above 2^53", hint="pass it as text"
        )


def _shortened(text: object, length: int = _SHOWN) -> str:
    """Return the start of a text that may be very long."""
    full = str(text)
    return full if len(full) <= length else full[: length - 1] + "…"

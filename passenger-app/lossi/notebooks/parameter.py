"""A parameter of a notebook."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

TYPES = ("int", "float", "str", "bool", "list", "dict", "none", "any")


class NotPlain(Exception):
    """The default is not a literal, or not representable in JSON."""


@dataclass(frozen=True)
class Parameter:
    """One name that the parameters cell assigns.

    Attributes
    ----------
    name
        Identifier in the notebook's language.
    type
        One of `TYPES`: from the annotation, else from the default; ``none`` if the default is None, ``any`` if it is not a
        literal.
    default
        The default as JSON types (floats may be NaN or infinite); None if it is not a literal.
    source
        The default's source text in the cell; empty if there is none.
    comment
        The comment after it.
    required
        Declared without a default.
    optional
        Whether None (in R, NULL) is allowed.
    """

    name: str
    type: str
    default: Any = None
    source: str = ""
    comment: str = ""
    required: bool = False
    optional: bool = False


_TYPES_OF_VALUES: Final = {bool: "bool", int: "int", float: "float", str: "str", list: "list", dict: "dict", type(None): "none"}


def type_of(value: object) -> str:
    """Return the type of a plain value, one of `TYPES`."""
    return _TYPES_OF_VALUES.get(type(value), "any")

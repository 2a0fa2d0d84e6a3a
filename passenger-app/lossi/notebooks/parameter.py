"""One parameter of a notebook, and what stands for a default that JSON cannot hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

TYPES = ("int", "float", "str", "bool", "list", "dict", "none", "any")


class NotPlain(Exception):
    """The default is no literal, or JSON has no form for it."""


@dataclass(frozen=True)
class Parameter:
    """One name that the parameters cell assigns.

    Attributes
    ----------
    name
        Identifier in the notebook's language.
    type
        One of `TYPES`: from the annotation, else from the default; ``none`` when the default says nothing, ``any`` when it
        is not a literal.
    default
        The default as JSON types (floats may be NaN or infinite); None when it is not a literal.
    source
        The default as it stands in the cell; empty when there is none.
    comment
        What the comment behind it says.
    required
        Declared without a default.
    optional
        None (in R, NULL) is a value too.
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
    """Return which of `TYPES` a plain value has."""
    return _TYPES_OF_VALUES.get(type(value), "any")

"""Rules for text and names that the portal and the runner share. Python 3.9, standard library."""

from __future__ import annotations

import re

CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""What a name, path or other single line must not contain: control characters, Unicode line breaks, lone surrogates."""

R_NAME = r"(?:[^\W\d_]|\.(?![0-9]))[\w.]*"
"""Pattern of an R name that needs no backquotes; `is_r_name` also excludes reserved words."""

_R_RESERVED = frozenset((
    "if", "else", "repeat", "while", "function", "for", "next", "break", "TRUE", "FALSE", "NULL", "Inf", "NaN", "NA", "NA_integer_",
    "NA_real_", "NA_complex_", "NA_character_", "in",
))  # fmt: skip


def printable(text: str) -> str:
    """Return text with a space in place of each unprintable character, line breaks included."""
    return "".join(character if character.isprintable() else " " for character in text)


def is_r_name(text: str) -> bool:
    """Return whether R accepts this as a variable's name without backquotes."""
    return re.fullmatch(R_NAME, text) is not None and text not in _R_RESERVED

"""Text of programs as plain text."""

from __future__ import annotations

import re

TRACEBACK_LIMIT = 20_000
"""Characters that are kept of a traceback: its end."""

ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
"""Terminal escapes (ECMA-48): control sequences, operating system commands, two-byte ones."""


def plain(text: str) -> str:
    """Return a text without terminal escapes and with valid Unicode only."""
    return ESCAPES.sub("", text).encode("utf-8", "backslashreplace").decode("utf-8")

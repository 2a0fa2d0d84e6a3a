"""Texts of programs and users made harmless for terminals and spreadsheets."""

from __future__ import annotations

import re

ESCAPES = re.compile(
    r"""
      (?: \x1b[PX^_\]] | [\x90\x98\x9d-\x9f] )                          # strings: title, clipboard, links (OSC, DCS, SOS, PM, APC),
      [^\x07\x1b\x9c\r\n]* (?: \x07 | \x1b\\ | \x9c )?                   # to their end, but never past the line
    | (?: \x1b\[ | \x9b ) [0-?]* [ -/]* [@-~]?                         # CSI: colours, cursor, reports
    | \x1b [ -/]* [0-~]?                                               # every other escape
    """,
    re.VERBOSE,
)
"""Control sequences of ECMA-48, also broken ones, so that no rest of them reaches the terminal."""

CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""C0 without tab and line feed, DEL, C1, and what turns the direction of text (it can show a command other than it is)."""

SURROGATES = re.compile("[\ud800-\udfff]")

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|infinity|nan)", re.IGNORECASE)


def neutralised(text: str) -> str:
    """Return a text without terminal escapes and control characters; lines and tabs stay.

    A carriage return becomes a line end, so that a progress bar reads as lines and nothing is overwritten. Bytes that were not
    UTF-8 (lone surrogates) become U+FFFD, so that it can always be printed.
    """
    text = ESCAPES.sub("", text)
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return SURROGATES.sub("\ufffd", CONTROLS.sub("", text))


def csv_cell(value: object) -> str:
    """Return a value as the text of a CSV cell that no spreadsheet takes for a formula.

    Text that begins with ``= + - @``, a tab or a line break (and is not just a number) gets an apostrophe before it, as OWASP
    recommends against CSV injection. Quoting is the CSV writer's.
    """
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str):
        text = str(value)
        return text if isinstance(value, (bool, int, float)) else csv_cell(text)
    text = SURROGATES.sub("\ufffd", value.replace("\0", ""))
    stripped = text.lstrip(" \u00a0\ufeff")
    if stripped[:1] in ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠") and not NUMBER.fullmatch(text):
        return f"'{text}"
    return text

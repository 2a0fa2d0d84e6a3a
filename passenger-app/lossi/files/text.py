"""Text from programs and users made safe for terminals and spreadsheets."""

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
"""Control sequences of ECMA-48, also incomplete ones."""

UNSAFE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Control characters except tab and line feed, and bidirectional overrides, which can disguise a command. For output, which has
many lines; a single line is checked with `lossi.contract.text.CONTROL`."""

SURROGATES = re.compile("[\ud800-\udfff]")

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|infinity|nan)", re.IGNORECASE)


def neutralised(text: str) -> str:
    """Return text without terminal escapes and control characters; line feeds and tabs stay.

    A carriage return becomes a line feed, so that a progress bar reads as lines and nothing is overwritten. Bytes that were not
    UTF-8 (lone surrogates) become U+FFFD, so that the text can always be printed.
    """
    text = ESCAPES.sub("", text)
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return SURROGATES.sub("\ufffd", UNSAFE.sub("", text))


def csv_cell(value: object) -> str:
    """Return a value as text for a CSV cell that no spreadsheet reads as a formula.

    Text that begins with ``= + - @``, a tab or a line break (and is not a number) gets a leading apostrophe, as OWASP recommends
    against CSV injection. Quoting is left to the CSV writer.
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

"""Translate IPython's syntax (magics, shell lines, help lines) to plain Python.

Pure functions on text; runs nothing and does not import IPython. The translations follow
https://ipython.readthedocs.io/en/stable/config/inputtransforms.html
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass

_WITHOUT_EFFECT = frozenset(
    [
        "matplotlib",
        "config",
        "autoreload",
        "tensorboard",
        "colors",
        "xmode",
        "pdb",
        "precision",
        "pinfo",
        "pinfo2",
        "pdoc",
        "pdef",
        "psource",
        "pfile",
        "lsmagic",
        "quickref",
    ]
)
"""Line magics that affect display or editing, never results."""
_DISPLAYED_ONLY = frozenset(["html", "HTML", "javascript", "js", "latex", "markdown", "svg", "SVG"])
"""Cell magics whose body is only displayed."""
_EDITING_EXTENSIONS = frozenset(
    ("autoreload", "tensorboard", "google.colab.data_table", "nb_black", "lab_black", "jupyter_black")
)
_AUTOMAGIC = frozenset(["pip", "conda", "mamba", "micromamba", "uv", "cd", "ls", "cat", "cp", "mv", "rm", "mkdir", "rmdir"])
_PYLAB = (
    "import matplotlib, numpy; import numpy as np; from matplotlib import pyplot as plt; from pylab import *; from numpy import *"
)

_STRING_START = re.compile(r"(?i:[rbuft]{0,3})('''|\"\"\"|'|\")")
_ASSIGNED = re.compile(r"(?P<left>[^=#]+?)=\s*(?P<mark>[%!])(?P<rest>[^=].*)", re.S)
_HELP = re.compile(r"(\?{1,2}\s*[%\w.*]+|%{0,2}[\w.*\[\]'\"]+\s*\?{1,2})\s*;?\s*(#.*)?")
_MAGIC = re.compile(r"%(?P<name>\w[\w.]*)\s*(?P<rest>.*)", re.S)


@dataclass(frozen=True)
class LogicalLine:
    """One or more physical lines that Python or IPython reads as one; ``first`` is the 0-based number of the first."""

    first: int
    lines: tuple[str, ...]
    special: bool
    """Whether it is IPython syntax."""

    @property
    def indent(self) -> str:
        """White space before the text."""
        return self.lines[0][: len(self.lines[0]) - len(self.lines[0].lstrip())]

    @property
    def text(self) -> str:
        """The joined lines; in IPython syntax without backslashes at line ends."""
        if self.special:
            return " ".join(line.removesuffix("\\") for line in self.lines).strip()
        return "\n".join(self.lines)


@dataclass(frozen=True)
class Translation:
    """A cell as plain Python."""

    code: str
    needs_ipython: bool = False
    """Whether it calls ``get_ipython()``."""


def parses(source: str) -> bool:
    """Return whether a cell is valid Python apart from IPython syntax."""
    return compiles(masked(source))


def compiles(code: str) -> bool:
    """Return whether this is valid Python of the running version, allowing top-level ``await``. Runs nothing."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(code, "<cell>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError):
        return False
    return True


def masked(source: str) -> str:
    """Return the cell with the same number of lines and ``pass`` in place of IPython syntax.

    The body of ``%%time`` and ``%%capture`` is Python; the body of other cell magics is masked.
    """
    head, body = _cell_magic(source)
    if head is not None:
        if _magic_name(head) in ("time", "capture"):
            return "\n" * (source.count("\n") - body.count("\n")) + masked(body)
        return "\n" * source.count("\n")
    lines = []
    for line in logical_lines(source):
        lines += [line.indent + "pass", *[""] * (len(line.lines) - 1)] if line.special else list(line.lines)
    return "\n".join(lines)


def translated(source: str) -> Translation:
    """Return the cell as plain Python that does the same; what only affects the display becomes a comment."""
    head, body = _cell_magic(source)
    if head is not None:
        return _translated_cell_magic(head, body)
    lines: list[str] = []
    needs_ipython = False
    for line in logical_lines(_without_prompts(source)):
        if not line.special:
            lines += line.lines
            continue
        code = _translated_line(line.text)
        if code is None:
            # `pass` keeps a block from becoming empty.
            code = ("pass  # " if line.indent else "# ") + line.text
        else:
            needs_ipython = needs_ipython or "get_ipython()" in code
        lines.append(line.indent + code)
    return Translation("\n".join(lines), needs_ipython)


def logical_lines(source: str) -> Iterator[LogicalLine]:
    """Yield the logical lines of a cell in order; together they contain all its physical lines.

    Also works on invalid Python: only brackets, strings and backslashes are interpreted.
    """
    lines = source.split("\n")
    start = 0
    while start < len(lines):
        end, special = _python_end(lines, start), False
        if is_special("\n".join(lines[start:end])):
            special = True
            end = start + 1
            while end < len(lines) and lines[end - 1].endswith("\\"):
                end += 1
        yield LogicalLine(start, tuple(lines[start:end]), special)
        start = end


def is_special(text: str) -> bool:
    """Return whether a logical line is IPython syntax, none of which is valid Python."""
    line = text.strip()
    if not line or line[0] == "#":
        return False
    if line[0] in "%!?":
        return True
    first = line.split("\n", 1)[0]
    if "\n" not in line and line.rstrip("; \t").endswith("?") and _HELP.fullmatch(line):
        return True
    match = _ASSIGNED.match(first)
    if match and _is_target(match["left"]):
        return True
    word = first.split(None, 1)[0]
    return word in _AUTOMAGIC and first != word and not compiles(line)


def _python_end(lines: list[str], start: int) -> int:
    """Return the number of the line after the logical line of Python at ``start``."""
    depth, quote, number = 0, "", start
    while number < len(lines):
        line, column, continued = lines[number], 0, False
        while column < len(line):
            if quote:
                column, quote = _in_string(line, column, quote)
                continue
            character = line[column]
            match = _STRING_START.match(line, column)
            if match:
                quote, column = match[1], match.end()
                continue
            if character == "#":
                break
            if character.isalnum() or character == "_":
                # A whole word, so that its last letters are not read as a string's prefix.
                column = _word_end(line, column)
                continue
            if character == "\\" and column == len(line) - 1:
                continued = True
            depth += (character in "([{") - (character in ")]}")
            column += 1
        number += 1
        if len(quote) == 1:
            if line.endswith("\\"):
                continue
            quote = ""
        if depth <= 0 and not quote and not continued:
            break
    return number


def _in_string(line: str, column: int, quote: str) -> tuple[int, str]:
    """Continue inside a string; return the new column and the quote if it is still open."""
    while column < len(line):
        if line[column] == "\\":
            column += 2
        elif line.startswith(quote, column):
            return column + len(quote), ""
        else:
            column += 1
    return column, quote


def _word_end(line: str, column: int) -> int:
    while column < len(line) and (line[column].isalnum() or line[column] == "_"):
        column += 1
    return column


def _is_target(left: str) -> bool:
    try:
        return isinstance(ast.parse(left.strip() + " = 0").body[0], ast.Assign)
    except (SyntaxError, ValueError, RecursionError, MemoryError, IndexError):
        return False


def _cell_magic(source: str) -> tuple[str | None, str]:
    """Return a cell magic's line (None if there is none) and its body."""
    text = source.lstrip("\n \t") if source.lstrip().startswith("%%") else source
    if not re.match(r"%%\w", text):
        return None, source
    head, _, body = text.partition("\n")
    return head, body


def _magic_name(text: str) -> str:
    match = _MAGIC.match("%" + text.lstrip("%"))
    return match["name"] if match else ""


def _translated_cell_magic(head: str, body: str) -> Translation:
    match = _MAGIC.match(head[1:])
    name, rest = (match["name"], match["rest"].strip()) if match else ("", "")
    if (name == "time" and not rest) or (name == "capture" and all(word.startswith("-") for word in rest.split())):
        inner = translated(body)
        return Translation(f"# {head[1:]}\n{inner.code}", inner.needs_ipython)
    if name in _DISPLAYED_ONLY:
        return Translation("\n".join(f"# {line}" for line in (head[1:] + "\n" + body).splitlines()))
    return Translation(f"get_ipython().run_cell_magic({name!r}, {rest!r}, {literal(body)})", needs_ipython=True)


def _translated_line(text: str) -> str | None:
    """Return Python for a line of IPython syntax, or None if it does not affect results."""
    text = text.strip()
    if _HELP.fullmatch(text) and "?" in text:
        return None
    if text.startswith("!!"):
        return f"get_ipython().getoutput({text[2:].strip()!r})"
    if text.startswith("!"):
        return f"get_ipython().system({text[1:].strip()!r})"
    if text.startswith("%"):
        return _translated_magic(text)
    match = _ASSIGNED.match(text)
    if match and match["mark"] == "!":
        return f"{match['left'].strip()} = get_ipython().getoutput({match['rest'].strip()!r})"
    if match:
        return f"{match['left'].strip()} = {_translated_magic('%' + match['rest']) or 'None'}"
    return _translated_magic("%" + text)


def _translated_magic(text: str) -> str | None:
    match = _MAGIC.match("%" + text.lstrip("%"))
    if not match:
        return None
    name, rest = match["name"], match["rest"].strip()
    if name in _WITHOUT_EFFECT or (name in ("load_ext", "reload_ext") and rest in _EDITING_EXTENSIONS):
        return None
    if name == "time" and rest and not rest.startswith("-") and compiles(rest):
        return rest
    if name == "pylab":
        return _PYLAB
    return f"get_ipython().run_line_magic({name!r}, {rest!r})"


def _without_prompts(source: str) -> str:
    """Remove what IPython removes before it reads a cell: ``>>>`` prompts and the whole cell's indentation."""
    lines = source.split("\n")
    first = next((line for line in lines if line.strip()), "")
    if first.startswith(">>>"):
        return "\n".join(re.sub(r"^(>>>|\.\.\.)( |$)", "", line) for line in lines)
    indent = first[: len(first) - len(first.lstrip())]
    if indent and not first.lstrip().startswith("#"):
        return "\n".join(line.removeprefix(indent) for line in lines)
    return source


def literal(text: str) -> str:
    """Return a Python string literal for ``text``, on several lines if that is readable and exact."""
    if "\n" in text and "\\" not in text and all(c.isprintable() or c in "\n\t" for c in text):
        for quote in ('"""', "'''"):
            if quote not in text and not text.endswith(quote[0]):
                return quote + "\\\n" + text + quote
    return repr(text)

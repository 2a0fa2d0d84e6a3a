"""Output of commands: one JSON document with ``--json``, otherwise tables and sentences; errors on stderr.

Values from notebooks, jobs and stores are neutralised before they reach a terminal.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from lossi.errors import LossiError
from lossi.jsonable import plain

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_PROGRAM_LINES = 15
"""Last lines of a failed program that are shown above the explanation."""


def emit(data: Any, as_json: bool, render: Callable[[], None]) -> None:
    """Print ``data`` as one JSON document, or let ``render`` print it for people."""
    if as_json:
        json.dump(plain(data), sys.stdout, ensure_ascii=False, indent=2, allow_nan=False)
        sys.stdout.write("\n")
    else:
        render()


def console(*, stderr: bool = False) -> Console:
    """Return the console for people; without colours if the output is not a terminal or NO_COLOR is set."""
    from rich.console import Console

    return Console(stderr=stderr, highlight=False, soft_wrap=True)


def table(columns: Iterable[str], rows: Iterable[Iterable[object]], *, right: Iterable[str] = ()) -> Table:
    """Return a table of neutralised cells; ``right`` names the columns to align right."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from lossi.files.text import neutralised

    aligned = set(right)
    result = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        result.add_column(column, justify="right" if column in aligned else "left", overflow="fold")
    for row in rows:
        result.add_row(*(Text(neutralised("" if cell is None else str(cell))) for cell in row))
    return result


def show_table(
    columns: Iterable[str], rows: Iterable[Iterable[object]], *, right: Iterable[str] = (), empty: str = "Nothing here yet."
) -> None:
    """Print a table, or ``empty`` if there are no rows. Never wider than its content; not cut when piped."""
    rows = list(rows)
    if not rows:
        say(empty)
        return
    target = console()
    if not target.is_terminal:
        target.width = 10_000
    target.print(table(columns, rows, right=right))


def say(text: str) -> None:
    """Print one line for people on stdout."""
    from lossi.files.text import neutralised

    sys.stdout.write(neutralised(text) + "\n")


def note(text: str) -> None:
    """Print one line about progress to stderr; stdout is for the result."""
    from lossi.files.text import neutralised

    sys.stderr.write(neutralised(text) + "\n")
    sys.stderr.flush()


def failure(error: LossiError, *, as_json: bool = False) -> int:
    """Print an error (what, why, hint); return the exit code."""
    if as_json:
        document = {"type": error.slug, "title": error.title, "detail": error.what, "why": error.why, "hint": error.hint}
        json.dump({**plain(error.details), **document}, sys.stderr, ensure_ascii=False)
        sys.stderr.write("\n")
        return error.exit_code
    for line in error.details.get("output", ())[-_PROGRAM_LINES:]:
        note(f"  | {line}")
    note(f"lossi: {error.what}")
    if error.why:
        note(f"  why:  {error.why}")
    if error.hint:
        note(f"  next: {error.hint}")
    return error.exit_code

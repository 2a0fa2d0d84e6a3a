"""Convert a Python notebook to a script. Text in, text out; runs no code."""

from __future__ import annotations

import ast
import inspect
import re
import warnings

from lossi.notebooks import ipython, script_parts
from lossi.notebooks.document import INJECTED_TAG, Cell, Notebook
from lossi.notebooks.parameter import Parameter
from lossi.notebooks.tagged_cell import Parameters

SKIPPED_TAG = "skip-execution"
MAY_FAIL_TAG = "raises-exception"

_FUTURE = re.compile(r"[ \t]*from[ \t]+__future__[ \t]+import\b")
_NEEDS_LOOP = re.compile(r"\b(create_task|ensure_future|get_running_loop|asyncio\.(gather|wait|shield))\b")
_DRAWS = re.compile(r"\b(matplotlib|pylab|plt|seaborn)\b")
_HELP_LENGTH = 70

_INTRODUCTION = """\
# Made from a Jupyter notebook by `lossi notebook script`; --help lists the notebook's parameters.
"""
_NO_FILE = """\
# As in a notebook: multiprocessing does not run this file again in its child processes.
globals().pop("__file__", None)
"""
_NO_SCREEN = """\
import os

os.environ.setdefault("MPLBACKEND", "Agg")  # draw figures without a screen
"""
_DISPLAY = """\
try:
    from IPython.display import display
except ImportError:
    display = print
"""


def convert(notebook: Notebook, parameters: Parameters) -> tuple[str, tuple[str, ...]]:
    """Return the script's text, and notes on cells that are not valid Python."""
    text, notes = _converted(notebook, parameters, apart=False)
    if not _compiles_as_file(text):
        # Cells that are valid alone can clash in one file, for example with `global` after a use.
        text, notes = _converted(notebook, parameters, apart=True)
    return text, notes


def _converted(notebook: Notebook, parameters: Parameters, *, apart: bool) -> tuple[str, tuple[str, ...]]:
    cells = _Cells(apart)
    body: list[str] = []
    last = _last_before_flags(notebook, parameters)
    for cell in notebook.cells:
        if cell.kind == "markdown":
            body.append("# %% [markdown]\n" + cell.as_comment())
        elif cell.kind == "code":
            body.append("# %%" + _label(cell) + "\n" + cells.converted(cell))
        if cell.index == last and parameters.parameters:
            body.append(_assignments(parameters))
    code = "\n".join(cell.source for cell in notebook.code_cells)
    parts = [_header(notebook), "\n".join(cells.futures), _NO_FILE, *_prelude(code, cells, parameters, notebook.title), *body]
    text = "\n\n".join(part.strip("\n") for part in parts if part.strip()) + "\n"
    return text, tuple(cells.notes)


class _Cells:
    """Converts code cells one by one and collects what they need in the script's prelude."""

    def __init__(self, apart: bool) -> None:
        self.apart = apart
        self.ipython = False
        self.runner = False
        self.futures: list[str] = []
        self.notes: list[str] = []

    def converted(self, cell: Cell) -> str:
        """Return a cell's code in the script."""
        if SKIPPED_TAG in cell.tags:
            return cell.as_comment()
        # JSON can contain lone surrogates, UTF-8 files cannot: as escapes they mean the same in a string.
        source = cell.source.encode("utf-8", "backslashreplace").decode("utf-8")
        translation = ipython.translated(source.strip("\n"))
        self.ipython = self.ipython or translation.needs_ipython
        code = self._without_futures(translation.code)
        may_fail = MAY_FAIL_TAG in cell.tags
        if not ipython.compiles(code):
            self.notes.append(f"cell {cell.index + 1} is not valid Python: the script fails there, as the notebook does")
        elif not (self.apart or may_fail or _NEEDS_LOOP.search(code) or _awaits(code)):
            return code
        elif not code.strip():
            return ""
        self.runner = True
        return f"_cells.run({cell.index + 1}, {ipython.literal(code)}{', may_fail=True' if may_fail else ''})"

    def _without_futures(self, code: str) -> str:
        """Move ``from __future__`` imports out: they must be at the top of the file."""
        if "__future__" not in code:
            return code
        kept: list[str] = []
        for line in ipython.logical_lines(code):
            if _FUTURE.match(line.text):
                self.futures.append(line.text.strip())
            else:
                kept += line.lines
        return "\n".join(kept)


def _header(notebook: Notebook) -> str:
    title = f"# {notebook.title}\n#\n" if notebook.title else ""
    return "#!/usr/bin/env python3\n" + title + _INTRODUCTION


def _prelude(code: str, cells: _Cells, parameters: Parameters, title: str) -> list[str]:
    parts = []
    if _DRAWS.search(code):
        parts.append(_NO_SCREEN)
    if re.search(r"\bdisplay\(", code):
        parts.append(_DISPLAY)
    parts.append(inspect.getsource(script_parts._parse_args))
    table = "".join(f"        {_row(item)!r},\n" for item in parameters.parameters)
    parts.append(f"_args = _parse_args(\n    {title or 'A notebook as a script.'!r},\n    [\n{table}    ],\n)")
    if cells.ipython or "get_ipython" in code:
        parts.append(inspect.getsource(script_parts._start_ipython) + "\n\nget_ipython = _start_ipython(globals())")
    if cells.runner:
        parts.append(inspect.getsource(script_parts._Cells) + "\n\n_cells = _Cells(globals())")
    return parts


def _row(item: Parameter) -> tuple[str, str, bool, bool, str]:
    """Return a parameter as `_parse_args` takes it."""
    source = " ".join(item.source.split())
    source = source if len(source) <= _HELP_LENGTH else source[: _HELP_LENGTH - 1] + "…"
    default = "required" if item.required else f"default: {source}"
    kind = "any" if item.type == "none" else item.type
    return item.name, kind, item.required, item.optional, f"{item.comment} ({default})".strip()


def _assignments(parameters: Parameters) -> str:
    lines = ["# %% values from the command line"]
    for item in parameters.parameters:
        value = f"_args[{item.name!r}]" if item.required else f"_args.get({item.name!r}, {item.name})"
        lines.append(f"{item.name} = {value}")
    return "\n".join(lines)


def _last_before_flags(notebook: Notebook, parameters: Parameters) -> int | None:
    """Return the index of the cell after which papermill would inject values."""
    injected = notebook.tagged(INJECTED_TAG)
    return injected[0].index if injected else parameters.cell_index


def _label(cell: Cell) -> str:
    tags = " ".join(sorted(tag for tag in cell.tags if re.fullmatch(r"[\w-]+", tag)))
    return f" {tags}" if tags else ""


def _awaits(code: str) -> bool:
    """Return whether code needs top-level ``await``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compiled = compile(code, "<cell>", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    return bool(compiled.co_flags & inspect.CO_COROUTINE)


def _compiles_as_file(text: str) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(text, "<script>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True

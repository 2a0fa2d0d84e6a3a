"""Convert an R notebook to a script for Rscript that parses its arguments with base R. Text in, text out; runs no code."""

from __future__ import annotations

import importlib.resources

from lossi.notebooks.document import INJECTED_TAG, Notebook
from lossi.notebooks.parameter import Parameter
from lossi.notebooks.tagged_cell import Parameters

SKIPPED_TAG = "skip-execution"
MAY_FAIL_TAG = "raises-exception"
PARSER_FILE = "parse_args.R"
"""The argument parser that is copied into every script."""


def convert(notebook: Notebook, parameters: Parameters) -> tuple[str, tuple[str, ...]]:
    """Return the script's text, and notes."""
    body: list[str] = []
    injected = notebook.tagged(INJECTED_TAG)
    last = injected[0].index if injected else parameters.cell_index
    for cell in notebook.cells:
        if cell.kind == "markdown":
            body.append("# %% [markdown]\n" + cell.as_comment())
        elif cell.kind == "code" and SKIPPED_TAG in cell.tags:
            body.append("# %%\n" + cell.as_comment())
        elif cell.kind == "code" and MAY_FAIL_TAG in cell.tags:
            body.append(f'# %%\ntryCatch({{\n{cell.source}\n}}, error = function(e) message("Error: ", conditionMessage(e)))')
        elif cell.kind == "code":
            body.append(f"# %%\n{cell.source}")
        if cell.index == last and parameters.parameters:
            body.append(_assignments(parameters))
    parts = [_header(notebook), _parser(parameters), *body]
    return "\n\n".join(part.strip("\n") for part in parts if part.strip()) + "\n", ()


def _header(notebook: Notebook) -> str:
    title = f"# {notebook.title}\n#\n" if notebook.title else ""
    return (
        "#!/usr/bin/env Rscript\n"
        f"{title}# Made from a Jupyter notebook by `lossi notebook script`; --help lists the notebook's parameters.\n"
    )


def _parser(parameters: Parameters) -> str:
    """Return the argument parser and the call to it."""
    parser = importlib.resources.files("lossi.notebooks").joinpath(PARSER_FILE).read_text("utf-8").rstrip()
    rows = ",\n".join(f"  {_row(item)}" for item in parameters.parameters)
    call = f".parse_args(list(\n{rows}\n))" if rows else ".parse_args(list())"
    return f"{parser}\n\n.args <- {call}"


def _row(item: Parameter) -> str:
    source = " ".join(item.source.split())
    text = f"{item.comment} (default: {source if len(source) <= 70 else source[:69] + '…'})".strip()
    kind = "any" if item.type == "none" else item.type
    return f"list(name = {quoted(item.name)}, type = {quoted(kind)}, help = {quoted(text)})"


def _assignments(parameters: Parameters) -> str:
    lines = ["# %% values from the command line"]
    for item in parameters.parameters:
        name = quoted(item.name)
        lines.append(f"if ({name} %in% names(.args)) {item.name} <- .args[[{name}]]")
    return "\n".join(lines)


def quoted(text: str) -> str:
    """Return an R string literal; characters other than printable ASCII are escaped, so that nothing can end the string."""
    pieces = []
    for character in text:
        if character in '"\\':
            pieces.append("\\" + character)
        elif " " <= character <= "~":
            pieces.append(character)
        elif character == "\0" or "\ud800" <= character <= "\udfff":
            pieces.append("?")
        else:
            pieces.append(f"\\U{{{ord(character):x}}}" if ord(character) > 0xFFFF else f"\\u{{{ord(character):x}}}")
    return '"' + "".join(pieces) + '"'

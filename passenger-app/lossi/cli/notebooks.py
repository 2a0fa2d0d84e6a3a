"""``lossi notebook``: a notebook's parameters, the notebook as a script, the notebook as HTML."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lossi.cli import options, output

if TYPE_CHECKING:
    from lossi.notebooks import Parameter

app = typer.Typer(no_args_is_help=True)
NotebookFile = Annotated[Path, typer.Argument(metavar="NB", help="The notebook (*.ipynb).", show_default=False)]
_SHOWN = 60


@app.command("params")
def show_parameters(notebook: NotebookFile, as_json: options.Json = False) -> None:
    """Show the notebook's parameters: names, types, defaults and comments of its cell tagged `parameters`."""
    from lossi import notebooks

    declared = notebooks.parameters(notebooks.read(notebook))
    data = {
        "notebook": str(notebook),
        "language": declared.language,
        "cell_index": declared.cell_index,
        "parameters": [_as_dict(item) for item in declared.parameters],
        "notes": list(declared.notes),
    }

    def render() -> None:
        rows = [[item.name, item.type, _default(item), item.comment] for item in declared.parameters]
        output.show_table(["parameter", "type", "default", "comment"], rows, empty="The notebook has no parameters.")
        for note in declared.notes:
            output.note(f"note: {note}")

    output.emit(data, as_json, render)


@app.command("script")
def convert(
    notebook: NotebookFile,
    target: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write to this file instead of stdout.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Turn the notebook into a script with its parameters as flags; it logs the same metrics."""
    from lossi import notebooks
    from lossi.files import atomic
    from lossi.files.text import neutralised

    script = notebooks.script(notebooks.read(notebook))
    data: dict[str, Any] = {"notebook": str(notebook), "language": script.language, "notes": list(script.notes)}
    if target is not None:
        atomic.write(target, script.text.encode("utf-8"), mode=0o755)
        data["file"] = str(target)
    else:
        data["text"] = script.text

    def render() -> None:
        for note in script.notes:
            output.note(f"note: {note}")
        if target is not None:
            runner = "Rscript" if script.language == "r" else "python"
            output.say(f"wrote {target}; flags: {runner} {target} --help")
        elif sys.stdout.isatty():
            sys.stdout.write("\n".join(neutralised(line) for line in script.text.split("\n")))
        else:
            # To a file or pipe: byte for byte in any locale.
            sys.stdout.buffer.write(script.text.encode("utf-8"))

    output.emit(data, as_json, render)


@app.command("render")
def render_page(
    notebook: NotebookFile,
    target: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The HTML file to write.", show_default=False)],
    as_json: options.Json = False,
) -> None:
    """Render the notebook to one HTML file without scripts and without references to other hosts."""
    import shutil

    from lossi import notebooks
    from lossi.files import atomic

    page = notebooks.render(notebook)
    with page.open("rb") as source, atomic.replacing(target) as stream:
        shutil.copyfileobj(source, stream)
    data = {"notebook": str(notebook), "file": str(target), "bytes": target.stat().st_size}
    output.emit(data, as_json, lambda: output.say(f"wrote {target}"))


def _as_dict(item: Parameter) -> dict[str, Any]:
    from lossi.jsonable import plain

    return {
        "name": item.name,
        "type": item.type,
        "default": plain(item.default),
        "source": item.source,
        "comment": item.comment,
        "required": item.required,
        "optional": item.optional,
    }


def _default(item: Parameter) -> str:
    if item.required:
        return "(required)"
    text = " ".join(item.source.split())
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"

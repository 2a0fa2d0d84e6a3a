"""``lossi env kernelspec``: an environment as a kernel of the Jupyter that is there already."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from lossi.cli import options, output


def kernelspec(
    name: Annotated[str, typer.Argument(help="Name of the environment.", show_default=False)],
    install: Annotated[bool, typer.Option("--install", help="Register it for yourself.")] = False,
    prefix: Annotated[
        Path | None, typer.Option("--prefix", help="Register it below this folder, for all who use the Jupyter there.")
    ] = None,
    target: Annotated[str, typer.Option("--target", help="local, apptainer, or auto: what is usable here.")] = "auto",
    accelerator: Annotated[str, typer.Option("--accelerator", help="none, cuda or rocm.")] = "none",
    bind: Annotated[
        list[Path] | None,
        typer.Option("--bind", help="A folder that the container sees besides the home of whoever starts it; may be repeated."),
    ] = None,
    project: options.Project = None,
    as_json: options.Json = False,
) -> None:
    """Register an environment as a Jupyter kernel; without --install or --prefix, print what would be written."""
    from lossi import environments, projects
    from lossi.environments import kernelspec as kernels
    from lossi.errors import InvalidInput, NotFound

    if install and prefix is not None:
        raise InvalidInput("--install and --prefix are two places", hint="name one of them")
    try:
        root = options.project(project).root if project else projects.find(Path.cwd()).root
    except NotFound:
        if project:
            raise
        root = None
    found = environments.load(root).get(name)
    resolved = environments.resolve(found, target=target, accelerator=accelerator)
    spec = kernels.kernelspec(found, resolved, [path.absolute() for path in bind or []])
    folder = None
    if install or prefix is not None:
        folder = kernels.install(spec, kernels.kernel_name(resolved), prefix.absolute() if prefix else None)

    def render() -> None:
        if folder is None:
            output.say(json.dumps(spec, indent=1, ensure_ascii=False))
            return
        output.say(f"{spec['display_name']} is in {folder}. Reload Jupyter's page to choose it")

    output.emit({"kernelspec": spec, "folder": folder}, as_json, render)

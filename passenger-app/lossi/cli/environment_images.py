"""``lossi env build``, ``pull`` and ``verify``: build, pull and compare images. They take minutes."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from lossi.cli import options, output

if TYPE_CHECKING:
    from lossi.environments.images import Ready

Name = Annotated[str, typer.Argument(help="Name of the environment.", show_default=False)]
Variant = Annotated[
    str | None,
    typer.Option("--variant", help="Architecture and accelerator, such as x86_64-cuda (default: this machine's, none)."),
]
SifFolder = Annotated[
    Path | None, typer.Option("--sif-folder", help="Folder of SIF files (default: the site's setting `sif_folder`).")
]
CatalogFile = Annotated[
    Path | None, typer.Option("--catalog", help="Catalogue file to record in (default: the site's, if you may write to it).")
]
Own = Annotated[bool, typer.Option("--own", help="Record in your own catalogue, as my-NAME.")]
Insecure = Annotated[
    bool, typer.Option("--insecure", help="Allow plain HTTP and any certificate for registries on other machines.")
]


def build(
    name: Name,
    variant: Variant = None,
    push: Annotated[
        str | None, typer.Option("--push", help="Registry and name to push to, for example registry.example/ml/sklearn:1.")
    ] = None,
    base: Annotated[
        str | None, typer.Option("--base", help="Image to build on instead of the recipe's (your mirror of it).")
    ] = None,
    arguments: Annotated[
        list[str] | None,
        typer.Option("--build-arg", help="NAME=VALUE for the recipe; may be repeated. No secrets: images show it."),
    ] = None,
    mounts: Annotated[
        list[str] | None,
        typer.Option("--mount", help="SOURCE[:TARGET] that only the build sees (pip.conf, certificates); may be repeated."),
    ] = None,
    host_network: Annotated[bool, typer.Option("--host-network", help="Build in the machine's network.")] = False,
    no_sif: Annotated[
        bool, typer.Option("--no-sif", help="Make no SIF: for machines without Apptainer; others can pull the image.")
    ] = False,
    sif_folder: SifFolder = None,
    catalog: CatalogFile = None,
    own: Own = False,
    insecure: Insecure = False,
    as_json: options.Json = False,
) -> None:
    """Build an environment's image from its recipe, make a SIF of it, and record both in the catalogue."""
    from lossi import environments
    from lossi.environments import images

    target = images.Target(sif_folder, catalog, own, insecure, sif=not no_sif)
    with _progress(as_json) as (step, say):
        ready = images.build_image(
            environments.load().get(name),
            variant,
            target=target,
            push=push,
            base=base,
            arguments=arguments or (),
            mounts=mounts or (),
            host_network=host_network,
            say=say,
            step=step,
        )
    _show(ready, as_json)


def pull(
    name: Name,
    variant: Variant = None,
    image: Annotated[
        str | None,
        typer.Option(
            "--image", help="REGISTRY/NAME:TAG or …@sha256:… (default: the catalogue's image and digest). A tag is pinned."
        ),
    ] = None,
    sif_folder: SifFolder = None,
    catalog: CatalogFile = None,
    own: Own = False,
    insecure: Insecure = False,
    as_json: options.Json = False,
) -> None:
    """Pull an environment's image by its digest, make a SIF of it, and record both in the catalogue."""
    from lossi import environments
    from lossi.environments import images

    target = images.Target(sif_folder, catalog, own, insecure)
    with _progress(as_json) as (step, say):
        ready = images.pull_image(environments.load().get(name), variant, target=target, image=image, say=say, step=step)
    _show(ready, as_json)


def verify(name: Name, variant: Variant = None, insecure: Insecure = False, as_json: options.Json = False) -> None:
    """Compare the SIF of an environment with the image of its digest, file by file. Exit code 1 if they differ."""
    from lossi import environments
    from lossi.environments import images

    with _progress(as_json) as (step, say):
        verified = images.verify_image(environments.load().get(name), variant, insecure=insecure, say=say, step=step)

    def render() -> None:
        output.say(f"image  {verified.image}{'@' + verified.digest if verified.digest else ''}")
        output.say(f"       files {verified.image_tree}")
        output.say(f"SIF    {verified.sif}")
        output.say(f"       files {verified.sif_tree}")
        for difference in verified.differences:
            output.say(f"  {difference}")
        output.say(
            "they are the same" if verified.same else f"they differ: do not use the SIF; pull it again: lossi env pull {name}"
        )

    output.emit(verified, as_json, render)
    if not verified.same:
        raise typer.Exit(1)


def _show(ready: Ready, as_json: bool) -> None:
    pin = f"@{ready.digest}" if ready.digest else ""

    def render() -> None:
        output.say(f"image {ready.image}{pin or ' (in no registry)'}")
        if ready.sif:
            output.say(f"SIF   {ready.sif}")
            output.say(f"files {ready.tree}, the same in both")
        output.say(f"It is environment {ready.environment!r}, {ready.variant}, in {ready.catalog}.")
        if ready.listed and not ready.sif:
            output.say(f"Next, on the machine that runs it: lossi env pull {ready.environment} --image {ready.image}{pin}")
        elif ready.listed:
            output.say(f"Next: lossi env check {ready.environment}")
        else:
            output.say(
                f"Lossi does not read that file: add it to `catalogs` in the site file, then: lossi env check {ready.environment}"
            )

    output.emit(ready, as_json, render)


@contextlib.contextmanager
def _progress(as_json: bool) -> Iterator[tuple[Callable[[str], None] | None, Callable[[str], None] | None]]:
    """Yield the callbacks for steps and lines: steps go to stderr, lines of programs to a status line if it is a terminal."""
    previous = signal.signal(signal.SIGTERM, _end)  # exits with clean-up
    try:
        if as_json:
            yield None, None
        elif not sys.stderr.isatty():
            yield output.note, None
        else:
            from rich.text import Text

            from lossi.files.text import neutralised

            console = output.console(stderr=True)
            with console.status("") as status:

                def step(text: str) -> None:
                    console.print(Text(neutralised(text)))
                    status.update(Text(""))

                def line(text: str) -> None:
                    status.update(Text(neutralised(text).replace("\n", " ")[: max(20, console.width - 4)], style="dim"))

                yield step, line
    finally:
        signal.signal(signal.SIGTERM, previous)


def _end(number: int, _frame: object) -> NoReturn:
    raise SystemExit(128 + number)

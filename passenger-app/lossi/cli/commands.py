"""The tree of commands. Each module imports rooms inside its functions, so that ``lossi --help`` is fast."""

from __future__ import annotations

from typing import Annotated

import typer

from lossi import __version__


def build() -> typer.Typer:
    """Return the ``lossi`` command."""
    from lossi.cli import clusters, demo, doctor, environments, install, jobs, notebooks, projects, runs, serve, submit

    app = typer.Typer(
        name="lossi",
        help="Machine-learning runs between the notebook and the batch system: launch, watch, compare.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    submit.register(app)
    jobs.register(app)
    app.add_typer(runs.app, name="runs", help="Tracked runs: list, show, compare, export.")
    app.add_typer(notebooks.app, name="notebook", help="A notebook's parameters, as a script, as HTML.")
    app.add_typer(clusters.app, name="clusters", help="Where jobs can run, and what is offered there.")
    app.add_typer(environments.app, name="env", help="The catalogue of environments.")
    app.command("exec", help="Run a command in an environment, here and now.", context_settings={"ignore_unknown_options": True})(
        environments.exec_command
    )
    app.add_typer(projects.app, name="project", help="The directories that Lossi works in.")
    app.command("serve")(serve.serve)
    app.command("doctor")(doctor.doctor)
    app.command("install")(install.install)
    app.command("uninstall")(install.uninstall)
    app.command("demo")(demo.demo)
    return app


def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=lambda value: _version(value), is_eager=True)
    ] = False,
) -> None:
    """Options before the command."""


def _version(requested: bool) -> None:
    if requested:
        typer.echo(f"lossi {__version__}")
        raise typer.Exit

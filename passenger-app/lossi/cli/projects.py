"""``lossi project``: which directories Lossi works in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lossi.cli import options, output
from lossi.jsonable import plain

app = typer.Typer(no_args_is_help=True)


@app.command("init")
def init(
    folder: Annotated[Path, typer.Argument(help="The project's folder.")] = Path(),
    as_json: options.Json = False,
) -> None:
    """Make a folder a project: create its `.lossi`, which git ignores by itself, and remember it."""
    from lossi import projects

    project = projects.init(folder)
    info = projects.describe(project)
    output.emit(info, as_json, lambda: output.say(f"{project.root} is a project now. Next: lossi run NOTEBOOK.ipynb"))


@app.command("list")
def list_projects(as_json: options.Json = False) -> None:
    """List the projects that you have used, and those that the site offers to all."""
    from lossi import projects

    infos = [projects.describe(project) for project in projects.registered()]

    def render() -> None:
        rows = [
            [
                info.name,
                info.path,
                info.jobs,
                info.runs,
                ((info.git and info.git.commit) or "")[:10],
                "yes" if info.writable else "no",
            ]
            for info in infos
        ]
        output.show_table(
            ("name", "folder", "jobs", "runs", "commit", "writable"),
            rows,
            right=("jobs", "runs"),
            empty="No project yet. Make one with `lossi project init` in its folder.",
        )

    output.emit({"projects": infos}, as_json, render)


@app.command("show")
def show(project: options.Project = None, as_json: options.Json = False) -> None:
    """Show one project: where it is, what git says, how much is in it."""
    from lossi import projects

    info = projects.describe(options.project(project))

    def render() -> None:
        for name, value in plain(info).items():
            output.say(f"{name:16} {'' if value is None else value}")

    output.emit(info, as_json, render)


@app.command("forget")
def forget(project: Annotated[str, typer.Argument(help="Name or folder.")], as_json: options.Json = False) -> None:
    """Take a project off the list; its files stay as they are."""
    from lossi import projects

    found = projects.by_name_or_path(project)
    projects.forget(found)
    output.emit(
        {"forgotten": str(found.root)}, as_json, lambda: output.say(f"{found.root} is off the list; its files are untouched")
    )


@app.command("rebuild")
def rebuild(project: options.Project = None, as_json: options.Json = False) -> None:
    """Make the index of jobs again from the job directories."""
    from lossi import jobs, tracking

    found = options.project(project)
    jobs.rebuild(found)
    report = tracking.ingest_runs(found)
    count = len(jobs.list_jobs(found, limit=1000).items)
    output.emit({"jobs": count, "ingest": report}, as_json, lambda: output.say(f"the index of {found.name} is new: {count} jobs"))

"""``lossi project``: the directories that Lossi works in."""

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
    """Make a folder a project: create its `.lossi` (git ignores it) and add it to your list."""
    from lossi import projects

    project = projects.init(folder)
    info = projects.describe(project)
    output.emit(info, as_json, lambda: output.say(f"{project.root} is now a project. Next: lossi run NOTEBOOK.ipynb"))


@app.command("list")
def list_projects(as_json: options.Json = False) -> None:
    """List your projects and those that the site offers to everyone."""
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
            empty="No projects yet. Run `lossi project init` in a folder to make it one.",
        )

    output.emit({"projects": infos}, as_json, render)


@app.command("show")
def show(project: options.Project = None, as_json: options.Json = False) -> None:
    """Show one project: its folder, git state and contents."""
    from lossi import projects

    info = projects.describe(options.project(project))

    def render() -> None:
        for name, value in plain(info).items():
            output.say(f"{name:16} {'' if value is None else value}")

    output.emit(info, as_json, render)


@app.command("forget")
def forget(project: Annotated[str, typer.Argument(help="Name or folder.")], as_json: options.Json = False) -> None:
    """Remove a project from your list; its files stay."""
    from lossi import projects

    known = projects.by_name_or_path(project)
    projects.forget(known)
    output.emit(
        {"forgotten": str(known.root)}, as_json, lambda: output.say(f"{known.root} is off the list; its files are untouched")
    )


@app.command("rebuild")
def rebuild(project: options.Project = None, as_json: options.Json = False) -> None:
    """Rebuild the index of jobs from the job directories."""
    from lossi import jobs, tracking

    current = options.project(project)
    jobs.rebuild(current)
    report = tracking.ingest_runs(current)
    count = len(jobs.list_jobs(current, limit=1000).items)
    output.emit(
        {"jobs": count, "ingest": report}, as_json, lambda: output.say(f"rebuilt the index of {current.name}: {count} jobs")
    )

"""``lossi demo``: a project with a notebook, swept, tracked, compared and served."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lossi.cli import output
from lossi.contract.states import SUCCEEDED

if TYPE_CHECKING:
    from lossi.jobs import Job
    from lossi.projects import Project

NOTEBOOK = "train_digits.ipynb"
GRID: dict[str, list[object]] = {"classifier": ["logistic", "svc", "forest"], "complexity": [0.3, 3.0], "scaled": [True, False]}


def demo(
    directory: Annotated[
        Path, typer.Option("--directory", "-d", help="Folder of the demo project; an existing one is reused.")
    ] = Path("lossi-demo"),
    serve: Annotated[bool, typer.Option(help="Serve the portal afterwards.")] = True,
) -> None:
    """Make a project with a real notebook, sweep it over twelve parameter combinations, compare the runs, serve the portal."""
    from lossi import projects
    from lossi.cli import follow, serve as portal

    output.say(f"1. A project with a notebook, in git: {directory}")
    project = create_project(directory)
    total = 1
    for values in GRID.values():
        total *= len(values)
    output.say(
        f"2. A sweep of {NOTEBOOK} over {total} combinations, on this machine's cores (the first time, this also makes a tracking store)"
    )
    job = _sweep(project)
    ended = follow.until_ended(project, job.id)
    output.say("3. The runs, best first")
    follow.show_result(project, ended, order_by="metrics.accuracy DESC")
    output.say(f"More:  cd {directory};  lossi runs list;  lossi runs compare --job {job.id};  lossi logs {job.id}")
    output.say(f"MLflow's own UI on the same runs:  mlflow ui --backend-store-uri {projects.stores.tracking_uri(project)}")
    if ended.state != SUCCEEDED:
        raise typer.Exit(1)
    if serve:
        output.say("4. The portal")
        portal.serve(project=str(project.root), port=None, link=False)


def create_project(directory: Path) -> Project:
    """Create the demo project with its first commit, or return the existing one."""
    import pygit2

    from lossi import projects
    from lossi.errors import Conflict

    source = Path(__file__).parent.parent / "demo" / "project"
    if directory.exists() and any(directory.iterdir()) and not (directory / NOTEBOOK).exists():
        raise Conflict(f"{directory} is not empty and not the demo project", hint="choose another folder with --directory")
    if not (directory / NOTEBOOK).exists():
        shutil.copytree(source, directory, dirs_exist_ok=True)
    if not (directory / ".git").exists():
        repository = pygit2.init_repository(str(directory), initial_head="main")
        repository.index.add_all()
        repository.index.write()
        author = pygit2.Signature("Lossi demo", "demo@localhost")
        repository.create_commit(
            "HEAD", author, author, "A notebook that trains classifiers on the UCI digits", repository.index.write_tree(), []
        )
    return projects.init(directory)


def _sweep(project: Project) -> Job:
    from lossi import jobs

    spec = jobs.validated({"notebook": NOTEBOOK, "sweep": {"grid": GRID}, "environment": "sklearn"})
    return jobs.submit(project, spec)

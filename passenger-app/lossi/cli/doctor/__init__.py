"""``lossi doctor``: checks this machine, site and project, and names a remedy for each problem."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from lossi.cli import options, output
from lossi.cli.doctor.finding import Finding, failed
from lossi.errors import LossiError

__all__ = ["Finding", "doctor"]


def doctor(
    project: options.Project = None,
    as_json: options.Json = False,
    environments: Annotated[
        bool, typer.Option(help="Also start each environment that can run here and check its packages (slower).")
    ] = True,
    prefix: Annotated[Path, typer.Option("--prefix", help="Folder that stands for / when checking Open OnDemand.")] = Path("/"),
    export_clusters: Annotated[
        bool,
        typer.Option("--export-clusters", help="Print the clusters in the form of a site file, for nodes without clusters.d."),
    ] = False,
) -> None:
    """Check this machine or site: Open OnDemand, the installation, settings, catalogue, images, clusters, folders and locks."""
    if export_clusters:
        _export_clusters()
        return
    findings = list(_findings(project, environments, prefix))

    def render() -> None:
        for finding in findings:
            mark = {"ok": "ok      ", "warning": "warning ", "error": "ERROR   "}[finding.level]
            output.say(f"{mark} {finding.what}: {finding.detail}")
            if finding.remedy:
                output.say(f"          -> {finding.remedy}")

    output.emit({"findings": findings}, as_json, render)
    if any(finding.level == "error" for finding in findings):
        raise typer.Exit(1)


def _findings(project: str | None, environments: bool, prefix: Path) -> Iterator[Finding]:
    from lossi.cli.doctor import clusters, containers, installation, machine, open_ondemand

    yield Finding("python", "ok", f"{sys.version.split()[0]} at {sys.executable}")
    checks: list[Callable[[], Iterator[Finding]]] = [
        machine.settings,
        machine.folders,
        machine.scheduler,
        clusters.findings,
        lambda: open_ondemand.findings(prefix),
        lambda: installation.findings(prefix),
        installation.site_file,
        containers.apptainer,
        containers.images,
        lambda: machine.catalogue(environments),
        lambda: machine.project(project),
    ]
    for check in checks:
        try:
            yield from check()
        except LossiError as error:  # a failed check does not stop the others
            yield failed("check", error)


def _export_clusters() -> None:
    from lossi import clusters

    known = clusters.load()
    for problem in known.problems:
        output.note(str(problem))
    sys.stdout.write(clusters.export(known.clusters, known.default_name))

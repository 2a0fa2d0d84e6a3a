"""``lossi doctor``: looks at this machine and project and says what is wrong and what to do about it."""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from lossi import units
from lossi.cli import options, output
from lossi.cli.finding import Finding
from lossi.contract.records import PreparedJob
from lossi.errors import LossiError


def doctor(
    project: options.Project = None,
    as_json: options.Json = False,
    environments: Annotated[
        bool, typer.Option(help="Also start the usable environments and look what is in them (slower).")
    ] = True,
    prefix: Annotated[Path, typer.Option("--prefix", help="Folder that stands for / where Open OnDemand is looked at.")] = Path(
        "/"
    ),
    export_clusters: Annotated[
        bool,
        typer.Option(
            "--export-clusters", help="Print the clusters as a part of a site file, for nodes without clusters.d, and end."
        ),
    ] = False,
) -> None:
    """Check this machine, or a site: Open OnDemand, what is installed, settings, catalogue, images, clusters, folders and locks."""
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
    yield Finding("python", "ok", f"{sys.version.split()[0]} at {sys.executable}")
    for look in (_settings, _folders, _scheduler, _clusters):
        yield from _guarded(look)
    yield from _guarded(lambda: _site(prefix))
    yield from _guarded(lambda: _catalogue(environments))
    yield from _guarded(lambda: _project(project))


def _guarded(look: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """A check that itself fails is a finding, not the end of the doctor."""
    try:
        yield from look()
    except LossiError as error:
        yield Finding("check", "error", f"{error.what}{': ' + error.why if error.why else ''}", error.hint)


def _settings() -> Iterator[Finding]:
    from lossi import settings

    settings.load()
    present = [str(path) for path in (settings.site_file(), settings.config_dir() / "settings.yml") if path.exists()]
    yield Finding("settings", "ok", "valid" + (f" ({', '.join(present)})" if present else " (defaults; no file)"))


def _folders() -> Iterator[Finding]:
    from lossi import settings

    for name, folder in (
        ("state folder", settings.state_dir()),
        ("cache folder", settings.cache_dir()),
        ("temporary folder", settings.temporary_dir()),
    ):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder) as probe:
                probe.write(b"x" * 4096)
            free = shutil.disk_usage(folder).free
        except OSError as error:
            yield Finding(
                name,
                "error",
                f"{folder}: {error.strerror}",
                "free some space, or set XDG_STATE_HOME, XDG_CACHE_HOME or TMPDIR to a writable folder",
            )
            continue
        left = f"{folder}: {units.humanize_size(free)} free"
        if free < 500 * 2**20:
            yield Finding(name, "warning", left, "free some space there")
        else:
            yield Finding(name, "ok", left)


def _scheduler() -> Iterator[Finding]:
    from lossi.jobs import schedulers

    scheduler = schedulers.get(None)
    job = PreparedJob(id="0" * 26, name="doctor", kind="command", project=str(Path.cwd()), user="", created="")
    try:
        scheduler.preview(job, Path.cwd())
        yield Finding("scheduler", "ok", scheduler.name)
    except LossiError as error:
        yield Finding("scheduler", "error", f"{error.what}{': ' + error.why if error.why else ''}", error.hint)


def _clusters() -> Iterator[Finding]:
    from lossi.cli import doctor_clusters

    yield from doctor_clusters.findings()


def _site(prefix: Path) -> Iterator[Finding]:
    from lossi.cli import doctor_site

    for look in (lambda: doctor_site.findings(prefix), doctor_site.apptainer, doctor_site.images):
        yield from _guarded(look)


def _export_clusters() -> None:
    from lossi import clusters

    found = clusters.load()
    for problem in found.problems:
        output.note(str(problem))
    sys.stdout.write(clusters.export(found.clusters, found.default_name))


def _catalogue(start: bool) -> Iterator[Finding]:
    from lossi import environments

    catalog = environments.load()
    for problem in catalog.problems:
        yield Finding("catalogue", "error", str(problem), "correct that entry; the others are not affected")
    for environment in catalog.environments:
        try:
            resolved = environments.resolve(environment)
        except LossiError as error:
            yield Finding(f"environment {environment.name}", "warning", error.what, error.hint)
            continue
        failed = [item for item in environments.check(resolved) if not item.ok] if start else []
        for item in failed:
            yield Finding(f"environment {environment.name}", "error", f"{item.name}: {item.detail}", item.remedy)
        if not failed:
            yield Finding(f"environment {environment.name}", "ok", resolved.sif or resolved.python)


def _project(text: str | None) -> Iterator[Finding]:
    from lossi.errors import NotFound

    try:
        project = options.project(text)
    except NotFound:
        if text:
            raise
        yield Finding("project", "ok", "not inside a project: nothing to check")
        return
    writable = os.access(project.root, os.W_OK)
    yield Finding("project", "ok" if writable else "warning", f"{project.root}{'' if writable else ' is read-only for you'}")
    if writable:
        project.home.mkdir(exist_ok=True)
        yield _locks(project.home)


def _locks(folder: Path) -> Finding:
    """Whether two openings of one file exclude each other here, as SQLite and the lease of ingest need it."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".lock-test-") as probe:
        pid = os.fork()
        if pid == 0:  # POSIX locks exclude processes, so the second opener must be one
            os._exit(_try_lock(probe.name))
        before = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        fcntl.lockf(probe.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        pid = os.fork()
        if pid == 0:
            os._exit(_try_lock(probe.name))
        during = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with sqlite3.connect(":memory:") as memory:
        version = memory.execute("select sqlite_version()").fetchone()[0]
    if (before, during) == (0, 1):
        return Finding("locks", "ok", f"work between processes of this machine in {folder} (SQLite {version})")
    return Finding(
        "locks",
        "error",
        f"do not work in {folder}",
        "keep the project on a filesystem with POSIX locks (Lustre: mount with -o flock), or ask your site",
    )


def _try_lock(path: str) -> int:
    try:
        with open(path, "r+b") as stream:  # noqa: PTH123
            fcntl.lockf(stream.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        return 0
    except OSError:
        return 1

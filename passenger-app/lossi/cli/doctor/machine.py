"""The doctor's checks of this machine for this user: settings, folders, scheduler, catalogue, project and file locks."""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

from lossi import units
from lossi.cli import options
from lossi.cli.doctor.finding import Finding, failed
from lossi.contract.records import PreparedJob
from lossi.errors import LossiError, NotFound


def settings() -> Iterator[Finding]:
    """Read the settings."""
    from lossi import settings

    settings.load()
    files = [str(path) for path in (settings.site_file(), settings.config_dir() / "settings.yml") if path.exists()]
    yield Finding("settings", "ok", "valid" + (f" ({', '.join(files)})" if files else " (defaults; no file)"))


def folders() -> Iterator[Finding]:
    """Write to the folders for state, cache and temporary files."""
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
            remedy = "free some space, or set XDG_STATE_HOME, XDG_CACHE_HOME or TMPDIR to a writable folder"
            yield Finding(name, "error", f"{folder}: {error.strerror}", remedy)
            continue
        space = f"{folder}: {units.humanize_size(free)} free"
        if free < 500 * 2**20:
            yield Finding(name, "warning", space, "free some space there")
        else:
            yield Finding(name, "ok", space)


def scheduler() -> Iterator[Finding]:
    """Preview a job on the default scheduler."""
    from lossi.jobs import schedulers

    default = schedulers.get(None)
    job = PreparedJob(id="0" * 26, name="doctor", kind="command", project=str(Path.cwd()), user="", created="")
    try:
        default.preview(job, Path.cwd())
        yield Finding("scheduler", "ok", default.name)
    except LossiError as error:
        yield failed("scheduler", error)


def catalogue(start: bool) -> Iterator[Finding]:
    """Resolve each environment; with ``start``, also start it and check its packages."""
    from lossi import environments

    catalog = environments.load()
    for problem in catalog.problems:
        yield Finding("catalogue", "error", str(problem), "correct that entry; the others are not affected")
    for environment in catalog.environments:
        what = f"environment {environment.name}"
        try:
            resolved = environments.resolve(environment)
        except LossiError as error:
            yield Finding(what, "warning", error.what, error.hint)
            continue
        problems = [item for item in environments.check(resolved) if not item.ok] if start else []
        for item in problems:
            yield Finding(what, "error", f"{item.name}: {item.detail}", item.remedy)
        if not problems:
            yield Finding(what, "ok", resolved.sif or resolved.python)


def project(text: str | None) -> Iterator[Finding]:
    """Check the project and, if it is writable, file locks in it."""
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
    """Return whether locks exclude other processes in a folder, as SQLite and the ingest lease need it."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".lock-test-") as probe:
        before = _lock_in_a_child(probe.name)
        fcntl.lockf(probe.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        during = _lock_in_a_child(probe.name)
    with sqlite3.connect(":memory:") as memory:
        version = memory.execute("select sqlite_version()").fetchone()[0]
    if (before, during) == (0, 1):
        return Finding("locks", "ok", f"work between processes of this machine in {folder} (SQLite {version})")
    remedy = "keep the project on a filesystem with POSIX locks (Lustre: mount with -o flock), or ask your site"
    return Finding("locks", "error", f"do not work in {folder}", remedy)


def _lock_in_a_child(path: str) -> int:
    """Return 0 if another process can lock the file, else 1; POSIX locks do not exclude the process that holds them."""
    pid = os.fork()
    if pid == 0:
        os._exit(_try_lock(path))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def _try_lock(path: str) -> int:
    try:
        with open(path, "r+b") as stream:  # noqa: PTH123
            fcntl.lockf(stream.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        return 0
    except OSError:
        return 1

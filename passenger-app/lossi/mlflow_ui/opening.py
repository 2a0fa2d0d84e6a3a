"""The store that MLflow opens: the project's own under the lease, a copy of it, or a migrated ``mlruns``.

Writes only the lease, and copies into a given folder.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import sqlite3
import sys
import time
from dataclasses import dataclass
from enum import Enum
from importlib import metadata
from pathlib import Path

from lossi import processes, tracking
from lossi.errors import Conflict, Forbidden, NotSupported, Unavailable
from lossi.files import locks
from lossi.projects import Project, stores

COPY = "mlflow.db"
MIGRATION_LIMIT_S = 3600
PATIENCE_S = 15.0
"""How long to wait for the lease, which an ingest may hold, before the store is shown from a copy."""


class Mode(Enum):
    """What MLflow may do; the values are written for the card."""

    WRITABLE = "writable"
    COPY = "copy"
    MIGRATED = "migrated"


@dataclass(frozen=True)
class Opened:
    """A store for MLflow.

    Attributes
    ----------
    uri
        As SQLAlchemy reads it.
    artifacts
        The folder of all artifacts; nothing outside is shown.
    mode
        WRITABLE: the store itself. COPY: a read-only copy as of the start. MIGRATED: made from an old ``mlruns``; changes go
        into this copy.
    why
        Why it is a copy.
    """

    uri: str
    artifacts: Path
    mode: Mode
    why: str = ""
    lease: tracking.Lease | None = None


def open_project(project: Project, scratch: Path, *, hold: bool) -> Opened:
    """Return the project's store for MLflow, or a copy if MLflow may not safely write to it.

    Parameters
    ----------
    project
        The project.
    scratch
        Folder for a copy.
    hold
        Acquire the ingest lease and keep it, so that nobody else writes meanwhile.

    Raises
    ------
    NotFound
        If the project has no store.
    NotSupported
        If the store's schema is not that of this MLflow, which would change it in place.
    Unavailable
        If it cannot be read or copied.
    """
    check_revision(project.store)
    why, lease = "", None
    if not os.access(project.home, os.W_OK) or not os.access(project.store, os.W_OK):
        why = "you may read this project but not write to it"
    elif not locks.hold_between_nodes(project.home):
        why = "locks of this filesystem hold on one node only, so two writers would damage the store"
    elif hold:
        lease, why = _acquire(project)
    if why:
        return copy_store(project, scratch, why)
    return Opened(stores.tracking_uri(project), project.artifacts, Mode.WRITABLE, lease=lease)


def copy_store(project: Project, scratch: Path, why: str) -> Opened:
    """Return a read-only copy of the store as it is now.

    Raises
    ------
    Unavailable
        If it cannot be copied.
    """
    # A new name each time: MLflow keeps what it opened under the old name.
    for old in scratch.glob("*.db"):
        old.unlink(missing_ok=True)
    target = scratch / f"{secrets.token_hex(6)}.db"
    try:
        os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        with (
            contextlib.closing(stores.connect_readonly(project.store)) as source,
            contextlib.closing(sqlite3.connect(target)) as copy,
        ):
            source.backup(copy)
        target.chmod(0o400)
    except (sqlite3.Error, OSError) as error:
        raise Unavailable(
            f"{project.store} cannot be copied to {target}", why=str(error), hint="free some space there and try again"
        ) from error
    return Opened(f"sqlite:///{target.as_uri()}?mode=ro&uri=true", project.artifacts, Mode.COPY, why)


def migrate(mlruns: Path, folder: Path) -> Opened:
    """Let MLflow migrate an old ``mlruns`` into a new store in ``folder``; the old one is only read.

    Raises
    ------
    Conflict
        If ``folder`` has a store already.
    Unavailable
        If MLflow fails; quotes its message.
    """
    target = folder / COPY
    if target.exists():
        raise Conflict(f"{target} already exists", hint="start another session")
    argv = [sys.executable, "-I", "-m", "mlflow", "migrate-filestore", "--no-progress"]
    argv += ["--source", str(mlruns), "--target", f"sqlite:///{target}"]
    try:
        done = processes.run(argv, environment=_environment(), cwd=folder, limit_s=MIGRATION_LIMIT_S)
    except processes.TimeLimitReached:
        target.unlink(missing_ok=True)
        raise Unavailable(
            f"{mlruns} was not migrated within an hour", hint="run `mlflow migrate-filestore` in a job of your own"
        ) from None
    if done.status or not target.exists():
        target.unlink(missing_ok=True)
        raise Unavailable(f"MLflow could not migrate {mlruns}", why=done.last_line)
    target.chmod(0o600)
    return Opened(f"sqlite:///{target}", mlruns, Mode.MIGRATED, "MLflow no longer reads such folders: this is a copy of it")


def check_revision(store: Path) -> None:
    """Refuse a store that the MLflow of this environment would upgrade or not understand.

    Raises
    ------
    NotFound, NotSupported, Unavailable
    """
    revision = stores.revision(store)
    written_by = stores.KNOWN_REVISIONS.get(revision or "")
    try:
        installed = ".".join(metadata.version("mlflow").split(".")[:2])
    except metadata.PackageNotFoundError:
        raise NotSupported(
            f"{sys.executable} has no MLflow", hint="ask your site's support to name an environment that has it"
        ) from None
    if written_by is None or written_by != installed:
        raise NotSupported(
            f"{store} has a schema (revision {revision}) that MLflow {installed} would change in place",
            why="older programs could not read it afterwards",
            hint="look at its runs in Lossi itself, which reads it as it is",
        )


def _acquire(project: Project) -> tuple[tracking.Lease | None, str]:
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            lease = tracking.acquire_lease(project.home)
        except Forbidden as error:
            return None, error.why or error.what
        if lease is not None:
            return lease, ""
        if time.monotonic() > end:
            return None, "another process is writing to it, perhaps another session on the same project"
        time.sleep(0.2)


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "_MLFLOW_", "PYTHON"))}
    return {**kept, "MLFLOW_ALLOW_FILE_STORE": "true", "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}

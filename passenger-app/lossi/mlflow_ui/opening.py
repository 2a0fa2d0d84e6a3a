"""What MLflow is given to open: the project's store under the lease, a copy of it, or what an old ``mlruns`` became.

Room: mlflow_ui. Writes nothing but copies in a folder that it is given, the lease, and what the ingest writes.
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
"""How long a page that takes in results may hold the lease before the store is shown from a copy."""


class Mode(Enum):
    """What MLflow may do; the value is what the card says."""

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
        The folder that holds all artifacts; nothing outside of it is shown.
    mode
        WRITABLE: the store itself. COPY: as it was at the start, for reading. MIGRATED: made from an old ``mlruns``; what is
        changed there is changed in the copy.
    why
        Why it is a copy.
    """

    uri: str
    artifacts: Path
    mode: Mode
    why: str = ""
    lease: tracking.Lease | None = None


def open_project(project: Project, scratch: Path, *, hold: bool) -> Opened:
    """Return the project's store for MLflow, or a copy where MLflow may not safely write to it.

    Parameters
    ----------
    project
        Whose store.
    scratch
        Folder for a copy.
    hold
        Take the lease of the ingest and keep it, so that nobody else writes meanwhile.

    Raises
    ------
    NotFound
        When the project has no store.
    NotSupported
        When the store's schema is not that of the MLflow here, which would change it in place.
    Unavailable
        When it cannot be read or copied.
    """
    check_revision(project.store)
    why, lease = "", None
    if not os.access(project.home, os.W_OK) or not os.access(project.store, os.W_OK):
        why = "you may read this project but not write to it"
    elif not locks.hold_between_nodes(project.home):
        why = "locks of this filesystem hold on one node only, so that two writers would damage the store"
    elif hold:
        lease, why = _acquire(project)
    if why:
        return copied(project, scratch, why)
    return Opened(stores.tracking_uri(project), project.artifacts, Mode.WRITABLE, lease=lease)


def copied(project: Project, scratch: Path, why: str) -> Opened:
    """Return the store as it is now, in a file that nobody writes to.

    Raises
    ------
    Unavailable
        When it cannot be copied.
    """
    # A new name each time: MLflow keeps what it opened under the old one.
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


def migrated(mlruns: Path, folder: Path) -> Opened:
    """Let MLflow migrate an old ``mlruns`` into a new store in ``folder``; the old one is only read.

    Raises
    ------
    Conflict
        When there is a store already.
    Unavailable
        When MLflow could not do it; says why in MLflow's own words.
    """
    target = folder / COPY
    if target.exists():
        raise Conflict(f"there is {target} already", hint="start another session")
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
    return Opened(f"sqlite:///{target}", mlruns, Mode.MIGRATED, "MLflow reads such folders no more: this is a copy of it")


def check_revision(store: Path) -> None:
    """Refuse a store that the MLflow of this environment would upgrade or not understand.

    Raises
    ------
    NotFound, NotSupported, Unavailable
    """
    revision = stores.revision(store)
    made_by = stores.KNOWN_REVISIONS.get(revision or "")
    try:
        here = ".".join(metadata.version("mlflow").split(".")[:2])
    except metadata.PackageNotFoundError:
        raise NotSupported(
            f"{sys.executable} has no MLflow", hint="tell your site's support: name an environment that has it"
        ) from None
    if made_by is None or made_by != here:
        raise NotSupported(
            f"{store} has a schema (revision {revision}) that MLflow {here} would change in place",
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
            return None, "another process is writing to it, such as another session on the same project"
        time.sleep(0.2)


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "_MLFLOW_", "PYTHON"))}
    return {**kept, "MLFLOW_ALLOW_FILE_STORE": "true", "MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}

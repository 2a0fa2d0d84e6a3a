"""Empty MLflow stores, created once per environment by its own MLflow and kept in the user's cache.

Creating a store runs all of MLflow's migrations, which takes seconds; copying one takes milliseconds. Writes ``<cache>/stores``
and starts one child process, the only use of MLflow here.
"""

from __future__ import annotations

import hashlib
import os
import re
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path

from lossi import processes, settings
from lossi.errors import LossiError, NotSupported, Unavailable
from lossi.files import atomic

FORM = 1
"""Increase it when `CHILD` changes, so that older cached stores are not used."""

PAGE_BYTES = 1024
"""MLflow's fifty tables and their indexes use a page each: 286 kB in total, instead of 954 kB with 4,096-byte pages."""

TIME_LIMIT_S = 300.0

# The child creates the store in a temporary folder and returns it through the pipe: nothing needs to be mounted in a container,
# and no user text becomes part of a path. MLflow's own output goes to stderr.
CHILD = f"""
import os, sqlite3, sys, tempfile
out = os.dup(1)
os.dup2(2, 1)
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
with tempfile.TemporaryDirectory(prefix="lossi-store-") as folder:
    path = os.path.join(folder, "store.db")
    store = SqlAlchemyStore("sqlite:///" + path, os.path.join(folder, "artifacts"))
    store.engine.dispose()
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=DELETE")
    connection.execute("PRAGMA page_size={PAGE_BYTES}")
    connection.execute("VACUUM")
    connection.close()
    with open(path, "rb") as store, os.fdopen(out, "wb") as answer:
        answer.write(store.read())
"""


def template(argv_prefix: Sequence[str], cache_key: str, variables: Mapping[str, str]) -> Path:
    """Return the path of an empty MLflow store created by an environment's own MLflow, cached.

    Parameters
    ----------
    argv_prefix
        Everything up to and including the interpreter: ``[*resolved.prefix, resolved.python]``.
    cache_key
        What the store depends on: image digest, or interpreter and versions. Any text.
    variables
        The child's whole environment; MLflow's variables are removed and telemetry is switched off.

    Returns
    -------
    Path
        A SQLite file with 1,024-byte pages, alembic's revision and experiment 0. Copy it, never write to it.

    Raises
    ------
    NotSupported
        When the environment has no MLflow, or one that cannot open SQLite (mlflow-skinny).
    Unavailable
        When the interpreter cannot be started, or the cache cannot be written.
    """
    folder = settings.cache_dir() / "stores"
    path = folder / f"{_file_stem(cache_key)}.db"
    if path.exists():
        return path
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise atomic.explained(error, folder) from error
    with atomic.locked(path.with_suffix(".lock")):  # a second process waits for the first one's store
        if not path.exists():
            data = _create(argv_prefix, variables)
            atomic.write(path, data, mode=0o600)
            _check(path)
    return path


def _file_stem(cache_key: str) -> str:
    readable = re.sub(r"[^A-Za-z0-9.-]+", "-", cache_key).strip("-.")[:40]
    digest = hashlib.sha256(f"{FORM}:{cache_key}".encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return f"{readable}-{digest}"


def _create(argv_prefix: Sequence[str], variables: Mapping[str, str]) -> bytes:
    argv = [*argv_prefix, "-I", "-c", CHILD]
    environment = {name: value for name, value in variables.items() if not name.startswith(("MLFLOW_", "_MLFLOW_"))}
    environment |= {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "MLFLOW_CONFIGURE_LOGGING": "false"}
    environment.setdefault("PATH", os.defpath)
    shown = " ".join(argv_prefix)
    try:
        done = processes.run(argv, environment=environment, limit_s=TIME_LIMIT_S)
    except processes.TimeLimitReached:
        raise Unavailable(
            f"{shown} did not create an MLflow store within {TIME_LIMIT_S:.0f} s", hint="is its filesystem slow? try again"
        ) from None
    except OSError as error:
        raise Unavailable(
            f"cannot start {shown}", why=error.strerror or str(error), hint="check the environment with `lossi env check`"
        ) from error
    if done.status or not done.stdout.startswith(b"SQLite format 3\0"):
        raise _failed(shown, done.last_line)
    return done.stdout


def _failed(shown: str, last: str) -> LossiError:
    if "No module named" in last or "ImportError" in last:
        return NotSupported(
            f"{shown} cannot create an MLflow store",
            why=last,
            hint="the environment needs the full mlflow package (mlflow-skinny cannot open SQLite); see `lossi env check`",
        )
    return Unavailable(f"{shown} could not create an MLflow store", why=last, hint="check it with `lossi env check`")


def _check(path: Path) -> None:
    """Refuse and remove a damaged store, so that the next call creates it again."""
    try:
        connection = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)
        try:
            connection.execute("PRAGMA trusted_schema=OFF")
            whole = connection.execute("PRAGMA quick_check").fetchone()[0] == "ok"
            connection.execute("SELECT version_num FROM alembic_version, experiments WHERE experiment_id = 0").fetchone()[0]
        finally:
            connection.close()
    except (sqlite3.Error, TypeError) as error:
        whole, why = False, str(error)
    else:
        why = "it is damaged"
    if not whole:
        path.unlink(missing_ok=True)
        raise Unavailable("the new MLflow store cannot be used", why=why, hint="try again; check space in the cache folder")

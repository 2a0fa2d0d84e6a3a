"""Empty MLflow stores, each made once per environment by that environment's own MLflow and kept in the user's cache.

A fresh store runs all of MLflow's migrations, which takes seconds; a copy of a ready-made one takes milliseconds. Touches
``<cache>/stores`` and starts one child process, the only way in which MLflow is ever used from here.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from lossi import processes, settings
from lossi.errors import LossiError, NotSupported, Unavailable
from lossi.files import atomic

FORM = 1
"""Raised when `CHILD` changes, so that older cached stores are not used."""

PAGE_BYTES = 1024
"""MLflow's fifty tables and their indexes take a page each: 286 kB with these instead of 954 kB with 4,096-byte pages."""

TIME_LIMIT_S = 300.0

# The store is made in the child's own temporary folder and comes back through the pipe: nothing needs to be mounted into a
# container, and no text of a user's becomes part of a path. Whatever MLflow prints goes to stderr.
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
    with open(path, "rb") as made, os.fdopen(out, "wb") as answer:
        answer.write(made.read())
"""


def template(argv_prefix: Sequence[str], cache_key: str, variables: Mapping[str, str]) -> Path:
    """Return the path of an empty MLflow store made by an environment's own MLflow, from the cache where it is there.

    Parameters
    ----------
    argv_prefix
        Everything up to and including the interpreter: ``[*resolved.prefix, resolved.python]``.
    cache_key
        What the store depends on: image digest, or interpreter and versions. Any text.
    variables
        The whole environment of the child; telemetry is switched off in it, and MLflow's own variables are left out.

    Returns
    -------
    Path
        A SQLite file with 1,024-byte pages, alembic's revision and experiment 0. Only ever copied, never written.

    Raises
    ------
    NotSupported
        When the environment's MLflow cannot open SQLite (mlflow-skinny), or there is none.
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
    with _one_maker(path):
        if not path.exists():
            data = _made(argv_prefix, variables)
            atomic.write(path, data, mode=0o600)
            _check(path)
    return path


def _file_stem(cache_key: str) -> str:
    readable = re.sub(r"[^A-Za-z0-9.-]+", "-", cache_key).strip("-.")[:40]
    digest = hashlib.sha256(f"{FORM}:{cache_key}".encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return f"{readable}-{digest}"


def _made(argv_prefix: Sequence[str], variables: Mapping[str, str]) -> bytes:
    argv = [*argv_prefix, "-I", "-c", CHILD]
    environment = {name: value for name, value in variables.items() if not name.startswith(("MLFLOW_", "_MLFLOW_"))}
    environment |= {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true", "MLFLOW_CONFIGURE_LOGGING": "false"}
    environment.setdefault("PATH", os.defpath)
    shown = " ".join(argv_prefix)
    try:
        done = processes.run(argv, environment=environment, limit_s=TIME_LIMIT_S)
    except processes.TimeLimitReached:
        raise Unavailable(
            f"{shown} did not make an MLflow store within {TIME_LIMIT_S:.0f} s", hint="is its filesystem slow? try again"
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
            f"{shown} cannot make an MLflow store",
            why=last,
            hint="the environment needs the full mlflow package (mlflow-skinny cannot open SQLite); see `lossi env check`",
        )
    return Unavailable(f"{shown} could not make an MLflow store", why=last, hint="check it with `lossi env check`")


def _check(path: Path) -> None:
    """Refuse a store that is not whole; the file is removed so that the next call makes it again."""
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


@contextlib.contextmanager
def _one_maker(path: Path) -> Iterator[None]:
    """Let a second process wait for the first one's store instead of making its own (where the filesystem has locks)."""
    try:
        descriptor = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise atomic.explained(error, path) from error
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)

"""Render notebooks to HTML with nbconvert in a child process; pages are cached by the content's digest.

Starts at most one child per content and writes only below the cache folder. The child has memory and time limits, a clean
environment and the lowest priority, and dies with its parent.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from lossi import errors, processes, settings
from lossi.errors import LossiError, NotSupported, Unavailable
from lossi.files import atomic
from lossi.notebooks.document import checked_size, open_regular

FORM = "1"
"""Increase it when the child renders the same notebook differently, so that old pages are not used."""
STARTED = b"started"
_CHILD = Path(__file__).with_name("rendering_child.py")
_LOOK_EVERY_S = 0.02


class StillRendering(Unavailable):
    """The page is not ready within the caller's waiting time."""

    slug = "still-rendering"
    title = "Still working"


def render(source: Path | bytes | BinaryIO, *, cache: Path | None = None, wait_s: float | None = None) -> Path:
    """Return the path of the notebook as one HTML page, without scripts or references to other hosts.

    Parameters
    ----------
    source
        The notebook: its path, its bytes, or an open file.
    cache
        Folder of rendered pages; by default ``render`` in the cache folder of the settings.
    wait_s
        How long to wait for the page, in seconds; None: to the end. Rendering continues, and a later call returns its result.

    Raises
    ------
    NotFound, Forbidden, InvalidInput
        As `read` does.
    StillRendering
        When ``wait_s`` has passed.
    NotSupported
        When the page needs more memory or time than the settings allow.
    Unavailable
        When nbconvert is missing or the cache cannot be written.
    """
    limits = settings.load()
    deadline = time.monotonic() + (limits.render_timeout_s + 5 if wait_s is None else wait_s)
    folder = (cache or settings.cache_dir() / "render") / FORM
    with _opened(source) as stream:
        page = folder / f"{_digest(stream)}.html"
        if _still_there(page):
            return page
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise atomic.explained(error, folder) from error
        while True:
            with _lock(page) as lock:
                if lock is not None:
                    _raise_earlier_problem(page, lock)
                    if page.exists():
                        return page
                    child = _start(stream, page, lock, limits)
                else:
                    child = None
            if _finished(page, child, deadline):
                return page
            if time.monotonic() >= deadline:
                raise StillRendering("the notebook is still being rendered", hint="try again in a few seconds")


@contextlib.contextmanager
def _opened(source: Path | bytes | BinaryIO) -> Iterator[BinaryIO]:
    if isinstance(source, Path):
        with open_regular(source) as stream:
            yield stream
    elif isinstance(source, bytes):
        with tempfile.TemporaryFile() as stream:
            stream.write(source)
            stream.flush()
            checked_size(stream, "the notebook")
            yield stream
    else:
        checked_size(source, "the notebook")
        yield source


def _digest(stream: BinaryIO) -> str:
    stream.seek(0)
    digest = hashlib.sha256()
    while block := stream.read(2**20):
        digest.update(block)
    return digest.hexdigest()


def _still_there(page: Path) -> bool:
    """Return whether the page is cached, and mark it as used."""
    try:
        os.utime(page)
    except OSError:
        return page.exists()
    return True


@contextlib.contextmanager
def _lock(page: Path) -> Iterator[int | None]:
    """Yield a descriptor that holds the lock on a page, or None while a child is making it.

    The child inherits the descriptor, so the lock ends with the child however that ends.
    """
    try:
        descriptor = os.open(page.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise atomic.explained(error, page) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        except OSError as error:
            hint = "set XDG_CACHE_HOME to a folder on a local disk"
            raise Unavailable(f"cannot lock files in {page.parent}", why=error.strerror or str(error), hint=hint) from error
        else:
            yield descriptor
    finally:
        os.close(descriptor)


def _start(stream: BinaryIO, page: Path, lock: int, limits: settings.Settings) -> subprocess.Popen[bytes]:
    """Start the child that renders a page; the lock file contains ``started`` until it ends normally."""
    os.pwrite(lock, STARTED, 0)
    # Opened again, because the position of the caller's descriptor must not move.
    notebook = os.open(f"/proc/self/fd/{stream.fileno()}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        limits_given = (str(limits.render_limit_mb), str(limits.render_timeout_s))
        return processes.start(
            [sys.executable, "-I", str(_CHILD), str(page), str(lock), str(os.getpid()), *limits_given],
            environment=_environment(),
            stdin=notebook,
            pass_fds=[lock],
        )
    except OSError as error:
        os.ftruncate(lock, 0)
        raise Unavailable("cannot start the renderer", why=str(error), hint="try again in a moment") from error
    finally:
        os.close(notebook)


def _environment() -> dict[str, str]:
    """Return the child's environment: no user configuration, no proxies, no secrets."""
    return {
        "PATH": "/usr/bin:/bin",
        "HOME": "/nonexistent",
        "LANG": "C.UTF-8",
        "TMPDIR": str(settings.temporary_dir()),
        "JUPYTER_NO_CONFIG": "1",
        "JUPYTER_PREFER_ENV_PATH": "1",
    }


def _finished(page: Path, child: subprocess.Popen[bytes] | None, deadline: float) -> bool:
    """Wait until the page exists or its process has ended; return whether the page exists."""
    while not page.exists():
        if child is not None:
            try:
                child.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                return page.exists()
            return page.exists()
        if time.monotonic() >= deadline:
            return False
        with _lock(page) as free:
            if free is not None:
                return page.exists()
        time.sleep(_LOOK_EVERY_S)
    if child is not None:
        child.wait()
    return True


def _raise_earlier_problem(page: Path, lock: int) -> None:
    """Raise the problem of this page's last child, or that it died; only once, so that the next call tries again."""
    report = page.with_suffix(".problem")
    died = os.pread(lock, len(STARTED), 0) == STARTED
    os.ftruncate(lock, 0)
    try:
        problem = json.loads(report.read_bytes())
        report.unlink(missing_ok=True)
    except (OSError, ValueError):
        if died and not page.exists():
            raise NotSupported(
                "the notebook could not be rendered",
                why="the renderer exceeded its memory or time limit",
                hint="clear large outputs in the notebook, or raise render_limit_mb or render_timeout_s in the settings",
            ) from None
        return
    raise _error(problem)


def _error(problem: dict[str, str]) -> LossiError:
    kind: type[LossiError] = getattr(errors, problem.get("kind", ""), Unavailable)
    return kind(problem["what"], why=problem.get("why", ""), hint=problem.get("hint", ""))

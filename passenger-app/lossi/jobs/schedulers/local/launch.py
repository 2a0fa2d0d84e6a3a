"""Makes sure that exactly one supervisor runs, from any number of processes at once.

Touches the state folder and starts one detached process.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

from lossi import processes
from lossi.errors import Unavailable
from lossi.files import atomic
from lossi.jobs.schedulers.local import machine, queue
from lossi.jobs.schedulers.local.queue import Places
from lossi.processes import BOOT_ID_FILE

MAIN = Path(__file__).with_name("__main__.py")
LINGER_S = 1.5
"""How long a supervisor waits for the next job, which then starts without delay."""


def ensure(places: Places, *, boot_id_file: Path = BOOT_ID_FILE, linger_s: float = LINGER_S) -> bool:
    """Start a supervisor unless one is alive; return whether one is ready.

    Raises
    ------
    Unavailable, Forbidden
        If the state folder cannot be written, or no process can be started.
    """
    lock = queue.try_lock(places)
    if lock is None:
        return queue.holder(places) is not None
    try:
        queue.write_holder(lock, None)
        _start(places, lock, boot_id_file, linger_s)
    finally:
        os.close(lock)
    return False


def until_ready(places: Places, timeout_s: float) -> bool:
    """Wait until the starting supervisor is ready; return whether it was in time."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if queue.holder(places) is not None:
            return True
        time.sleep(0.005)
    return False


def _start(places: Places, lock: int, boot_id_file: Path, linger_s: float) -> None:
    argv = [sys.executable, "-I", "-S", str(MAIN), str(places.root), str(lock), str(boot_id_file), str(linger_s)]
    try:
        log = os.open(places.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise atomic.explained(error, places.log) from error
    try:
        environment = {**clean_environment(), **machine.passed_on(os.environ)}
        status = processes.start(argv, environment=environment, stdout=log, stderr=log, pass_fds=[lock]).wait()
    except OSError as error:
        raise Unavailable("cannot start the local scheduler", why=str(error), hint="end some processes and try again") from error
    finally:
        os.close(log)
    if status != 0:
        raise Unavailable("cannot start the local scheduler", why=f"see {places.log}")


def clean_environment() -> dict[str, str]:
    """Return the few variables that a task may rely on, whatever the submitting process has."""
    basic = processes.basic_environment()
    return {
        **basic,
        "SHELL": os.environ.get("SHELL") or processes.user().shell or "/bin/sh",
        "LANG": os.environ.get("LANG") or basic["LANG"],
        "TMPDIR": tempfile.gettempdir(),
    }

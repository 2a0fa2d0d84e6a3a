"""Seeing to it that a supervisor runs: from any process, any number at once, exactly one comes of it.

Touches the local scheduler's state folder and starts one detached process.
"""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lossi.errors import Unavailable
from lossi.files import atomic
from lossi.jobs.schedulers.local import machine, queue
from lossi.jobs.schedulers.local.processes import BOOT_ID_FILE
from lossi.jobs.schedulers.local.queue import Places

MAIN = Path(__file__).with_name("__main__.py")
LINGER_S = 1.5
"""A supervisor waits that long for the next job, which then starts without delay."""


def ensure(places: Places, *, boot_id_file: Path = BOOT_ID_FILE, linger_s: float = LINGER_S) -> bool:
    """Start a supervisor unless one lives; return whether one does that has taken stock of what was there before it.

    Raises
    ------
    Unavailable, Forbidden
        When the state folder cannot be written, or no process can be started.
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
    """Wait until the supervisor that is starting has taken stock; return whether it did within the time."""
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
        started = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env={**clean_environment(), **machine.passed_on(os.environ)},
            pass_fds=(lock,),
            start_new_session=True,
            check=False,
        )
    except OSError as error:
        raise Unavailable("cannot start the local scheduler", why=str(error), hint="end some processes and try again") from error
    finally:
        os.close(log)
    if started.returncode != 0:
        raise Unavailable("cannot start the local scheduler", why=f"see {places.log}")


def clean_environment() -> dict[str, str]:
    """Return the few variables that a task may rely upon, whatever the submitting process carries with it."""
    name, home, shell = _account()
    return {
        "HOME": os.environ.get("HOME") or home,
        "PATH": os.environ.get("PATH") or "/usr/local/bin:/usr/bin:/bin",
        "USER": name,
        "LOGNAME": name,
        "SHELL": os.environ.get("SHELL") or shell or "/bin/sh",
        "LANG": os.environ.get("LANG") or "C.UTF-8",
        "TMPDIR": tempfile.gettempdir(),
    }


def user_name() -> str:
    """Return the name of the user that this process acts as; its number where it has none."""
    return _account()[0]


def _account() -> tuple[str, str, str]:
    try:
        me = pwd.getpwuid(os.geteuid())
    except KeyError:  # a container without this user in its passwd
        return str(os.geteuid()), "/", ""
    return me.pw_name, me.pw_dir, me.pw_shell

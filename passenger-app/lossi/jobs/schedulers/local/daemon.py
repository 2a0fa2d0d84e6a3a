"""Makes a process a daemon: drops what it inherited from the submitter, and keeps its log small.

Imported by the supervisor alone. Touches this process and the supervisor's log.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from lossi.jobs.schedulers.local import task_processes
from lossi.jobs.schedulers.local.journal import now

LOG_LIMIT = 2**20


def say(text: str) -> None:
    """Write a line to the log; a full disk is no reason to leave tasks alone."""
    with contextlib.suppress(OSError):
        print(now(), text.rstrip(), file=sys.stderr, flush=True)


def rotate_log(path: Path) -> None:
    """Start a new log if this one exceeds `LOG_LIMIT`; the previous one is kept next to it."""
    with contextlib.suppress(OSError):
        if path.stat().st_size > LOG_LIMIT:
            path.replace(path.with_suffix(".log.1"))
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            os.close(descriptor)


def _nothing(number: int, frame: object) -> None:
    """Ignore a signal: unlike SIG_IGN, tasks do not inherit this."""


def _leave(number: int, frame: object) -> None:
    """End at once on SIGTERM; tasks go on and are adopted by the next supervisor (in a Slurm allocation they end with it)."""
    os._exit(0)


def prepare_process() -> None:
    """Drop what was inherited from the submitter: signals, folder, umask."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    handlers: dict[int, Callable[[int, object], None]] = {
        signal.SIGCHLD: _nothing,
        signal.SIGHUP: _nothing,
        signal.SIGINT: _nothing,
        signal.SIGTERM: _leave,
    }
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        with contextlib.suppress(OSError, ValueError):
            signal.signal(number, handlers.get(number, signal.SIG_DFL))
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    os.umask(0o027)
    os.chdir("/")
    try:
        task_processes.become_subreaper()
    except OSError as error:
        say(f"orphans of tasks can only be found by their environment: {error}")

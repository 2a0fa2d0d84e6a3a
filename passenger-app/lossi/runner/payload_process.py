"""Starting a payload and waiting for its end: its events, publishing, a request to stop, the kill after the grace period."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from typing import Any, Dict, List, Optional

from ..contract import records
from ..contract.records import TaskError
from . import tracking
from .attempt import Attempt
from .errors import TaskFailure
from .processes import TaskProcesses
from .progress import now
from .sampling import Sampler

RANKS_PATIENCE_S = 3.0
"""Seconds to wait for the exit record of a process on another node, which may be why this one failed."""


def start(argv: List[bytes], environment: Dict[str, str], **options: Any) -> "subprocess.Popen[bytes]":
    """Start a process in its own session: a signal for it reaches its children, and a terminal's does not reach it.

    Raises
    ------
    TaskFailure
        When it cannot be started.
    """
    options.setdefault("stdin", subprocess.DEVNULL)
    try:
        return subprocess.Popen(argv, env=environment, start_new_session=True, **options)
    except (OSError, ValueError) as error:
        name = os.fsdecode(argv[0])
        raise TaskFailure(f"cannot start {name!r}: {getattr(error, 'strerror', None) or error}") from error


def watch(
    task: Attempt,
    process: "subprocess.Popen[bytes]",
    events: Optional[int],
    processes: TaskProcesses,
    store: tracking.Tracking,
    sampler: Sampler,
) -> int:
    """Wait for the payload's end: read its events, publish, pass on a request to stop, kill after the grace period."""
    task.payload_started = True
    task.progress.phase("running")
    store.begin(lambda: (sampler.gpu_type, sampler.gpu_driver))
    kill_at: Optional[float] = None
    buffer = b""
    while process.poll() is None:
        if task.ranks is not None and not task.signals.stopped:
            task.ranks.read()
            if task.ranks.failed is not None:
                task.failed_rank, task.signals.stopped_at = task.ranks.failed, time.time()
        if task.signals.stopped and not task.stop_sent:
            task.stop_sent, kill_at = True, time.monotonic() + task.grace_s
            task.failed_s = task.failed_s or task.signals.stopped_at
            _signal(process, signal.SIGTERM, group=task.job.kind != "notebook")
        if kill_at is not None and time.monotonic() >= kill_at:
            processes.end(0.0)
        task.progress.flush()
        store.poll()
        timeout = 1.0 if kill_at is None else min(1.0, max(0.02, kill_at - time.monotonic()))
        if events in task.signals.wait(timeout, [] if events is None else [events]):
            assert events is not None
            data = os.read(events, 1 << 16)
            if not data:
                os.close(events)
                events = None
            buffer = _take_events(task, buffer + data)
    if events is not None:
        os.set_blocking(events, False)
        while True:
            try:
                data = os.read(events, 1 << 16)
            except BlockingIOError:
                break
            if not data:
                break
            buffer = _take_events(task, buffer + data)
        os.close(events)
    return process.returncode


def await_ranks(task: Attempt, returncode: int, store: tracking.Tracking) -> None:
    """Wait for the processes on the task's other nodes: it succeeded only if they all did.

    If this process failed, wait for a moment only: another one may be the cause.
    """
    ranks = task.ranks
    if ranks is None or task.signals.stopped:
        return
    returned_s = time.time()
    deadline, ended = None if returncode == 0 else time.monotonic() + RANKS_PATIENCE_S, now()
    while True:
        ranks.read()
        if ranks.ended or ranks.failed is not None or task.signals.stopped:
            break
        if deadline is not None and time.monotonic() >= deadline:
            break
        task.progress.flush()
        store.poll()
        task.signals.wait(0.1, [])
    failed = ranks.failed
    if failed is None or task.signals.stopped:
        return
    if returncode == 0 or failed.exit.ended <= ended:
        task.failed_rank = failed
        task.failed_s = task.failed_s or returned_s - 1.0  # a run that was closed because this process ended did not finish
    else:  # it failed after this process, and so because of it
        task.note(failed.reason)


def _signal(process: "subprocess.Popen[bytes]", number: int, *, group: bool) -> None:
    try:
        if group:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
    except OSError:
        pass


def _take_events(task: Attempt, buffer: bytes) -> bytes:
    """Process the whole lines of the buffer; return the rest."""
    *lines, rest = buffer.split(b"\n")
    for line in lines:
        facts = json.loads(line)
        event = facts.pop("event")
        task.progress.event(event, facts)
        if event == "start":
            for note in facts.get("notes", ()):
                task.notes.append(note)
                task.progress.note(note)
        elif event == "error":
            task.failed_s = task.failed_s or float(facts["t"])
        elif event == "end":
            task.error = records.from_dict(TaskError, facts["error"]) if facts.get("error") else None
            task.kernel_signal = facts.get("signal")
    return rest

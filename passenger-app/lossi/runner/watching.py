"""Starting a payload and waiting for its end: its reports, publishing, a request to stop, the kill when the grace is over."""

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
from .processes import Family
from .progress import now
from .sampling import Sampler
from .writing import TaskFailure

RANKS_PATIENCE_S = 3.0
"""Seconds that the account of a process on another node may take, which may be why this one failed."""


def start(argv: List[bytes], environment: Dict[str, str], **options: Any) -> "subprocess.Popen[bytes]":
    """Start a process in a session of its own, so that a signal for it reaches what it started, and no terminal's reaches it.

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
    family: Family,
    store: tracking.Tracking,
    sampler: Sampler,
) -> int:
    """Wait for the payload's end: take its reports, publish, pass on a request to stop, kill when the grace is over."""
    task.ran = True
    task.progress.phase("running")
    store.begin(lambda: (sampler.gpu_type, sampler.gpu_driver))
    kill_at: Optional[float] = None
    buffer = b""
    while process.poll() is None:
        if task.ranks is not None and not task.signals.stopped:
            task.ranks.read()
            if task.ranks.lost is not None:
                task.lost, task.signals.stopped_at = task.ranks.lost, time.time()
        if task.signals.stopped and not task.told:
            task.told, kill_at = True, time.monotonic() + task.grace_s
            task.failed_s = task.failed_s or task.signals.stopped_at
            _signal(process, signal.SIGTERM, group=task.job.kind != "notebook")
        if kill_at is not None and time.monotonic() >= kill_at:
            family.end(0.0)
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


def await_others(task: Attempt, returncode: int, store: tracking.Tracking) -> None:
    """Wait for the processes on the task's further nodes: it has succeeded when they all have.

    Where this one failed by itself, only for a moment: it may have been because of another.
    """
    ranks = task.ranks
    if ranks is None or task.signals.stopped:
        return
    returned_s = time.time()
    deadline, ended = None if returncode == 0 else time.monotonic() + RANKS_PATIENCE_S, now()
    while True:
        ranks.read()
        if ranks.ended or ranks.lost is not None or task.signals.stopped:
            break
        if deadline is not None and time.monotonic() >= deadline:
            break
        task.progress.flush()
        store.poll()
        task.signals.wait(0.1, [])
    lost = ranks.lost
    if lost is None or task.signals.stopped:
        return
    if returncode == 0 or lost.exit.ended <= ended:
        task.lost = lost
        task.failed_s = task.failed_s or returned_s - 1.0  # a run that was closed because this process ended did not finish
    else:  # it failed after this one, and so because of it
        task.note(lost.reason)


def _signal(process: "subprocess.Popen[bytes]", number: int, *, group: bool) -> None:
    try:
        if group:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
    except OSError:
        pass


def _take_events(task: Attempt, buffer: bytes) -> bytes:
    """Take whole lines out of the buffer; return what is left of it."""
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

"""What tests of the local scheduler look at: its supervisors and the processes of its tasks."""

from __future__ import annotations

import json
import os
import signal
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

from scheduler_jobs import Prepared, eventually, lives

from lossi import processes
from lossi.contract import records
from lossi.contract.states import has_ended
from lossi.jobs.schedulers.base import JobView
from lossi.jobs.schedulers.local import queue
from lossi.jobs.schedulers.local.adapter import LocalScheduler

ACCOUNT = """printf '{"task": %d, "state": "succeeded", "exit_code": 0}' $LOSSI_TASK > tasks/$LOSSI_TASK/exit.json\n"""
"""What the real runner does at its end; without it nobody knows how an adopted process ended."""
WAIT_FOR_GO = "until [ -e go ]; do sleep 0.02; done\n"


def view(scheduler: LocalScheduler, prepared: Prepared) -> JobView:
    return scheduler.poll([prepared.handle])[prepared.job.id]


def until_over(scheduler: LocalScheduler, prepared: Prepared) -> JobView:
    def over() -> JobView | None:
        current = view(scheduler, prepared)
        ended = [task for task in current.tasks.values() if has_ended(task.state)]
        return current if len(ended) == prepared.job.tasks else None

    return eventually(over, "the job is over")


def until(look: Callable[[], object], what: str = "") -> None:
    eventually(look, what)


def submit(scheduler: LocalScheduler, prepared: Prepared) -> None:
    scheduler.submit(prepared.job, prepared.directory)


def kill_supervisor(scheduler: LocalScheduler, number: signal.Signals = signal.SIGKILL) -> None:
    pid = supervisor(scheduler)
    os.kill(pid, number)
    until(lambda: not lives(str(pid)), "the supervisor is dead")


def child(code: str, scheduler: LocalScheduler, prepared: list[Prepared]) -> list[str]:
    """Return the argv of a process in which ``scheduler`` and ``jobs`` (job, directory) are at hand."""
    jobs = [(json.dumps(records.to_dict(item.job)), str(item.directory)) for item in prepared]
    head = f"""
        import json, os, signal, sys
        from pathlib import Path
        from lossi.jobs.schedulers.local.adapter import LocalScheduler
        from lossi.contract import records
        scheduler = LocalScheduler(Path({str(scheduler.places.root.parent)!r}), ingest_command=(), linger_s=0.2)
        jobs = [(records.from_dict(records.PreparedJob, json.loads(text)), Path(folder)) for text, folder in {jobs!r}]
    """
    return [sys.executable, "-c", textwrap.dedent(head) + textwrap.dedent(code)]


SLOTS = 2
GRACE_S = 0.5


def end_everything(local: LocalScheduler) -> None:
    """Wait until the queue is empty and its supervisor has ended."""

    def empty() -> bool:
        local.poll([])  # restarts a supervisor that a test has killed
        return not queue.waiting(local.places)

    eventually(empty, "the queue is empty")
    eventually(lambda: not supervisors(local), "the supervisor has ended")


def supervisors(local: LocalScheduler) -> list[int]:
    """Return the living supervisors of a scheduler.

    A task's process has its supervisor's command line until it executes its own: it is told apart by its parent.
    """
    root = str(local.places.root).encode()
    pids = {pid for pid in _pids() if root in _read(pid, "cmdline").split(b"\0")}
    return [pid for pid in pids if (process := processes.inspect(pid)) is not None and process.parent not in pids]


def supervisor(local: LocalScheduler) -> int:
    """Return the one supervisor that has taken stock."""
    holder = eventually(lambda: queue.holder(local.places), "a supervisor is ready")
    return holder.pid


def marked_processes() -> dict[str, list[int]]:
    """Return the processes of all jobs on this machine by job id."""
    marked: dict[str, list[int]] = {}
    for pid in _pids():
        for item in _read(pid, "environ").split(b"\0"):
            if item.startswith(b"LOSSI_JOB_ID=") and (process := processes.inspect(pid)) and not process.has_ended:
                marked.setdefault(item.partition(b"=")[2].decode(), []).append(pid)
    return marked


def _pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""

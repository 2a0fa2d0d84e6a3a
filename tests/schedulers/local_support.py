"""What tests of the local scheduler look at: its supervisors and the processes of its tasks."""

from __future__ import annotations

from pathlib import Path

from scheduler_contract import eventually

from lossi import processes
from lossi.jobs.schedulers.local import queue
from lossi.jobs.schedulers.local.adapter import LocalScheduler

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
    """Return the living supervisors of a scheduler."""
    return [pid for pid in _pids() if str(local.places.root).encode() in _read(pid, "cmdline").split(b"\0")]


def supervisor(local: LocalScheduler) -> int:
    """Return the one supervisor that has taken stock."""
    holder = eventually(lambda: queue.holder(local.places), "a supervisor is ready")
    return holder.pid


def marked_processes() -> dict[str, list[int]]:
    """Return the processes of all jobs on this machine by job id."""
    found: dict[str, list[int]] = {}
    for pid in _pids():
        for item in _read(pid, "environ").split(b"\0"):
            if item.startswith(b"LOSSI_JOB_ID=") and (one := processes.inspect(pid)) and not one.has_ended:
                found.setdefault(item.partition(b"=")[2].decode(), []).append(pid)
    return found


def _pids() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""

"""The processes of a task, read from /proc (proc(5)): which they are, what they use, and how they are ended.

A task's processes are the runner, its descendants, and every process that carries the task's ``LOSSI_JOB_ID`` and
``LOSSI_TASK`` in its environment: Jupyter kernels start sessions of their own and daemons lose their parent.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from typing import Dict, Iterator, List, Optional, Set, Tuple

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Process:
    """What matters of ``/proc/<pid>/stat``."""

    pid: int
    parent: int
    session: int
    state: str
    started: int
    """In clock ticks since boot: with the pid it names a process for ever."""
    cpu_s: float
    """User and system time of the process itself, in seconds."""
    rss_bytes: int


def parsed(pid: int, stat: bytes) -> Process:
    """Return the process that a ``stat`` line describes (the command name may hold blanks and parentheses)."""
    fields = stat[stat.rindex(b")") + 2 :].split()
    return Process(
        pid=pid,
        parent=int(fields[1]),
        session=int(fields[3]),
        state=fields[0].decode("ascii"),
        started=int(fields[19]),
        cpu_s=(int(fields[11]) + int(fields[12])) / TICKS,
        rss_bytes=int(fields[21]) * PAGE,
    )


def table() -> Dict[int, Process]:
    """Return all living processes by pid; zombies and those that end meanwhile are left out."""
    return {process.pid: process for process in _read() if process.state not in "ZX"}


def _read() -> Iterator[Process]:
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as stream:
                    yield parsed(int(name), stream.read())
            except (OSError, ValueError):
                continue


class Family:
    """The processes of one task. Remembers which strangers it has looked at, so that a look costs little.

    Parameters
    ----------
    job_id, task
        The values of ``LOSSI_JOB_ID`` and ``LOSSI_TASK`` that mark the task's processes.
    rank
        That of ``LOSSI_NODE_RANK``, for a task of several nodes (two of which may be one machine); None: does not matter.
    """

    def __init__(self, job_id: str, task: int, rank: Optional[int] = None) -> None:
        self.marks = {f"LOSSI_JOB_ID={job_id}".encode(), f"LOSSI_TASK={task}".encode()}
        if rank is not None:
            self.marks.add(f"LOSSI_NODE_RANK={rank}".encode())
        self.me = os.getpid()
        self._marked: Dict[Tuple[int, int], bool] = {}

    def members(self) -> List[Process]:
        """Return the living processes, the runner included; what started the runner is not one of them."""
        known = table()
        above = _ancestors(self.me, known)
        # What started the runner carries the marks too, and whatever else it started beside the runner.
        apart = {known[pid].session for pid in above if pid in known}
        marked = {}
        found: Set[int] = {self.me}
        for process in known.values():
            key = (process.pid, process.started)
            marked[key] = self._marked[key] if key in self._marked else self._carries_marks(process.pid)
            if marked[key] and process.session not in apart:
                found.add(process.pid)
        self._marked = marked
        children: Dict[int, List[int]] = {}
        for process in known.values():
            children.setdefault(process.parent, []).append(process.pid)
        waiting = list(found)
        while waiting:
            for child in children.get(waiting.pop(), ()):
                if child not in found:
                    found.add(child)
                    waiting.append(child)
        return [known[pid] for pid in found if pid in known]

    def others(self) -> List[Process]:
        """Return the members without the runner."""
        return [process for process in self.members() if process.pid != self.me]

    def end(self, patience_s: float) -> int:
        """End every process but the runner: SIGTERM, after ``patience_s`` SIGKILL. Return how many there were."""
        living = self.others()
        count = len(living)
        if patience_s > 0:
            _signal(living, signal.SIGTERM)
            deadline = time.monotonic() + patience_s
            while living and time.monotonic() < deadline:
                time.sleep(0.02)
                living = self.others()
        # A process that forks while it is looked for escapes one look, not several.
        for _ in range(50):
            if not living:
                break
            _signal(living, signal.SIGKILL)
            time.sleep(0.01)
            living = self.others()
        return count

    def _carries_marks(self, pid: int) -> bool:
        try:
            with open(f"/proc/{pid}/environ", "rb") as stream:
                return self.marks.issubset(stream.read().split(b"\0"))
        except OSError:
            return False


def _ancestors(pid: int, known: Dict[int, Process]) -> Set[int]:
    """Return the process itself and its parents, as far as they can be seen (a container may hide some)."""
    found: Set[int] = set()
    while pid in known and pid not in found:
        found.add(pid)
        pid = known[pid].parent
    return found


def _signal(processes: List[Process], number: signal.Signals) -> None:
    for process in processes:
        try:
            os.kill(process.pid, number)
        except OSError:
            pass


def oom_kills() -> Optional[int]:
    """Return how many processes the kernel has killed for memory in this cgroup, None where that is not told.

    ``memory.events`` of cgroup v2, ``memory.oom_control`` of v1 (Documentation/admin-guide/cgroup-v2.rst).
    """
    try:
        with open("/proc/self/cgroup", encoding="utf-8", errors="replace") as stream:
            groups = [line.rstrip("\n").split(":", 2) for line in stream]
    except OSError:
        return None
    for _number, controllers, path in (group for group in groups if len(group) == 3):
        if controllers == "":
            file = f"/sys/fs/cgroup{path}/memory.events"
        elif "memory" in controllers.split(","):
            file = f"/sys/fs/cgroup/memory{path}/memory.oom_control"
        else:
            continue
        try:
            with open(file, encoding="ascii") as stream:
                for line in stream:
                    name, _, value = line.partition(" ")
                    if name == "oom_kill":
                        return int(value)
        except (OSError, ValueError):
            continue
    return None

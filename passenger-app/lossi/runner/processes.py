"""The processes of a task, from /proc (proc(5)): which they are, what they use, and how they are ended.

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
    """The fields of ``/proc/<pid>/stat`` that matter here."""

    pid: int
    parent: int
    session: int
    state: str
    started: int
    """In clock ticks since boot; with the pid it identifies a process."""
    cpu_s: float
    """User and system time of the process itself, in seconds."""
    rss_bytes: int


def parse_stat(pid: int, stat: bytes) -> Process:
    """Return the process that a ``stat`` line describes (the command name may hold spaces and parentheses)."""
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


def list_processes() -> Dict[int, Process]:
    """Return all living processes by pid, without zombies."""
    return {process.pid: process for process in _read() if process.state not in "ZX"}


def _read() -> Iterator[Process]:
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as stream:
                    yield parse_stat(int(name), stream.read())
            except (OSError, ValueError):
                continue


class TaskProcesses:
    """The processes of one task. Caches which other processes carry the marks, so that `members` is cheap.

    Parameters
    ----------
    job_id, task
        The values of ``LOSSI_JOB_ID`` and ``LOSSI_TASK`` that mark the task's processes.
    rank
        That of ``LOSSI_NODE_RANK``, for a task on several nodes (two may be the same machine); None: any.
    """

    def __init__(self, job_id: str, task: int, rank: Optional[int] = None) -> None:
        self.marks = {f"LOSSI_JOB_ID={job_id}".encode(), f"LOSSI_TASK={task}".encode()}
        if rank is not None:
            self.marks.add(f"LOSSI_NODE_RANK={rank}".encode())
        self.me = os.getpid()
        self._marked: Dict[Tuple[int, int], bool] = {}

    def members(self) -> List[Process]:
        """Return the living processes, including the runner but not the processes that started it."""
        known = list_processes()
        above = _ancestors(self.me, known)
        # The runner's parents carry the marks too, and so do their other children.
        foreign_sessions = {known[pid].session for pid in above if pid in known}
        marked = {}
        members: Set[int] = {self.me}
        for process in known.values():
            key = (process.pid, process.started)
            marked[key] = self._marked[key] if key in self._marked else self._carries_marks(process.pid)
            if marked[key] and process.session not in foreign_sessions:
                members.add(process.pid)
        self._marked = marked
        children: Dict[int, List[int]] = {}
        for process in known.values():
            children.setdefault(process.parent, []).append(process.pid)
        waiting = list(members)
        while waiting:
            for child in children.get(waiting.pop(), ()):
                if child not in members:
                    members.add(child)
                    waiting.append(child)
        return [known[pid] for pid in members if pid in known]

    def others(self) -> List[Process]:
        """Return the members except the runner."""
        return [process for process in self.members() if process.pid != self.me]

    def end(self, patience_s: float) -> int:
        """End every process except the runner: SIGTERM, after ``patience_s`` SIGKILL. Return how many there were."""
        living = self.others()
        count = len(living)
        if patience_s > 0:
            _signal(living, signal.SIGTERM)
            deadline = time.monotonic() + patience_s
            while living and time.monotonic() < deadline:
                time.sleep(0.02)
                living = self.others()
        # A process that forks meanwhile escapes one scan, but not several.
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
    """Return the process and its ancestors, as far as they are visible (a container may hide some)."""
    ancestors: Set[int] = set()
    while pid in known and pid not in ancestors:
        ancestors.add(pid)
        pid = known[pid].parent
    return ancestors


def _signal(processes: List[Process], number: signal.Signals) -> None:
    for process in processes:
        try:
            os.kill(process.pid, number)
        except OSError:
            pass


def oom_kills() -> Optional[int]:
    """Return how many processes of this cgroup were killed for memory; None if unknown.

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

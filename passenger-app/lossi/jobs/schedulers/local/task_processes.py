"""The processes of a task: which they are, how much memory they hold, ending them. Reads /proc and sends signals."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from lossi.processes import Process, inspect, open_pidfd

KERNEL_THREADS = 2
"""The process whose children are kernel threads."""
PR_SET_CHILD_SUBREAPER = 36
DEFAULT_SIGNALS = sorted(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})
"""Signals whose handling a new process must not inherit."""
NOT_KNOWN = -1
"""Stands for children that the kernel does not list."""
RESCANS = 5
"""How often /proc is read while processes come and go."""


@dataclass(frozen=True, slots=True)
class Member:
    """How to recognise the processes of one task."""

    job_id: str
    task: int
    leader: int | None = None
    """The process of ``script.sh``, which leads its own session; None: only the environment is known."""
    leader_start: int = 0


def kill(processes: Iterable[Process], number: signal.Signals = signal.SIGKILL) -> None:
    """Send a signal to exactly these processes; those that have ended or belong to others are skipped."""
    for process in processes:
        descriptor = open_pidfd(process.pid, process.start)
        if descriptor is None:
            continue
        try:
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(descriptor, number)
        finally:
            os.close(descriptor)


def unknown_children(known: Collection[int | None]) -> set[int]:
    """Return this process's children that are not ``known``; {`NOT_KNOWN`} if the kernel does not tell (CONFIG_PROC_CHILDREN)."""
    try:
        return {int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_bytes().split()}.difference(known)
    except OSError:
        return {NOT_KNOWN}


def become_subreaper() -> None:
    """Make orphans of this process's descendants its own children (prctl(2)): a daemon of a task cannot hide."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


class Table:
    """All processes of the machine at one moment, and the task of each.

    A task's processes are those of its session, those with ``LOSSI_JOB_ID`` and ``LOSSI_TASK`` of the task in their
    environment (kernels lead sessions of their own; daemons lose their parents), and all descendants of these. A process's
    environment is remembered as long as it is alive.
    """

    def __init__(self) -> None:
        self.processes: dict[int, Process] = {}
        self._marks: dict[tuple[int, int], tuple[str, str] | None] = {}
        self._bare: set[tuple[int, int]] = set()
        self._children: dict[int, list[Process]] = {}

    def refresh(self, scans: int = RESCANS) -> None:
        """Read /proc, up to ``scans`` times until the result is certain; with one scan, trust earlier results."""
        for _ in range(scans):
            if self._scan(trusting=scans == 1):
                break

    def _scan(self, *, trusting: bool) -> bool:
        """Read /proc once; return False if a process vanished (it may have left a child that was not listed yet) or had no environment
        for the first time (it may be starting).
        """
        listed = [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 - half the time of Path.iterdir
        processes = [inspect(pid) for pid in listed]
        certain = None not in processes
        marks, self._marks = self._marks, {}
        bare, self._bare = self._bare, set()
        self.processes = {}
        self._children = {}
        for process in processes:
            if process is None or process.has_ended or KERNEL_THREADS in (process.pid, process.parent):
                continue
            self.processes[process.pid] = process
            self._children.setdefault(process.parent, []).append(process)
            key = (process.pid, process.start)
            mark = marks.get(key)
            if mark is None and not (trusting and key in marks):
                environment = _environment(process.pid)
                mark = _mark(environment)
                if environment == b"":
                    self._bare.add(key)
                    certain = certain and key in bare
            self._marks[key] = mark
        return certain

    def members(self, member: Member) -> list[Process]:
        """Return the living processes of one task, without this process itself."""
        mark = (member.job_id, str(member.task))
        known = self.processes
        leader = known.get(member.leader) if member.leader is not None else None
        # Another process may have the leader's number by now, and lead a session.
        reused = leader is not None and leader.start != member.leader_start
        session = None if reused else member.leader
        own = {
            process.pid: process
            for process in known.values()
            if (session is not None and process.session == session) or self._marks[(process.pid, process.start)] == mark
        }
        if leader is not None and not reused:
            own[leader.pid] = leader
        self._add_descendants(own)
        own.pop(os.getpid(), None)
        return list(own.values())

    def descendants(self, pids: Iterable[int]) -> list[Process]:
        """Return the given processes that are alive, and all their descendants."""
        family = {pid: self.processes[pid] for pid in pids if pid in self.processes}
        self._add_descendants(family)
        return list(family.values())

    def _add_descendants(self, members: dict[int, Process]) -> None:
        queue = [pid for pid in members if pid != os.getpid()]
        while queue:
            for child in self._children.get(queue.pop(), ()):
                if child.pid not in members:
                    members[child.pid] = child
                    queue.append(child.pid)


def _environment(pid: int) -> bytes | None:
    """Return a process's environment at its start, None if it cannot be read."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return None


def _mark(environment: bytes | None) -> tuple[str, str] | None:
    """Return ``(LOSSI_JOB_ID, LOSSI_TASK)`` of an environment, None if it does not have both."""
    if environment is None or b"LOSSI_JOB_ID=" not in environment:
        return None
    variables = dict(item.partition(b"=")[::2] for item in environment.split(b"\0"))
    job_id, task = variables.get(b"LOSSI_JOB_ID"), variables.get(b"LOSSI_TASK")
    if job_id is None or task is None:
        return None
    return job_id.decode("utf-8", "replace"), task.decode("utf-8", "replace")


def resident_mb(processes: Iterable[Process]) -> float:
    """Return the sum of the resident sets in MiB: cheap, and never too low; shared pages count once per process."""
    pages = 0
    for process in processes:
        with contextlib.suppress(OSError, IndexError, ValueError):
            pages += int(Path(f"/proc/{process.pid}/statm").read_bytes().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def held_mb(processes: Iterable[Process]) -> float:
    """Return the memory in MiB that would become free if all these processes ended.

    The proportional set size of anonymous and shared memory (/proc/<pid>/smaps_rollup, proc(5)): pages shared by forked workers
    count once, and pages of mapped files not at all, because the kernel reclaims those by itself. Costs milliseconds per
    GiB, so it is used only if `resident_mb` exceeds the limit.
    """
    kib = 0
    for process in processes:
        try:
            lines = Path(f"/proc/{process.pid}/smaps_rollup").read_bytes().splitlines()
        except OSError:
            continue
        values = {key: int(rest.split()[0]) for key, colon, rest in (line.partition(b":") for line in lines[1:]) if colon}
        if b"Pss_Anon" in values:
            kib += values[b"Pss_Anon"] + values.get(b"Pss_Shmem", 0)
        else:
            kib += values.get(b"Pss", 0)
    return kib / 1024

"""Who a process is: its user, and what tells it from a later process of the same number. Reads /proc."""

from __future__ import annotations

import functools
import os
import pwd
from dataclasses import dataclass
from pathlib import Path

BOOT_ID_FILE = Path("/proc/sys/kernel/random/boot_id")
_GONE_STATES = frozenset("ZXx")


@dataclass(frozen=True)
class User:
    """The user whom this process belongs to."""

    name: str
    home: str = "/"
    shell: str = ""


def user() -> User:
    """Return the user whom this process belongs to; its number where it has no name, as in some containers."""
    try:
        entry = pwd.getpwuid(os.geteuid())
    except KeyError:
        return User(str(os.geteuid()))
    return User(entry.pw_name, entry.pw_dir, entry.pw_shell)


def basic_environment() -> dict[str, str]:
    """Return the few variables that every program needs; nothing else of this process's environment."""
    me = user()
    return {
        "HOME": os.environ.get("HOME") or me.home,
        "PATH": os.environ.get("PATH") or "/usr/local/bin:/usr/bin:/bin",
        "USER": me.name,
        "LOGNAME": me.name,
        "LANG": "C.UTF-8",
    }


@dataclass(frozen=True, slots=True)
class Process:
    """One line of ``/proc/<pid>/stat`` (proc(5)), as far as it matters here."""

    pid: int
    parent: int
    session: int
    start: int
    """Clock ticks since boot."""
    state: str

    @property
    def has_ended(self) -> bool:
        """Whether it is a zombie: it has ended and waits to be reaped."""
        return self.state in _GONE_STATES


def inspect(pid: int) -> Process | None:
    """Return what /proc says of a process; None if no process has that number."""
    try:
        descriptor = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        text = os.read(descriptor, 4096)
    except OSError:
        return None
    finally:
        os.close(descriptor)
    # The name, in parentheses, may hold anything: what follows the last one is proc(5)'s fields 3 and up.
    fields = text[text.rfind(b")") + 2 :].split()
    return Process(pid, int(fields[1]), int(fields[3]), int(fields[19]), fields[0].decode("ascii"))


def alive(pid: int, start: int) -> bool:
    """Return whether the process that started at ``start`` (clock ticks since boot) still runs; a zombie does not."""
    process = inspect(pid)
    return process is not None and process.start == start and not process.has_ended


def open_pidfd(pid: int, start: int) -> int | None:
    """Return a descriptor that stands for this very process and becomes readable at its end, None when it is gone."""
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return None
    if alive(pid, start):  # checked after opening: the number cannot have changed hands since
        return descriptor
    os.close(descriptor)
    return None


def boot_id(file: Path = BOOT_ID_FILE) -> str:
    """Return what names this start of the machine.

    Raises
    ------
    OSError
        When the kernel does not tell.
    """
    return file.read_text("ascii").strip()


@dataclass(frozen=True)
class ProcessIdentity:
    """A process of some host. A number alone is given out again, so boot and start time belong to it.

    Attributes
    ----------
    started
        Clock ticks since boot, as text.
    namespace
        Its pid namespace: numbers mean nothing in another container's; empty: not known.
    """

    host: str
    boot: str
    pid: int
    started: str
    namespace: str = ""

    @classmethod
    def current(cls) -> ProcessIdentity:
        """Return this process."""
        pid = os.getpid()
        process = inspect(pid)
        return cls(os.uname().nodename, _this_boot(), pid, str(process.start) if process else "", _this_namespace())

    def is_gone(self) -> bool:
        """Return whether it has certainly ended; of another host or container that cannot be known."""
        if self.host != os.uname().nodename:
            return False
        if self.boot != _this_boot():
            return True
        if self.namespace and self.namespace != _this_namespace():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:  # another user's, whose start time may be hidden
            return False
        process = inspect(self.pid)
        return process is None or process.has_ended or str(process.start) != self.started


@functools.cache
def _this_boot() -> str:
    try:
        return boot_id()
    except OSError:
        return ""


@functools.cache
def _this_namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - the name of a namespace, not a path
    except OSError:
        return ""

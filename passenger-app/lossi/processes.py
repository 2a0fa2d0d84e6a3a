"""Child processes and the identity of a process: one way for all rooms to start, limit and end what they run.

Programs are argv lists, never a shell; each gets the environment that its caller passes and nothing else, and a session of its own, so
that it can be ended with all that it started. Linux only; knows no other room. The runner has its own, because it travels alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import pwd
import selectors
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess

BOOT_ID_FILE = Path("/proc/sys/kernel/random/boot_id")
MOST_BYTES = 64 * 2**20
"""What a program may write on standard output."""
MOST_ERROR_BYTES = 2**20
"""Of what a program writes on standard error, only the end counts."""
PR_SET_PDEATHSIG = 1

_GONE_STATES = frozenset("ZXx")
_REAP_S = 1.0
_TERMINATE_S = 10.0
_CHUNK = 2**16


# -- running programs ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Finished:
    """How a program ended and what it wrote; ``status`` is below zero for a signal."""

    status: int
    stdout: bytes
    stderr: str

    @property
    def last_line(self) -> str:
        """The last line on standard error, at most 500 characters; else the exit code in words."""
        return last_line(self.stderr)[:500] or f"exit code {self.status}"


class LimitReached(Exception):
    """A program was killed for exceeding a limit; holds what it had written by then."""

    def __init__(self, stdout: bytes, stderr: str) -> None:
        super().__init__(type(self).__doc__)
        self.stdout = stdout
        self.stderr = stderr


class TimeLimitReached(LimitReached):
    """A program did not end in time."""


class OutputLimitReached(LimitReached):
    """A program wrote too much."""


def start(
    argv: Sequence[str],
    *,
    environment: Mapping[str, str],
    cwd: str | Path | None = "/",
    stdin: int | None = None,
    stdout: int | None = None,
    stderr: int | None = None,
    pass_fds: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own; streams that are None are ``/dev/null``, ``cwd`` None is the current folder.

    Raises
    ------
    OSError
        When it cannot be started.
    """
    import subprocess  # slow to import: only who starts something pays for it

    streams = [subprocess.DEVNULL if stream is None else stream for stream in (stdin, stdout, stderr)]
    return subprocess.Popen(
        list(argv),
        stdin=streams[0],
        stdout=streams[1],
        stderr=streams[2],
        env=dict(environment),
        cwd=cwd,
        pass_fds=pass_fds,
        start_new_session=True,
    )


def run(
    argv: Sequence[str],
    *,
    environment: Mapping[str, str],
    limit_s: float,
    cwd: str | Path | None = "/",
    text: bytes = b"",
    most_bytes: int = MOST_BYTES,
) -> Finished:
    """Run a program to its end; nothing that it started outlives it.

    Parameters
    ----------
    argv
        Program and arguments.
    environment
        All variables that it sees.
    limit_s
        Seconds after which it is killed.
    cwd
        Folder in which it runs.
    text
        Its standard input.
    most_bytes
        Of its standard output; of standard error the last `MOST_ERROR_BYTES` are kept.

    Raises
    ------
    OSError
        When it cannot be started.
    TimeLimitReached, OutputLimitReached
        When it was killed for that.
    """
    from subprocess import PIPE

    end = time.monotonic() + limit_s
    child = start(argv, environment=environment, cwd=cwd, stdin=PIPE if text else None, stdout=PIPE, stderr=PIPE)
    conversation = _Conversation(child, text, most_bytes)
    try:
        conversation.hold(end)
        _await_end(child.pid, end)
    except (_TimeUp, _TooMuch) as reached:
        kind = TimeLimitReached if isinstance(reached, _TimeUp) else OutputLimitReached
        raise kind(bytes(conversation.out), conversation.errors) from None
    finally:
        kill(child)
    return Finished(child.returncode, bytes(conversation.out), conversation.errors)


@contextlib.contextmanager
def running(
    argv: Sequence[str],
    *,
    environment: Mapping[str, str],
    cwd: str | Path | None = "/",
    stdout: int | None = None,
    stderr: int | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a program for a block that reads it as it runs. When the block fails, it is told to stop, then killed.

    Raises
    ------
    OSError
        When it cannot be started.
    """
    from subprocess import TimeoutExpired

    child = start(argv, environment=environment, cwd=cwd, stdout=stdout, stderr=stderr)
    try:
        yield child
        _close(child.stdout, child.stderr)  # what is left unread must not keep it waiting
        child.wait()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGTERM)
        with contextlib.suppress(TimeoutExpired):
            child.wait(_TERMINATE_S)
        kill(child)
        raise


def kill(child: subprocess.Popen[bytes]) -> None:
    """Kill a program with all of its session, and reap it; one that the kernel does not let go is left to it."""
    from subprocess import TimeoutExpired

    if child.returncode is None:  # once reaped, its number may be another's
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
    _close(child.stdin, child.stdout, child.stderr)
    with contextlib.suppress(TimeoutExpired):
        child.wait(_REAP_S)


def last_line(text: str) -> str:
    """Return the last line that is not empty."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


class _TimeUp(Exception):
    pass


class _TooMuch(Exception):
    pass


class _Conversation:
    """What is written to a child and read from it, until it has closed its outputs."""

    def __init__(self, child: subprocess.Popen[bytes], text: bytes, most_bytes: int) -> None:
        self._child = child
        self._rest = memoryview(text)
        self._most_bytes = most_bytes
        self.out = bytearray()
        self._err = bytearray()

    @property
    def errors(self) -> str:
        return self._err.decode("utf-8", "replace")

    def hold(self, end: float) -> None:
        child = self._child
        outputs = {child.stdout, child.stderr}
        with selectors.DefaultSelector() as selector:
            for stream in (child.stdout, child.stderr):
                assert stream is not None
                selector.register(stream, selectors.EVENT_READ)
            if child.stdin is not None:
                os.set_blocking(child.stdin.fileno(), False)
                selector.register(child.stdin, selectors.EVENT_WRITE)
            while outputs:
                left = end - time.monotonic()
                ready = selector.select(left) if left > 0 else []
                if not ready:
                    raise _TimeUp
                for key, _ in ready:
                    goes_on = self._write(key.fd) if key.fileobj is child.stdin else self._read(key)
                    if not goes_on:
                        selector.unregister(key.fileobj)
                        outputs.discard(key.fileobj)
                        if key.fileobj is child.stdin:
                            _close(child.stdin)

    def _write(self, descriptor: int) -> bool:
        """Write as much as fits; return whether something is left and somebody reads it."""
        try:
            self._rest = self._rest[os.write(descriptor, self._rest[:_CHUNK]) :]
        except BlockingIOError:
            return True
        except BrokenPipeError:
            return False
        return len(self._rest) > 0

    def _read(self, key: selectors.SelectorKey) -> bool:
        chunk = os.read(key.fd, _CHUNK)
        if key.fileobj is self._child.stdout:
            self.out += chunk
            if len(self.out) > self._most_bytes:
                raise _TooMuch
        else:
            self._err += chunk
            del self._err[:-MOST_ERROR_BYTES]
        return len(chunk) > 0


def _await_end(pid: int, end: float) -> None:
    """Wait until a child has ended, without reaping it: as long as it is a zombie, its session is nobody else's."""
    pause = 0.0005
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        left = end - time.monotonic()
        if left <= 0:
            raise _TimeUp
        time.sleep(min(pause, left))
        pause = min(2 * pause, 0.05)


def _close(*streams: IO[bytes] | None) -> None:
    for stream in streams:
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()


# -- inside a child ------------------------------------------------------------------------------------------------------


def confine(parent: int, *, parent_signal: int, memory_bytes: int, cpu_s: int, file_bytes: int | None = None) -> None:
    """Give this process limits and the lowest priority, and let it end with its parent.

    Parameters
    ----------
    parent
        Process that started it; when that is gone already, this process ends here.
    parent_signal
        Sent by the kernel when the parent ends (prctl(2), PR_SET_PDEATHSIG).
    memory_bytes, cpu_s, file_bytes
        Address space, CPU seconds, size of a file; None: no limit. There is no core dump.
    """
    import resource

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, parent_signal, 0, 0, 0)
    if os.getppid() != parent:  # it ended before the line above
        os._exit(1)
    limits = {resource.RLIMIT_AS: memory_bytes, resource.RLIMIT_CPU: cpu_s, resource.RLIMIT_CORE: 0}
    if file_bytes is not None:
        limits[resource.RLIMIT_FSIZE] = file_bytes
    for limit, value in limits.items():
        hard = resource.getrlimit(limit)[1]
        lowest = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (lowest, lowest))
    os.nice(19)


# -- who a process is ----------------------------------------------------------------------------------------------------


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

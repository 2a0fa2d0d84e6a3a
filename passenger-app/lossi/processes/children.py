"""Starts, limits and ends child processes. Each has a session of its own, so that it can be ended with all that it started."""

from __future__ import annotations

import contextlib
import ctypes
import os
import selectors
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess

MOST_BYTES = 64 * 2**20
"""What a program may write on standard output."""
MOST_ERROR_BYTES = 2**20
"""Of what a program writes on standard error, only the end counts."""
PR_SET_PDEATHSIG = 1

_REAP_S = 1.0
_TERMINATE_S = 10.0
_CHUNK = 2**16


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

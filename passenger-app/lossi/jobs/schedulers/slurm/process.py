"""Runs one command of Slurm to its end: as argv, with a cleaned environment, within a deadline. Touches processes only.

The per-user process of Open OnDemand carries secrets and Ruby's variables, a user's shell variables that change what Slurm's
commands print or ask for: none of them is passed on.
"""

from __future__ import annotations

import math
import os
import pwd
import selectors
import shlex
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lossi.clusters import Cluster
from lossi.errors import InvalidInput, Unavailable
from lossi.jobs.schedulers.slurm.refusals import words

MOST_BYTES = 256 * 2**20
"""What one command may print: `squeue` of a million jobs stays below it."""
REAP_S = 1.0
_CHUNK = 2**16


@dataclass(frozen=True)
class Finished:
    """How a command ended and what it printed."""

    status: int
    stdout: str
    stderr: str


def user_name() -> str:
    """Return the name of the user whom this process belongs to."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def environment(cluster: Cluster, command: str) -> dict[str, str]:
    """Return the whole environment of a command (its bare name) that runs on this machine."""
    name, home = user_name(), "/"
    with suppress(KeyError):
        home = pwd.getpwuid(os.geteuid()).pw_dir
    return {
        "HOME": os.environ.get("HOME") or home,
        "USER": name,
        "LOGNAME": name,
        "PATH": os.environ.get("PATH") or "/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        **_settings(cluster, os.environ.get("SLURM_CONF"), command),
    }


def argv_of(cluster: Cluster, argv: Sequence[str]) -> list[str]:
    """Return the whole argv: as it is, or through ssh where the commands are run on another host.

    Raises
    ------
    InvalidInput
        For a word with a NUL, which no argv can hold.
    """
    if any("\0" in word for word in argv):
        raise InvalidInput("A value holds a NUL character", hint="leave it out")
    if cluster.submit_host is None:
        return list(argv)
    trust = (
        ["-o", "StrictHostKeyChecking=yes"]
        if cluster.strict_host_checking
        else ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
    )
    connect = ["-o", "BatchMode=yes", *trust, "-o", f"ConnectTimeout={math.ceil(cluster.deadline_s)}", "-T"]
    # The other side's shell reads one line: each word is quoted for it.
    remote = ["env", *(f"{name}={value}" for name, value in _settings(cluster, None, Path(argv[0]).name).items()), *argv]
    return ["ssh", *connect, "--", cluster.submit_host, *(shlex.quote(word) for word in remote)]


def run(cluster: Cluster, argv: Sequence[str], *, deadline_s: float | None = None, most_bytes: int = MOST_BYTES) -> Finished:
    """Run a command and return how it ended, whatever its exit status.

    Parameters
    ----------
    cluster
        Where it is run.
    argv
        The command and its words, as for this machine.
    deadline_s
        Seconds after which it is killed with all it has started; None: the cluster's.
    most_bytes
        Of its output, and again of its messages.

    Raises
    ------
    Unavailable
        When there is no such command, it did not end in time, or printed too much.
    """
    whole = argv_of(cluster, argv)
    limit = cluster.deadline_s if deadline_s is None else deadline_s
    name = Path(argv[0]).name
    end = time.monotonic() + limit
    try:
        process = subprocess.Popen(
            whole,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(cluster, name),
            cwd="/",
            start_new_session=True,
        )
    except OSError as error:
        hint = "`bin` and `bin_overrides` of the cluster say where Slurm's commands are" if cluster.submit_host is None else ""
        raise Unavailable(f"{whole[0]} could not be started", why=error.strerror or str(error), hint=hint) from error
    try:
        streams = _read(process, end, most_bytes)
        process.wait(max(0.0, end - time.monotonic()))
    except subprocess.TimeoutExpired as error:
        _kill(process)
        said = words(error.stderr.decode(errors="replace") if error.stderr else "")
        raise Unavailable(
            "Slurm does not answer",
            why=f"{name} did not end within {limit:g} s" + (f": {said}" if said else ""),
            hint="try again in a minute",
        ) from error
    except _TooMuch as error:
        _kill(process)
        raise Unavailable(f"{name} printed more than {most_bytes} bytes") from error
    except BaseException:
        _kill(process)
        raise
    finally:
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()
    stdout, stderr = (stream.decode("utf-8", errors="replace") for stream in streams)
    if process.returncode == 127 and cluster.submit_host is not None:
        raise Unavailable(f"{argv[0]} was not found on {cluster.submit_host}", why=words(stderr), hint="`bin` says where it is")
    return Finished(process.returncode, stdout, stderr)


class _TooMuch(Exception):
    pass


def _settings(cluster: Cluster, conf: str | None, command: str) -> dict[str, str]:
    """Return what makes a command print the same for everybody: UTC, ISO times, lists of array tasks in full."""
    found = {"LC_ALL": "C.UTF-8", "TZ": "UTC"}
    if command != "sbatch":  # which hands every SLURM_… on to the job
        found |= {"SLURM_TIME_FORMAT": "standard", "SLURM_BITSTR_LEN": "0"}
    where = str(cluster.conf) if cluster.conf else conf
    return {**found, "SLURM_CONF": where} if where else found


def _read(process: subprocess.Popen[bytes], end: float, most: int) -> tuple[bytes, bytes]:
    """Return all that a process prints until it has closed both streams."""
    assert process.stdout is not None and process.stderr is not None
    found = {process.stdout: bytearray(), process.stderr: bytearray()}
    with selectors.DefaultSelector() as selector:
        for stream in found:
            selector.register(stream, selectors.EVENT_READ)
        while selector.get_map():
            left = end - time.monotonic()
            ready = selector.select(left) if left > 0 else []
            if not ready:
                raise subprocess.TimeoutExpired(process.args, 0.0, stderr=bytes(found[process.stderr]))
            for key, _ in ready:
                chunk = os.read(key.fd, _CHUNK)
                if not chunk:
                    selector.unregister(key.fileobj)
                    continue
                buffer = found[key.fileobj]  # type: ignore[index]
                buffer += chunk
                if len(buffer) > most:
                    raise _TooMuch
    return bytes(found[process.stdout]), bytes(found[process.stderr])


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a command with all of its session; one that the kernel does not let go is left to it."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        process.wait(REAP_S)

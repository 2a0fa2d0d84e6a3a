"""Runs one Slurm command: as argv, with a clean environment, within a deadline.

The per-user process of Open OnDemand has secrets and Ruby's variables, a user's shell has variables that change what Slurm's
commands print or request: none of them is passed on.
"""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lossi import processes
from lossi.clusters import Cluster
from lossi.errors import InvalidInput, Unavailable
from lossi.jobs.schedulers.slurm.refusals import words

MOST_BYTES = 256 * 2**20
"""Maximum output of a command: `squeue` of a million jobs stays below it."""


@dataclass(frozen=True)
class Answered:
    """How a command ended and what it printed."""

    status: int
    stdout: str
    stderr: str


def environment(cluster: Cluster, command: str) -> dict[str, str]:
    """Return the whole environment of a command (its bare name) that runs on this machine."""
    return {**processes.basic_environment(), **_settings(cluster, os.environ.get("SLURM_CONF"), command)}


def argv_of(cluster: Cluster, argv: Sequence[str]) -> list[str]:
    """Return the complete argv: unchanged, or through ssh if the commands run on another host.

    Raises
    ------
    InvalidInput
        For a NUL character, which argv cannot contain.
    """
    if any("\0" in word for word in argv):
        raise InvalidInput("a value contains a NUL character", hint="remove it")
    if cluster.submit_host is None:
        return list(argv)
    trust = (
        ["-o", "StrictHostKeyChecking=yes"]
        if cluster.strict_host_checking
        else ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
    )
    connect = ["-o", "BatchMode=yes", *trust, "-o", f"ConnectTimeout={math.ceil(cluster.deadline_s)}", "-T"]
    # The remote shell reads one line: each argument is quoted for it.
    remote = ["env", *(f"{name}={value}" for name, value in _settings(cluster, None, Path(argv[0]).name).items()), *argv]
    return ["ssh", *connect, "--", cluster.submit_host, *(shlex.quote(word) for word in remote)]


def run(cluster: Cluster, argv: Sequence[str], *, deadline_s: float | None = None, most_bytes: int = MOST_BYTES) -> Answered:
    """Run a command and return how it ended, whatever its exit status.

    Parameters
    ----------
    cluster
        Where to run it.
    argv
        The command and its arguments, as for this machine.
    deadline_s
        Seconds after which it is killed with everything it started; None: the cluster's.
    most_bytes
        Maximum output.

    Raises
    ------
    Unavailable
        If the command does not exist, did not end in time, or printed too much.
    """
    whole = argv_of(cluster, argv)
    limit = cluster.deadline_s if deadline_s is None else deadline_s
    name = Path(argv[0]).name
    try:
        done = processes.run(whole, environment=environment(cluster, name), limit_s=limit, most_bytes=most_bytes)
    except OSError as error:
        hint = "`bin` and `bin_overrides` of the cluster say where Slurm's commands are" if cluster.submit_host is None else ""
        raise Unavailable(f"{whole[0]} could not be started", why=error.strerror or str(error), hint=hint) from error
    except processes.TimeLimitReached as error:
        message = words(error.stderr)
        raise Unavailable(
            "Slurm does not answer",
            why=f"{name} did not end within {limit:g} s" + (f": {message}" if message else ""),
            hint="try again in a minute",
        ) from error
    except processes.OutputLimitReached as error:
        raise Unavailable(f"{name} printed more than {most_bytes} bytes") from error
    if done.status == 127 and cluster.submit_host is not None:
        raise Unavailable(
            f"{argv[0]} was not found on {cluster.submit_host}", why=words(done.stderr), hint="`bin` says where it is"
        )
    return Answered(done.status, done.stdout.decode("utf-8", "replace"), done.stderr)


def _settings(cluster: Cluster, conf: str | None, command: str) -> dict[str, str]:
    """Return variables that make a command print the same for everybody: UTC, ISO times, complete lists of array tasks."""
    settings = {"LC_ALL": "C.UTF-8", "TZ": "UTC"}
    if command != "sbatch":  # which passes every SLURM_… on to the job
        settings |= {"SLURM_TIME_FORMAT": "standard", "SLURM_BITSTR_LEN": "0"}
    where = str(cluster.conf) if cluster.conf else conf
    return {**settings, "SLURM_CONF": where} if where else settings

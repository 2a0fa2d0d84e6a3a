"""Runs one command of Slurm to its end: as argv, with a cleaned environment, within a deadline. Touches processes only.

The per-user process of Open OnDemand carries secrets and Ruby's variables, a user's shell variables that change what Slurm's
commands print or ask for: none of them is passed on.
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
"""What one command may print: `squeue` of a million jobs stays below it."""


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


def run(cluster: Cluster, argv: Sequence[str], *, deadline_s: float | None = None, most_bytes: int = MOST_BYTES) -> Answered:
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
    try:
        done = processes.run(whole, environment=environment(cluster, name), limit_s=limit, most_bytes=most_bytes)
    except OSError as error:
        hint = "`bin` and `bin_overrides` of the cluster say where Slurm's commands are" if cluster.submit_host is None else ""
        raise Unavailable(f"{whole[0]} could not be started", why=error.strerror or str(error), hint=hint) from error
    except processes.TimeLimitReached as error:
        said = words(error.stderr)
        raise Unavailable(
            "Slurm does not answer",
            why=f"{name} did not end within {limit:g} s" + (f": {said}" if said else ""),
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
    """Return what makes a command print the same for everybody: UTC, ISO times, lists of array tasks in full."""
    found = {"LC_ALL": "C.UTF-8", "TZ": "UTC"}
    if command != "sbatch":  # which hands every SLURM_… on to the job
        found |= {"SLURM_TIME_FORMAT": "standard", "SLURM_BITSTR_LEN": "0"}
    where = str(cluster.conf) if cluster.conf else conf
    return {**found, "SLURM_CONF": where} if where else found

"""Starts the child with PySlurm, once per question. The child may exit, hang, crash or write rubbish.

``import pyslurm`` ends its process if there is no slurm.conf, a libslurm of another version may do worse, and PySlurm's licence
differs from ours: so it runs in a process of its own, which gets its program and the question on standard input.
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lossi import processes, units
from lossi.clusters import Cluster, PySlurmSettings
from lossi.errors import InvalidInput, LossiError, NotSupported, Unavailable
from lossi.jobs.schedulers.slurm import refusals

MOST_BYTES = 128 * 2**20
"""Maximum answer: some hundred thousand tasks."""
_PROGRAM = Path(__file__).with_name("child.py")
# PySlurm and libslurm print to standard error, so that it does not mix with the answer.
_LOADER = """\
import json, os, sys
channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
os.dup2(2, 1)
given = json.load(sys.stdin)
space = {"__name__": "child"}
exec(compile(given["program"], "child.py", "exec"), space)
json.dump(space["answer"](given["question"]), channel)
channel.close()
os._exit(0)  # libslurm may hang at the end of a process
"""


def argv(pyslurm: PySlurmSettings) -> list[str]:
    """Return the argv that starts the interpreter with PySlurm, in its own root folder if it has one.

    In a user namespace with only the caller's own id, an ordinary user may change the root folder, and munge still identifies
    the user.
    """
    interpreter = [str(pyslurm.python), "-I", "-c", _LOADER]
    if pyslurm.chroot is None:
        return interpreter
    if os.geteuid() == 0:
        # Neither users' nor the child's PATH has its folder.
        return [shutil.which("chroot", path=f"/usr/sbin:/sbin:{os.defpath}") or "chroot", str(pyslurm.chroot), *interpreter]
    return ["unshare", "--map-current-user", f"--root={pyslurm.chroot}", "--wd=/", *interpreter]


def ask(cluster: Cluster, question: Mapping[str, Any], *, deadline_s: float | None = None) -> Any:
    """Start the child, ask it one question and return its answer.

    Parameters
    ----------
    cluster
        The cluster, which names the interpreter.
    question
        Which one (``ask``) and its arguments; see `child`.
    deadline_s
        Seconds after which the child is killed with everything it started; None: the cluster's.

    Raises
    ------
    NotSupported
        If no interpreter with PySlurm is configured.
    Unavailable
        If the child cannot be started, ends, hangs, writes rubbish or too much, if its PySlurm does not fit, or if Slurm
        does not answer it; ``hint`` says what to do.
    Forbidden, InvalidInput
        If Slurm refuses.
    """
    pyslurm = cluster.pyslurm
    if pyslurm is None:
        raise NotSupported(
            f"no interpreter with PySlurm is set for cluster {cluster.name}",
            hint="set pyslurm.python in the site file, or scheduler: slurm_cli",
        )
    whole = {"any_version": pyslurm.any_version, "cluster": cluster.slurm_name, **question}
    text = json.dumps({"program": _PROGRAM.read_text(encoding="utf-8"), "question": whole})
    done = _run(cluster, argv(pyslurm), text.encode(), cluster.deadline_s if deadline_s is None else deadline_s)
    try:
        reply = json.loads(done.stdout)
        if "answer" in reply:
            return reply["answer"]
        problem, why = str(reply["problem"]), str(reply["text"])
    except (ValueError, KeyError, TypeError):
        raise _no_answer(cluster, done) from None
    raise _explained(cluster, problem, why)


def _run(cluster: Cluster, command: list[str], text: bytes, limit: float) -> processes.Finished:
    try:
        return processes.run(command, environment=_environment(cluster), limit_s=limit, text=text, most_bytes=MOST_BYTES)
    except OSError as error:
        raise Unavailable(
            f"cannot start the interpreter with PySlurm of cluster {cluster.name}",
            why=f"{command[0]}: {error.strerror or error}",
            hint="correct pyslurm.python in the site file, or set scheduler: slurm_cli",
        ) from error
    except processes.TimeLimitReached as error:
        raise Unavailable(
            f"PySlurm of cluster {cluster.name} did not answer within {limit:g} s",
            why=processes.last_line(error.stderr)[:300],
            hint="try again later; if this happens again, set scheduler: slurm_cli",
        ) from error
    except processes.OutputLimitReached as error:
        raise Unavailable(
            f"PySlurm of cluster {cluster.name} answered with more than {units.humanize_size(MOST_BYTES)}",
            hint="set scheduler: slurm_cli",
        ) from error


def _environment(cluster: Cluster) -> dict[str, str]:
    """Return only what the child needs: its environment becomes the jobs'."""
    account = pwd.getpwuid(os.geteuid())
    values = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "HOME": account.pw_dir, "USER": account.pw_name}
    if cluster.conf:
        values["SLURM_CONF"] = str(cluster.conf)
    return values


def _no_answer(cluster: Cluster, done: processes.Finished) -> Unavailable:
    code = done.status
    if done.stdout.strip():
        how = "wrote no valid answer"
    elif code < 0:
        how = f"was ended by {signal.Signals(-code).name}" if -code in set(signal.Signals) else f"was ended by signal {-code}"
    else:
        how = f"ended with exit code {code} and no answer"
    return Unavailable(
        f"PySlurm of cluster {cluster.name} {how}",
        why=processes.last_line(done.stderr)[:300],
        hint="check its interpreter and slurm.conf, and that it fits this libslurm, or set scheduler: slurm_cli",
    )


def _explained(cluster: Cluster, problem: str, why: str) -> LossiError:
    """Return the error for a problem of the child."""
    name = cluster.name
    if problem == "conf":
        hint = f"set conf of cluster {name} in the site file to its slurm.conf"
        return Unavailable(f"PySlurm of cluster {name} finds no slurm.conf", why=why, hint=hint)
    if problem == "import":
        hint = "install PySlurm for this interpreter and this Slurm, or set scheduler: slurm_cli"
        return Unavailable(f"the interpreter of cluster {name} cannot import PySlurm", why=why, hint=hint)
    if problem == "version":
        hint = (
            "install the PySlurm of this Slurm, set pyslurm.any_version if you tried it and it works, or set scheduler: slurm_cli"
        )
        return Unavailable(f"PySlurm of cluster {name} does not fit its Slurm", why=why, hint=hint)
    if problem == "cluster":
        hint = "set conf to the slurm.conf of this cluster, or scheduler: slurm_cli, which can ask another one"
        return NotSupported(f"PySlurm cannot reach the cluster {cluster.slurm_name}", why=why, hint=hint)
    if problem == "invalid":
        return InvalidInput(f"cluster {name} refuses this", why=why, hint="correct the request")
    return refusals.error_of("PySlurm", why, 1)

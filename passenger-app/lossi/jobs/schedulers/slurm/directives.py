"""sbatch's options for a request, as argv and as the ``#SBATCH`` lines of ``script.sh``. Pure.

The command line has all of them and wins; the lines are for reading, and for submitting the script again by hand. Paths are
only on the command line.
"""

from __future__ import annotations

import re

from lossi.contract.text import CONTROL
from lossi.errors import InvalidInput
from lossi.jobs.schedulers.slurm.request import SlurmRequest

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_PLAIN = re.compile(r"[A-Za-z0-9_@%+=:,./&|\[\]()*!~^{}<>?;-]+\Z")
_ESCAPED, _ESCAPE = re.compile(r"([\"\\])"), r"\\\1"
_SUBMITTERS = ("--job-name=", "--partition=", "--account=", "--time=", "--open-mode=", "--export=")
_UNSAYABLE = re.compile(rf"{CONTROL.pattern}|[,'\"\\]")
"""Characters that a value of sbatch's ``--export`` cannot contain: its separator and its quotes."""


def option_list(request: SlurmRequest) -> list[str]:
    """Return sbatch's long options, without paths.

    Raises
    ------
    InvalidInput
        For a variable whose name or value cannot be passed on.
    """
    values = {
        "job-name": request.name,
        "partition": request.partition,
        "account": request.account,
        "qos": request.qos,
        "constraint": request.constraint,
        "nodes": str(request.nodes),
        "ntasks-per-node": "1",
        "cpus-per-task": str(request.cpus),
        "mem": None if request.memory_mb is None else f"{request.memory_mb}M",
        request.gpu_option: _gpus(request),
        "time": None if request.time_limit_min is None else str(request.time_limit_min),
        "array": _array(request),
        "dependency": request.dependency,
        # Otherwise a job that waits for a failed one would wait forever.
        "kill-on-invalid-dep": "yes" if request.dependency else None,
        "signal": None if request.signal_s is None else f"B:USR1@{request.signal_s}",
        "open-mode": "append",
        "export": export(request),
    }
    options = [f"--{name}={value}" for name, value in values.items() if value is not None]
    return [*options, "--requeue" if request.requeue else "--no-requeue", *request.options]


def session_options(request: SlurmRequest) -> list[str]:
    """Return those options of a session for which the program that submits it has no option of its own.

    Raises
    ------
    InvalidInput
        As `option_list`.
    """
    return [option for option in option_list(request) if not option.startswith(_SUBMITTERS)]


def lines(request: SlurmRequest) -> list[str]:
    """Return the ``#SBATCH`` lines of ``script.sh``.

    Raises
    ------
    InvalidInput
        As `option_list`.
    """
    return [f"#SBATCH {_quoted(option)}" for option in option_list(request)]


def export(request: SlurmRequest) -> str:
    """Return the value of ``--export``: NONE, or ``name=value`` for each variable.

    Raises
    ------
    InvalidInput
        For an invalid name, or a value with a comma, a quote, a backslash or a control character.
    """
    for name, value in request.environment.items():
        if not _NAME.match(name) or name in {"ALL", "NONE", "NIL"}:
            raise InvalidInput(f"{name!r} is not a valid name for a variable", hint="use letters, digits and _")
        if _UNSAYABLE.search(value):
            raise InvalidInput(
                f"the variable {name} cannot be passed to Slurm",
                why="its value contains a comma, a quote, a backslash or a control character",
                hint="set it in the notebook or in the environment's definition",
            )
    return ",".join(f"{name}={value}" for name, value in request.environment.items()) or "NONE"


def _gpus(request: SlurmRequest) -> str | None:
    if not request.gpus:
        return None
    words = [request.gpu_type] if request.gpu_type else []
    if request.gpu_option == "gres":
        words.insert(0, "gpu")
    return ":".join([*words, str(request.gpus)])


def _array(request: SlurmRequest) -> str | None:
    if request.array is None:
        return None
    indices = f"{request.array.start}-{request.array.stop - 1}"
    return f"{indices}%{request.throttle}" if request.throttle else indices


def _quoted(option: str) -> str:
    """Return an option as sbatch reads it from a script: it splits at spaces, treats # as a comment and knows quotes.

    Unlike in a shell, a backslash escapes in any quotes.
    """
    return option if _PLAIN.match(option) else f'"{_ESCAPED.sub(_ESCAPE, option)}"'

"""``script.sh``: what the scheduler starts once per task. POSIX sh; only its typed header differs between jobs. Pure.

The body is the file `body.sh` and is never formatted: values reach it as shell variables and as the positional parameters, each
quoted by `shlex.quote`. Task parameters are not in the script; the runner reads them from ``tasks.jsonl``.
"""

from __future__ import annotations

import functools
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from lossi.errors import InvalidInput
from lossi.jobs import ulid

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Header:
    """The values that differ between scripts.

    Attributes
    ----------
    job_id
        Lossi's id.
    directory
        Absolute path of the job directory.
    tasks
        Number of tasks.
    argv
        Command that starts the runner; the script adds ``--task N --attempt K``.
    kind
        ``local`` or ``apptainer``: a container gets a temporary folder and the variables that it may see.
    variables
        Environment variables that the catalogue sets.
    directives
        Comment lines for the scheduler, such as ``#SBATCH --time=60``.
    nodes
        Nodes of one task; on each one after the first, srun starts the script again.
    setup
        Lines of POSIX sh that the site runs before the environment starts; trusted text from the site file.
    scratch
        Node-local folder for temporary files, in which ``$SLURM_JOB_ID`` and ``$USER`` are replaced; None: TMPDIR.
    """

    job_id: str
    directory: Path
    tasks: int
    argv: Sequence[str]
    kind: str = "local"
    variables: Mapping[str, str] = field(default_factory=dict)
    directives: Sequence[str] = ()
    nodes: int = 1
    setup: Sequence[str] = ()
    scratch: str | None = None


def render(header: Header) -> str:
    """Return the script.

    Raises
    ------
    InvalidInput
        When a value is not safe in a script: a NUL, a directive or set-up line with a line break, an invalid variable name, a
        scratch folder with other variables in it.
    """
    lines = ["#!/bin/sh", *(_directive(line) for line in header.directives)]
    lines.append("# Started by the scheduler once per task of a Lossi job. Only the next lines differ between jobs.")
    lines.append(f"lossi_job_id={_job_id(header.job_id)}")
    lines.append(f"lossi_directory={_quoted(os.fspath(header.directory))}")
    lines.append(f"lossi_tasks={int(header.tasks)}")
    lines.append(f"lossi_nodes={int(header.nodes)}")
    lines.append(f"lossi_kind={_kind(header.kind)}")
    lines.append(f"lossi_scratch={_scratch(header.scratch)}")
    lines.append(f"lossi_setup={len(header.setup)}")
    if header.setup:
        lines += ["site_setup() {", *(f"    set_up {_line(line)} || return" for line in header.setup), "}"]
    for name, value in sorted(header.variables.items()):
        if not _VARIABLE.fullmatch(name):
            raise InvalidInput(
                f"{name!r} is not a valid name for an environment variable",
                hint="correct `variables` of the environment in its catalogue",
            )
        lines.append(f"export {name}={_quoted(value)}")
    lines.append("set -- " + " ".join(_quoted(part) for part in header.argv))
    return "\n".join(lines) + "\n" + body()


def encoded(script: str) -> bytes:
    """Return the script as bytes; paths that are not UTF-8 keep their bytes."""
    return script.encode("utf-8", "surrogateescape")


@functools.cache
def body() -> str:
    """Return the fixed part."""
    return resources.files("lossi.jobs.submit").joinpath("body.sh").read_text("utf-8")


def _job_id(text: str) -> str:
    if not ulid.is_ulid(text):
        raise InvalidInput(f"{text!r} is not a job id")
    return text


def _kind(text: str) -> str:
    if text not in ("local", "apptainer"):
        raise InvalidInput(f"{text!r} is not a kind of environment")
    return text


def _scratch(text: str | None) -> str:
    if text is None:
        return "''"
    rest = text.replace("$SLURM_JOB_ID", "").replace("$USER", "")
    if not text.startswith("/") or "$" in rest or any(ord(character) < 32 for character in text):
        raise InvalidInput(
            f"{text!r} is not a valid folder for temporary files",
            why="it must be an absolute path, with no variables except $SLURM_JOB_ID and $USER",
            hint="correct `scratch` of the cluster in the site file",
        )
    return _quoted(text)


def _line(text: str) -> str:
    if any(ord(character) < 32 and character != "\t" for character in text):
        raise InvalidInput(f"{text!r} is not one line of a script", hint="correct `setup` of the cluster in the site file")
    return _quoted(text)


def _quoted(text: str) -> str:
    if "\0" in text:
        raise InvalidInput("paths and arguments must not contain NUL characters")
    return shlex.quote(text)


def _directive(line: str) -> str:
    if not line.startswith("#") or line.startswith("#!") or any(ord(character) < 32 for character in line):
        raise InvalidInput(f"{line!r} is not a valid line for the scheduler", hint="it must be one comment line")
    return line

"""A Python of this machine: its path, version and installed packages.

A child process with a clean environment asks the interpreter once for its version and module search path; the answer is
cached until the interpreter or its folders change. The packages are read from the names of the ``*.dist-info`` folders
(PyPA: Recording installed projects), which needs neither a child nor importlib.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lossi import processes, settings
from lossi.environments.command import clean_variables
from lossi.environments.paths import expanded
from lossi.errors import LossiError, NotSupported, Unavailable
from lossi.files import atomic

OLDEST = (3, 9)
"""Oldest Python of the image contract."""

_QUESTION = (
    "import json,os,sys;"
    "print(json.dumps({'version':list(sys.version_info[:3]),'machine':os.uname().machine,'path':[p for p in sys.path if p]}))"
)
_TIME_LIMIT_S = 30.0


@dataclass(frozen=True)
class Interpreter:
    """A Python and its packages.

    Attributes
    ----------
    python
        Absolute path as the user wrote it; links stay, because a venv's ``python`` is one.
    packages
        Normalised distribution name (PEP 503) → version.
    packages_sha256
        Hash over the sorted ``name==version`` lines.
    """

    python: str
    version: tuple[int, ...]
    machine: str
    packages: Mapping[str, str]
    packages_sha256: str


def locate(configured: str) -> str:
    """Return the absolute path of the interpreter that a catalogue entry names (``auto``, an interpreter or a venv).

    Raises
    ------
    Unavailable
        When there is no such file, or it cannot be executed.
    """
    if configured == "auto":
        if not sys.executable:
            raise Unavailable(
                "the interpreter that runs Lossi has no path", hint="set one in the catalogue: `local: {python: /…/bin/python}`"
            )
        return str(Path(sys.executable).absolute())
    path = expanded(configured)
    if path.is_dir():
        inside = [path / "bin" / name for name in ("python", "python3")]
        path = next((candidate for candidate in inside if candidate.exists()), inside[0])
    if not path.is_file():
        raise Unavailable(
            f"there is no Python at {str(path)!r}",
            hint="it was moved or removed, or its filesystem is not mounted here: correct the catalogue entry",
        )
    if not os.access(path, os.X_OK):
        raise Unavailable(
            f"no permission to execute {str(path)!r}", hint="check its permissions, or set another Python in the catalogue"
        )
    return str(path)


def describe(python: str, variables: Mapping[str, str] | None = None) -> Interpreter:
    """Return version, machine and packages of an interpreter.

    Parameters
    ----------
    python
        Absolute path from `locate`.
    variables
        Environment variables that the environment sets (``PYTHONPATH`` changes what is installed).

    Raises
    ------
    Unavailable
        When it does not start or does not answer.
    NotSupported
        When it is older than 3.9.
    """
    answer = _answer(python, dict(variables or {}))
    version = tuple(int(part) for part in answer["version"])
    if version < OLDEST:
        raise NotSupported(
            f"{python} is Python {'.'.join(map(str, version))}",
            why=f"an environment needs Python {'.'.join(map(str, OLDEST))} or later",
            hint="set a newer Python in the catalogue",
        )
    packages = installed(answer["path"])
    return Interpreter(python, version, str(answer["machine"]), packages, packages_hash(packages))


def installed(folders: Iterable[str]) -> dict[str, str]:
    """Return the distributions in the folders of a module search path; the first folder wins, as it does for imports."""
    packages: dict[str, str] = {}
    for folder in folders:
        with contextlib.suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                distribution = _distribution(entry.name)
                if distribution is not None:
                    packages.setdefault(*distribution)
    return packages


def _distribution(file_name: str) -> tuple[str, str] | None:
    """Return name and version from ``name-version.dist-info`` or ``name-version[-py3.x].egg-info``."""
    stem, dot, kind = file_name.rpartition(".")
    if not dot or kind not in ("dist-info", "egg-info") or stem.startswith("~"):
        return None
    stem = re.sub(r"-py\d+(\.\d+)?$", "", stem) if kind == "egg-info" else stem
    name, dash, version = stem.rpartition("-")
    return (normalised(name), version) if dash else None


def normalised(name: str) -> str:
    """Return a distribution name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def packages_hash(packages: Mapping[str, str]) -> str:
    """Return the SHA-256 over the sorted ``name==version`` lines."""
    lines = "".join(f"{name}=={version}\n" for name, version in sorted(packages.items()))
    return hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()


def _answer(python: str, variables: dict[str, str]) -> dict[str, Any]:
    digest = hashlib.sha256(json.dumps([python, sorted(variables.items())]).encode()).hexdigest()[:32]
    cached = settings.cache_dir() / "interpreters" / f"{digest}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        record = json.loads(cached.read_bytes())
        if record["stamp"] == _stamp(python, record["answer"]["path"]):
            answer: dict[str, Any] = record["answer"]
            return answer
    answer = _ask(python, variables)
    with contextlib.suppress(OSError, LossiError):  # only a cache: an unwritable home must not matter
        cached.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        atomic.write(cached, json.dumps({"stamp": _stamp(python, answer["path"]), "answer": answer}).encode(), mode=0o600)
    return answer


def _stamp(python: str, folders: Iterable[str]) -> list[Any]:
    """Return what changes with the interpreter, its venv or its packages (a new ``.pth`` file touches its folder)."""
    paths = (os.path.realpath(python), str(Path(python).parent.parent / "pyvenv.cfg"), *folders)
    return [[path, *_times(path)] for path in paths]


def _times(path: str) -> tuple[int, ...]:
    try:
        status = Path(path).stat()
    except OSError:
        return ()
    return (status.st_mtime_ns, status.st_size, status.st_ino)


def _ask(python: str, variables: dict[str, str]) -> dict[str, Any]:
    hint = "try it yourself; if it is broken, make the venv again or set another Python in the catalogue"
    try:
        done = processes.run(
            [python, "-c", _QUESTION],
            environment={**clean_variables(os.environ), **variables, "PYTHONNOUSERSITE": "1"},
            limit_s=_TIME_LIMIT_S,
        )
    except processes.TimeLimitReached:
        raise Unavailable(f"{python} does not answer", why=f"no answer within {_TIME_LIMIT_S:.0f} s", hint=hint) from None
    except OSError as error:
        raise Unavailable(f"cannot start {python}", why=error.strerror or str(error), hint=hint) from None
    try:
        answer = json.loads(done.stdout.splitlines()[-1])
        answer["path"] = [os.path.normpath(folder) for folder in answer["path"] if Path(folder).is_absolute()]
        answer["version"], answer["machine"]
    except (ValueError, IndexError, KeyError, TypeError):
        why = processes.last_line(done.stderr or done.stdout.decode("utf-8", "replace"))[:300]
        why = why or f"it ended with exit code {done.status}"
        raise Unavailable(f"{python} does not work as a Python", why=why, hint=hint) from None
    return dict(answer)

"""The command lines of scripts and commands, and how parameter values become text in them. Pure.

**Scripts** get each parameter as a flag of the same name: two elements of argv, ``--name`` and its value. A text that starts
with ``-`` is joined, ``--name=value``, because argparse would take it for another flag. Parameters used as ``{name}`` in the
extra arguments get no flag.

**Commands** get the parameters in place of ``{name}`` in an element of argv. Values are not searched for placeholders and
never seen by a shell; ``{other}`` that is not a parameter stays as it is.

**Text of values**: a text as it is, numbers as Python writes them (``nan``, ``inf``, ``1e-05``), ``true`` and ``false``,
lists and dicts as JSON, None as ``null`` in a placeholder; a flag with the value None is left out. The JSON file
``$LOSSI_PARAMETERS`` holds all parameters, byte for byte as submitted.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any, Dict, List, Mapping, Sequence, Set, Tuple

from .errors import TaskFailure

ARGUMENT_LIMIT = 128 * 1024 - 1
"""Bytes of one element of argv (MAX_ARG_STRLEN of Linux, 32 pages, less the closing NUL)."""

PLACEHOLDER = re.compile(r"\{([^\W\d]\w*)\}")


def script_argv(python: str, script: Path, parameters: Mapping[str, Any], extra: Sequence[str]) -> List[bytes]:
    """Return the argv that runs a script with its parameters.

    Raises
    ------
    TaskFailure
        When the file has no known interpreter, or a value cannot be passed on a command line.
    """
    arguments, used = substitute(extra, parameters)
    for name, value in parameters.items():
        if value is None or name in used:
            continue
        text = value_text(value)
        arguments += [f"--{name}={text}"] if isinstance(value, str) and text.startswith("-") else [f"--{name}", text]
    return encode([*interpreter(python, script), *arguments])


def command_argv(command: Sequence[str], parameters: Mapping[str, Any]) -> List[bytes]:
    """Return the argv of a command with its placeholders filled in.

    Raises
    ------
    TaskFailure
        When it is empty, or a value cannot be passed on a command line.
    """
    if not command:
        raise TaskFailure("the job has no command")
    return encode(substitute(command, parameters)[0])


def interpreter(python: str, script: Path) -> List[str]:
    """Return what runs a script, by its suffix: Python, R, sh, or the file itself if it is executable."""
    suffix = script.suffix.lower()
    if suffix in (".py", ".ipy"):
        return [python, str(script)]
    if suffix == ".r":
        return ["Rscript", str(script)]
    if os.access(script, os.X_OK):
        return [str(script)]
    if suffix == ".sh":
        return ["/bin/sh", str(script)]
    raise TaskFailure(f"no interpreter is known for {script.name}: make it executable with a #! line, or submit a command")


def substitute(argv: Sequence[str], parameters: Mapping[str, Any]) -> Tuple[List[str], Set[str]]:
    """Return argv with each ``{name}`` of a parameter replaced, and the names used."""
    used: Set[str] = set()

    def value(match: "re.Match[str]") -> str:
        name = match.group(1)
        if name not in parameters:
            return match.group(0)
        used.add(name)
        return value_text(parameters[name])

    return [PLACEHOLDER.sub(value, element) for element in argv], used


def value_text(value: Any) -> str:
    """Return the text of a parameter's value."""
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value, ensure_ascii=False)


def encode(argv: Sequence[str]) -> List[bytes]:
    """Return argv as UTF-8 bytes; refuse what the kernel would refuse without naming a parameter."""
    result = []
    for element in argv:
        try:
            data = element.encode("utf-8", "surrogateescape")
        except UnicodeEncodeError as error:
            raise TaskFailure(f"the argument {element[:60]!r}… is not valid Unicode: read it from $LOSSI_PARAMETERS") from error
        if b"\0" in data:
            raise TaskFailure(
                f"the argument {element[:60]!r} contains a NUL, which a command line cannot: read it from $LOSSI_PARAMETERS"
            )
        if len(data) > ARGUMENT_LIMIT:
            raise TaskFailure(
                f"the argument {element[:40]!r}… has {len(data)} bytes; a command line takes {ARGUMENT_LIMIT}: "
                "read it from the JSON file $LOSSI_PARAMETERS"
            )
        result.append(data)
    return result


def parse_parameters(line: bytes) -> Dict[str, Any]:
    """Return the parameters of one line of ``tasks.jsonl`` (JSON, and Python's ``NaN`` and ``Infinity``).

    Raises
    ------
    TaskFailure
        When it is not a JSON object.
    """
    try:
        values = json.loads(line.decode("utf-8", "surrogatepass"))
    except ValueError as error:
        raise TaskFailure(f"the task's line in tasks.jsonl is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise TaskFailure("the task's line in tasks.jsonl is not a JSON object")
    return values

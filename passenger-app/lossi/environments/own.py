"""Adding an environment to the user's own catalogue: the new entry is written into the file, all else stays as it is.

Comments and formatting are kept: the entry is inserted as text, and the result is accepted only if it reads as the old
content plus the entry; otherwise the file is written anew from its data.
"""

from __future__ import annotations

import fcntl
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lossi.environments import catalog, images, interpreter, messages
from lossi.environments.models import ACCELERATORS, ARCHITECTURES, CatalogFile, Environment
from lossi.environments.paths import expanded
from lossi.errors import Conflict, InvalidInput, did_you_mean
from lossi.files import atomic, document


def add(
    name: str,
    *,
    title: str,
    python: str | None = None,
    sif: str | None = None,
    image: str | None = None,
    digest: str | None = None,
    accelerator: str = "none",
    architecture: str | None = None,
    description: str = "",
    frameworks: Mapping[str, str] | None = None,
    variables: Mapping[str, str] | None = None,
) -> Environment:
    """Write an environment of the user's own and return it as the catalogue has it now.

    Parameters
    ----------
    name, title, description
        What it is called, in the catalogue and in lists.
    python
        Interpreter or venv folder; relative paths begin at the current folder.
    sif
        SIF file or sandbox folder; its own header says for which architecture it is.
    image, digest
        OCI reference and the digest that pins it.
    accelerator, architecture
        What the image is built for (default: a CPU like the SIF's, or this machine's).
    frameworks, variables
        As in a catalogue.

    Raises
    ------
    InvalidInput
        When a value is not valid, there is nothing to run, or the user's file is broken.
    Conflict
        When the name is taken.
    Unavailable
        When the Python or SIF is not there, or the file cannot be written.
    """
    existing = catalog.load()
    _check_free(name, existing)
    entry = _entry(title, python, sif, image, digest, accelerator, architecture, description, frameworks, variables)
    _validate(name, entry)
    path = catalog.user_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise atomic.explained(error, path) from error
    with _locked(path.parent / ".catalog.lock"):
        old = _content(path)
        atomic.write(path, _with_entry(old, name, entry), mode=0o600)
    return catalog.load().get(name)


def _check_free(name: str, existing: catalog.Catalog) -> None:
    for environment in existing.environments:
        if environment.name == name:
            raise Conflict(
                f"there is an environment {name!r} already",
                why=f"{environment.file}, line {environment.line}",
                hint=f"choose another name, for example my-{name}",
            )
    for problem in existing.problems:
        if problem.environment == name:
            raise Conflict(
                f"there is an entry {name!r} already that is not valid",
                why=str(problem),
                hint=f"correct or remove it in {problem.file}",
            )


def _entry(
    title: str,
    python: str | None,
    sif: str | None,
    image: str | None,
    digest: str | None,
    accelerator: str,
    architecture: str | None,
    description: str,
    frameworks: Mapping[str, str] | None,
    variables: Mapping[str, str] | None,
) -> dict[str, Any]:
    """Return the entry as it stands in YAML, looked at on this machine as far as that costs nothing."""
    entry: dict[str, Any] = {"title": title}
    if description:
        entry["description"] = description
    if frameworks:
        entry["frameworks"] = dict(frameworks)
    if python is not None:
        entry["local"] = {"python": python if python == "auto" else str(expanded(python))}
        interpreter.describe(interpreter.locate(entry["local"]["python"]), variables)
    if sif is not None or image is not None:
        _known("accelerator", accelerator, ACCELERATORS)
        variant: dict[str, Any] = {key: value for key, value in (("image", image), ("digest", digest)) if value is not None}
        found = None
        if sif is not None:
            variant["sif"] = str(expanded(sif))
            found = images.check(variant["sif"])
        architecture = architecture or found or platform.machine()
        _known("architecture", architecture, ARCHITECTURES)
        if found not in (None, architecture):
            raise InvalidInput(
                f"the image {variant['sif']} is for {found}, not for {architecture}", hint="leave --architecture out"
            )
        entry["variants"] = {architecture: {accelerator: variant}}
    elif digest is not None:
        raise InvalidInput("a digest alone names no image", hint="give the image too")
    if variables:
        entry["variables"] = dict(variables)
    if len(entry.keys() & {"local", "variants"}) == 0:
        raise InvalidInput("there is nothing to run", hint="give a Python, a SIF file or an image")
    return entry


def _known(what: str, word: str, known: tuple[str, ...]) -> None:
    if word not in known:
        raise InvalidInput(
            f"{what} {messages.shown(word)} is not known", hint=did_you_mean(word, known) or f"choose one of {', '.join(known)}"
        )


def _validate(name: str, entry: dict[str, Any]) -> None:
    try:
        CatalogFile.model_validate({"environments": {name: entry}})
    except ValidationError as error:
        first = messages.problems(error, Path(), document.Document(None), name)[0]
        key = first.key.removeprefix(f"environments.{name}").lstrip(".")
        raise InvalidInput(f"{key}: {first.message}" if key else first.message, hint=first.hint) from None


class _locked:  # noqa: N801
    """One writer of the user's catalogue at a time: two `lossi env add` at once keep both entries."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        try:
            self.descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise atomic.explained(error, self.path) from error
        fcntl.flock(self.descriptor, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise InvalidInput(f"cannot read {path}", why=error.strerror or "", hint="check its permissions") from None


def _with_entry(old: bytes, name: str, entry: dict[str, Any]) -> bytes:
    """Return the file's new content."""
    import yaml

    try:
        data = document.parse(old).data
    except document.Unreadable as error:
        place = f" on line {error.line}" if error.line else ""
        raise InvalidInput(
            f"your catalogue {catalog.user_file()} {error.message}{place}", hint="correct it first; it was left as it is"
        ) from None
    data = {} if data is None else data
    if not isinstance(data, dict) or not isinstance(data.get("environments") or {}, dict):
        raise InvalidInput(
            f"your catalogue {catalog.user_file()} is not a mapping of `environments`",
            hint="correct it first; it was left as it is",
        )
    if name in (data.get("environments") or {}):
        raise Conflict(f"there is an environment {name!r} already", hint="choose another name")
    wanted = {**data, "environments": {**(data.get("environments") or {}), name: entry}}
    text = _inserted(old, name, entry)
    if text is not None and _reads_as(text, wanted):
        return text
    return _yaml(wanted, yaml)


def _reads_as(text: bytes, wanted: dict[str, Any]) -> bool:
    try:
        return bool(document.parse(text).data == wanted)
    except document.Unreadable:
        return False


def _yaml(data: Any, yaml: Any) -> bytes:
    return str(yaml.safe_dump(data, sort_keys=False, allow_unicode=True, default_flow_style=False, width=120)).encode()


def _inserted(old: bytes, name: str, entry: dict[str, Any]) -> bytes | None:
    """Return ``old`` with the entry's lines after the last one of ``environments``, or None where that has no such place."""
    import yaml

    text = old.decode("utf-8-sig")
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if root is None:
        head = text if not text or text.endswith("\n") else text + "\n"
        return head.encode() + _yaml({"environments": {name: entry}}, yaml)
    named = next((value for key, value in root.value if key.value == "environments"), None)
    if named is None:
        return (text if text.endswith("\n") else text + "\n").encode() + _yaml({"environments": {name: entry}}, yaml)
    if not isinstance(named, yaml.MappingNode) or named.flow_style or not named.value:
        return None
    indent = " " * named.value[0][0].start_mark.column
    lines = text.splitlines(keepends=True)
    at = _last_line(named) + 1
    if at > len(lines) or not lines[at - 1].endswith("\n"):
        lines.append("\n")
        at = len(lines)
    block = "".join(f"{indent}{line}\n" for line in _yaml({name: entry}, yaml).decode().splitlines())
    return "".join([*lines[:at], block, *lines[at:]]).encode()


def _last_line(node: Any) -> int:
    """Return the 0-based line on which the last scalar below ``node`` ends."""
    if isinstance(node.value, str):
        end = node.end_mark
        return int(end.line if end.column else max(end.line - 1, node.start_mark.line))
    children = [part for item in node.value for part in (item if isinstance(item, tuple) else (item,))]
    return max([int(node.start_mark.line), *(_last_line(child) for child in children)])

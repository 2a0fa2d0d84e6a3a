"""Adds an environment to the user's own catalogue; everything else in the file stays."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lossi.environments import catalog, interpreter, messages
from lossi.environments.images import sif as sif_file
from lossi.environments.models import ACCELERATORS, ARCHITECTURES, CatalogFile, Environment
from lossi.environments.paths import expanded
from lossi.errors import Conflict, InvalidInput, did_you_mean
from lossi.files import document, yaml_edit


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
    """Add an environment to the user's catalogue and return its entry.

    Parameters
    ----------
    name, title, description
        Its name in the catalogue, and its texts in lists.
    python
        Interpreter or venv folder; relative paths start at the current folder.
    sif
        SIF file or sandbox folder; its header has the architecture.
    image, digest
        OCI reference and the digest that pins it.
    accelerator, architecture
        What the image is built for (default: no accelerator; the SIF's architecture, or this machine's).
    frameworks, variables
        As in a catalogue.

    Raises
    ------
    InvalidInput
        When a value is not valid, there is nothing to run, or the user's file cannot be parsed.
    Conflict
        When the name is taken.
    Unavailable
        When the Python or SIF does not exist, or the file cannot be written.
    """
    existing = catalog.load()
    _check_free(name, existing)
    entry = _entry(title, python, sif, image, digest, accelerator, architecture, description, frameworks, variables)
    _validate(name, entry)
    yaml_edit.edit_file(catalog.user_file(), lambda data: _insertion(data, name, entry), mode=0o600)
    return catalog.load().get(name)


def _check_free(name: str, existing: catalog.Catalog) -> None:
    for environment in existing.environments:
        if environment.name == name:
            raise Conflict(
                f"environment {name!r} already exists",
                why=f"{environment.file}, line {environment.line}",
                hint=f"choose another name, for example my-{name}",
            )
    for problem in existing.problems:
        if problem.environment == name:
            raise Conflict(
                f"there already is an invalid entry {name!r}",
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
    """Return the entry for the file, after cheap checks on this machine."""
    entry: dict[str, Any] = {"title": title}
    if description:
        entry["description"] = description
    if frameworks:
        entry["frameworks"] = dict(frameworks)
    if python is not None:
        entry["local"] = {"python": python if python == "auto" else str(expanded(python))}
        interpreter.describe(interpreter.locate(entry["local"]["python"]), variables)
    if sif is not None or image is not None:
        _check_known("accelerator", accelerator, ACCELERATORS)
        variant: dict[str, Any] = {key: value for key, value in (("image", image), ("digest", digest)) if value is not None}
        actual = None
        if sif is not None:
            variant["sif"] = str(expanded(sif))
            actual = sif_file.check_image_file(variant["sif"])
        architecture = architecture or actual or platform.machine()
        _check_known("architecture", architecture, ARCHITECTURES)
        if actual not in (None, architecture):
            raise InvalidInput(f"the image {variant['sif']} is for {actual}, not for {architecture}", hint="omit --architecture")
        entry["variants"] = {architecture: {accelerator: variant}}
    elif digest is not None:
        raise InvalidInput("a digest needs an image", hint="pass the image too")
    if variables:
        entry["variables"] = dict(variables)
    if len(entry.keys() & {"local", "variants"}) == 0:
        raise InvalidInput("there is nothing to run", hint="pass a Python, a SIF file or an image")
    return entry


def _check_known(what: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise InvalidInput(
            f"{what} {messages.shown(value)} is not known", hint=did_you_mean(value, known) or f"choose one of {', '.join(known)}"
        )


def _validate(name: str, entry: dict[str, Any]) -> None:
    try:
        CatalogFile.model_validate({"environments": {name: entry}})
    except ValidationError as error:
        first = messages.problems(error, Path(), document.Document(None), name)[0]
        key = first.key.removeprefix(f"environments.{name}").lstrip(".")
        raise InvalidInput(f"{key}: {first.message}" if key else first.message, hint=first.hint) from None


def _insertion(data: dict[str, Any], name: str, entry: dict[str, Any]) -> list[yaml_edit.Change]:
    """Return the change of the user's file; refuse a name that somebody else has just added."""
    entries = data.get("environments")
    if isinstance(entries, dict) and name in entries:
        raise Conflict(f"environment {name!r} already exists", hint="choose another name")
    return [(("environments", name), entry)]

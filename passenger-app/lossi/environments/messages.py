"""Explains Pydantic's errors in a catalogue file, with file, line, key and a hint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lossi.environments.models import CatalogFile, Entry, LocalPython, Mount, Problem, Variant
from lossi.errors import did_you_mean
from lossi.files.document import Document, KeyPath

NAME_FORM = (
    "a name has lower-case letters, digits, `.`, `_` and `-`, starts with a letter or digit, and has at most 63 characters"
)

_HINTS = {
    "string_type": 'put it in quotes, for example "3.10"',
    "dict_type": "write `key: value` lines below it",
    "model_type": "write `key: value` lines below it",
    "tuple_type": "write a list: lines that start with `- `",
    "bool_type": "write true or false",
    "bool_parsing": "write true or false",
}
_MESSAGES = {
    "string_type": "is not text",
    "dict_type": "is not a mapping",
    "model_type": "is not a mapping",
    "tuple_type": "is not a list",
    "missing": "is missing",
    "string_too_short": "is empty",
    "string_too_long": "is too long",
}


def problems(error: ValidationError, path: Path, document: Document, environment: str | None = None) -> list[Problem]:
    """Return one problem for each error of Pydantic, with its line."""
    return [_problem(item, path, document, environment) for item in error.errors(include_url=False)]


def shown(text: str) -> str:
    """Return a name for a message: quoted, without line breaks or escapes, shortened."""
    return repr(text if len(text) <= 80 else text[:77] + "...")


def _problem(item: Any, path: Path, document: Document, environment: str | None) -> Problem:
    location: KeyPath = tuple(part for part in item["loc"] if part != "[key]")
    message, hint = _explain(item, location, is_key=item["loc"][-1:] == ("[key]",))
    key = ".".join(str(part) if len(str(part)) <= 80 else str(part)[:77] + "..." for part in location)
    key = key if key.isprintable() else repr(key)
    return Problem(file=str(path), line=document.line(location), key=key, message=message, hint=hint, environment=environment)


def _explain(item: Any, location: KeyPath, *, is_key: bool) -> tuple[str, str]:
    kind = item["type"]
    if is_key:
        return _explain_key(item, location)
    if kind == "extra_forbidden":
        known = _known_keys(location[:-1])
        return "is not a known key", did_you_mean(str(location[-1]), known) or f"known keys: {', '.join(known)}"
    if kind == "string_pattern_mismatch":
        if location and location[-1] == "digest":
            return "is not a digest", "a digest is `sha256:` and 64 hexadecimal digits"
        return f"is not valid: {shown(str(item['input']))}", 'for example "1.2.3"'
    if kind == "value_error":
        return str(item["ctx"]["error"]), ""
    if kind == "literal_error":
        return "is not one of the known values", f"choose {item['ctx']['expected']}"
    return _MESSAGES.get(kind, item["msg"][:1].lower() + item["msg"][1:]), _HINTS.get(kind, "")


def _explain_key(item: Any, location: KeyPath) -> tuple[str, str]:
    key = str(location[-1])
    if item["type"] == "literal_error":
        expected = [name.strip("' ") for name in item["ctx"]["expected"].replace(" or ", ",").split(",")]
        return "is not a known key", did_you_mean(key, expected) or f"known keys: {', '.join(expected)}"
    if len(location) == 2 and location[0] == "environments":
        return f"{shown(key)} cannot be a name", NAME_FORM
    if item["type"] == "value_error":
        return str(item["ctx"]["error"]), ""
    what = "variable" if "variables" in location else "package"
    return f"{shown(key)} cannot be the name of a {what}", ""


def _known_keys(parent: KeyPath) -> list[str]:
    """Return the keys allowed below ``parent`` (a path in a catalogue file)."""
    inside = parent[2:] if len(parent) >= 2 and parent[0] == "environments" else None
    model: Any = CatalogFile if inside is None else Entry
    if inside == ("local",):
        model = LocalPython
    elif inside and inside[0] == "variants" and len(inside) == 3:
        model = Variant
    elif len(parent) >= 2 and parent[-2] == "mounts":
        model = Mount
    return list(model.model_fields)

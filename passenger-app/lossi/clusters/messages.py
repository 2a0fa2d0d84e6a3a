"""Turn Pydantic's errors into messages and hints about a cluster's entry."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from lossi.clusters.models import Cluster
from lossi.errors import did_you_mean
from lossi.files.document import KeyPath

NAME_FORM = "letters, digits, `_`, `-` and `.`, at most 64, starting with a letter, a digit or `_`"

_MESSAGES = {
    "string_type": ("is not text", 'put it in quotes, for example "36:00:00"'),
    "dict_type": ("is not a mapping", "write `key: value` lines below it"),
    "model_type": ("is not a mapping", "write `key: value` lines below it"),
    "tuple_type": ("is not a list", "write a list: lines that start with `- `"),
    "bool_type": ("is not true or false", "write true or false"),
    "bool_parsing": ("is not true or false", "write true or false"),
    "path_type": ("is not a path", "write an absolute path"),
    "missing": ("is missing", ""),
    "string_too_short": ("is empty", ""),
    "string_too_long": ("is too long", ""),
}


def explained(item: Any) -> tuple[str, str]:
    """Return (message, hint) for one of Pydantic's errors (``ValidationError.errors()``)."""
    kind, location = item["type"], tuple(item["loc"])
    if kind == "extra_forbidden":
        known = known_keys(location[:-1])
        return "is not a known key", did_you_mean(str(location[-1]), known) or f"known keys: {', '.join(known)}"
    if kind == "value_error":
        return str(item["ctx"]["error"]), ""
    if kind == "literal_error":
        return "is not a known value", f"choose {item['ctx']['expected']}"
    if kind == "string_pattern_mismatch":
        field = str(location[-1])
        hints = {"url": "for example http://slurm.example.org:6820", "version": "for example v0.0.41"}
        # The URL may contain a password.
        shown = "" if field == "url" else f": {str(item['input'])[:80]!r}"
        return f"is not valid{shown}", hints.get(field, NAME_FORM)
    return _MESSAGES.get(kind) or (item["msg"][:1].lower() + item["msg"][1:], "")


def known_keys(location: KeyPath) -> list[str]:
    """Return the known keys at a path in a cluster's entry."""
    model: type[BaseModel] = Cluster
    for part in location:
        field = model.model_fields.get(str(part)) if isinstance(part, str) else None
        if field is not None:
            model = next(_models(field.annotation), model)
    return [name for name in model.model_fields if not (model is Cluster and name == "name")]


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the models in an annotation such as ``tuple[GpuType, ...]`` or ``RestSettings | None``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from _models(argument)

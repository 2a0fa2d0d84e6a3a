"""Words for what is wrong in a cluster's entry: Pydantic's errors with file, line, key and what to do."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from lossi.clusters.models import Cluster
from lossi.errors import did_you_mean
from lossi.files.document import KeyPath

NAME_FORM = "letters, digits, `_`, `-` and `.`, at most 64, beginning with a letter, a digit or `_`"

_WORDS = {
    "string_type": ("is not text", 'put it in quotes, for example "36:00:00"'),
    "dict_type": ("is not a mapping", "write `key: value` lines below it"),
    "model_type": ("is not a mapping", "write `key: value` lines below it"),
    "tuple_type": ("is not a list", "write a list: lines that begin with `- `"),
    "bool_type": ("is neither true nor false", "write true or false"),
    "bool_parsing": ("is neither true nor false", "write true or false"),
    "path_type": ("is not a path", "write an absolute path"),
    "missing": ("is missing", ""),
    "string_too_short": ("is empty", ""),
    "string_too_long": ("is too long", ""),
}


def explained(item: Any) -> tuple[str, str]:
    """Return what is wrong and what to do, for one of Pydantic's errors (``ValidationError.errors()``)."""
    kind, location = item["type"], tuple(item["loc"])
    if kind == "extra_forbidden":
        known = known_keys(location[:-1])
        return "is not a known key", did_you_mean(str(location[-1]), known) or f"known here: {', '.join(known)}"
    if kind == "value_error":
        return str(item["ctx"]["error"]), ""
    if kind == "literal_error":
        return "is not one of the known values", f"choose {item['ctx']['expected']}"
    if kind == "string_pattern_mismatch":
        field = str(location[-1])
        hints = {"url": "for example http://slurm.example.org:6820", "version": "for example v0.0.41"}
        # Somebody may have written a password into the address.
        shown = "" if field == "url" else f": {str(item['input'])[:80]!r}"
        return f"is not valid{shown}", hints.get(field, NAME_FORM)
    words = _WORDS.get(kind)
    return words if words else (item["msg"][:1].lower() + item["msg"][1:], "")


def known_keys(location: KeyPath) -> list[str]:
    """Return the keys that are known at a place in a cluster's entry."""
    model: type[BaseModel] = Cluster
    for part in location:
        field = model.model_fields.get(str(part)) if isinstance(part, str) else None
        if field is not None:
            model = next(_models(field.annotation), model)
    return [name for name in model.model_fields if not (model is Cluster and name == "name")]


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the models that an annotation such as ``tuple[GpuType, ...]`` or ``RestDoor | None`` speaks of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from _models(argument)

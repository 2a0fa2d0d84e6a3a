"""The parameters of each task: a request's fixed values and sweep, checked against the notebook's parameters. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Any

from lossi import notebooks, settings
from lossi.contract.text import CONTROL
from lossi.errors import InvalidInput, LossiError
from lossi.jobs.submit import sweep
from lossi.jobs.submit.spec import JobSpec
from lossi.jsonable import from_text

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_COMMAND_NAME = re.compile(rf"(?:(?!{CONTROL.pattern})[^=]){{1,200}}")

Parameters = dict[str, Any]


def expand(spec: JobSpec, declared: notebooks.Parameters | None) -> list[Parameters]:
    """Return the parameters of each task, in the order of their numbers.

    Parameters
    ----------
    spec
        The request.
    declared
        Parameters of the notebook; None for scripts and commands.

    Raises
    ------
    InvalidInput
        When the sweep is too large, or a name or value is not valid.
    """
    if spec.sweep is None:
        return [_check(spec, dict(spec.parameters), declared)]
    _check_sweep(spec, spec.sweep)
    return list(_expand_sweep(spec, spec.sweep, declared))


def _check_sweep(spec: JobSpec, swept: sweep.Sweep) -> None:
    """Refuse a sweep that is too large or in conflict with fixed parameters, before it is expanded."""
    total, most = swept.total(), settings.load().max_tasks
    if total > most:
        raise InvalidInput(
            f"the sweep has {total:,} combinations, the limit is {most:,} tasks per job",
            hint="sweep fewer values, draw combinations at random, or split it into several jobs",
            total=total,
            limit=most,
        )
    both = None if isinstance(swept, sweep.List) else next((name for name in swept.names if name in spec.parameters), None)
    if both is not None:
        raise InvalidInput(f"parameter {both!r} is both fixed and swept", hint="remove it from one of the two")


def _expand_sweep(spec: JobSpec, swept: sweep.Sweep, declared: notebooks.Parameters | None) -> Iterator[Parameters]:
    for number, combination in enumerate(swept.combinations()):
        values = {**spec.parameters, **combination}
        try:
            if isinstance(swept, sweep.Csv):
                values = _parse_text(values, set(combination), declared)
            yield _check(spec, values, declared)
        except LossiError as error:
            error.what = f"task {number} of the sweep: {error.what}"
            raise


def _parse_text(values: Parameters, names: Collection[str], declared: notebooks.Parameters | None) -> Parameters:
    """Return ``values`` with those called ``names``, which are text from a CSV table, as what they mean."""
    if declared is not None:
        return {**values, **notebooks.check_values(declared, {name: values[name] for name in names}, from_text=True)}
    return {name: from_text(value) if name in names else value for name, value in values.items()}


def _check(spec: JobSpec, values: Parameters, declared: notebooks.Parameters | None) -> Parameters:
    if declared is not None:
        values = notebooks.check_values(declared, values)
    else:
        pattern, allowed = (
            (_COMMAND_NAME, "1 to 200 characters without `=`")
            if spec.command is not None
            else (_IDENTIFIER, "letters, digits and _")
        )
        for name in values:
            if not pattern.fullmatch(name):
                raise InvalidInput(f"{name!r} is not a valid parameter name", hint=f"use {allowed}")
    for name, value in values.items():
        try:
            for text in _texts(value):
                text.encode("utf-8")
        except UnicodeEncodeError:
            raise InvalidInput(
                f"parameter {name!r} has a lone surrogate, which is not a character", hint="send valid Unicode"
            ) from None
    return values


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)

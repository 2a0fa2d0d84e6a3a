"""Types of fields that the models of the site file share. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field

from lossi.contract.text import CONTROL

FROZEN = ConfigDict(frozen=True, extra="forbid")

_HOST = re.compile(r"(?:[A-Za-z0-9_.-]+@)?[A-Za-z0-9][A-Za-z0-9.:_-]*")


def _one_line(value: str) -> str:
    if CONTROL.search(value):
        raise ValueError("must be one line without control characters")
    return value


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError("must be an absolute path")
    _one_line(str(path))
    return path


def _host(value: str) -> str:
    # ssh would read a leading dash as an option.
    if not _HOST.fullmatch(value):
        raise ValueError("must be a host name, optionally with user@ in front")
    return value


def refuse_twice(names: Sequence[str], what: str) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"lists {what} {twice!r} twice")


Line = Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_one_line)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$")]
AbsolutePath = Annotated[Path, AfterValidator(_absolute)]
Host = Annotated[Line, AfterValidator(_host)]

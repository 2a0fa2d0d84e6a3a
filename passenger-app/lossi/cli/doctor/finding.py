"""A result of the doctor's checks."""

from __future__ import annotations

from dataclasses import dataclass

from lossi.errors import LossiError


@dataclass(frozen=True)
class Finding:
    """A result of one check.

    Attributes
    ----------
    level
        ``ok``, ``warning`` or ``error``.
    """

    what: str
    level: str
    detail: str
    remedy: str = ""


def failed(what: str, error: LossiError, remedy: str = "", level: str = "error") -> Finding:
    """Return the finding for an error; ``remedy`` is used if the error has no hint."""
    return Finding(what, level, f"{error.what}{': ' + error.why if error.why else ''}", error.hint or remedy)

"""The error classes: every error that a user can see says what happened, why, and what to do next.

Imports nothing of Lossi. `api` turns errors into RFC 9457 problem documents with ``status`` and ``slug``, `cli` into a message on
stderr and ``exit_code``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, ClassVar


class LossiError(Exception):
    """An error that a user can understand and act on.

    Parameters
    ----------
    what
        What happened, one sentence without a full stop.
    why
        The cause, if known and not already in ``what``.
    hint
        What to do next.
    **details
        Facts for programs, JSON-serialisable; they become members of the problem document.
    """

    status: ClassVar[int] = 500
    slug: ClassVar[str] = "internal-error"
    title: ClassVar[str] = "Lossi could not do this"
    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, why: str = "", hint: str = "", **details: Any) -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.hint = hint
        self.details = details

    def __str__(self) -> str:
        text = self.what
        if self.why:
            text += f": {self.why}"
        if self.hint:
            text += f" ({self.hint})"
        return text


class InvalidInput(LossiError):
    """The request is not valid: a value, a name, a file's format."""

    status = 422
    slug = "invalid-input"
    title = "The request is not valid"
    exit_code = 2


class NotFound(LossiError):
    """It does not exist, or this user has no access (the two look the same on purpose)."""

    status = 404
    slug = "not-found"
    title = "Not found"
    exit_code = 3


class Forbidden(LossiError):
    """Permissions, the site or a safety rule do not allow it."""

    status = 403
    slug = "forbidden"
    title = "Not allowed"
    exit_code = 4


class Conflict(LossiError):
    """Its state does not allow this, or a key was used for something else."""

    status = 409
    slug = "conflict"
    title = "Conflict"
    exit_code = 4


class NotSupported(LossiError):
    """Valid, but this version, language or machine does not support it."""

    status = 422
    slug = "not-supported"
    title = "Not supported"
    exit_code = 2


class Unavailable(LossiError):
    """Something that is needed does not work now: a scheduler, a store, a full or read-only disk."""

    status = 503
    slug = "unavailable"
    title = "Temporarily unavailable"
    exit_code = 5


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``"did you mean 'x'?"`` for the nearest known word, or an empty string."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}?" if near else ""

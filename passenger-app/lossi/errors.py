"""The one error tree: every failure a user can meet says what happened, why, and what to do next.

Lowest layer: imports nothing of Lossi. The skins translate it in one place each: `api` to RFC 9457 problem+json by
``status`` and ``slug``, `cli` to a message on stderr and ``exit_code``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, ClassVar


class LossiError(Exception):
    """Something a user can understand and act upon.

    Parameters
    ----------
    what
        What happened, one sentence without a full stop at the end.
    why
        The cause, where it is known and not already in ``what``.
    hint
        What to do next.
    **details
        Facts for programs (JSON-serialisable); they become members of the problem document.
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
    """What was asked for cannot be right: a value, a name, a file's form."""

    status = 422
    slug = "invalid-input"
    title = "The request is not valid"
    exit_code = 2


class NotFound(LossiError):
    """The named thing does not exist, or may not be seen by this user (the two look alike on purpose)."""

    status = 404
    slug = "not-found"
    title = "Not found"
    exit_code = 3


class Forbidden(LossiError):
    """The user, the site or a rule of safety does not allow it."""

    status = 403
    slug = "forbidden"
    title = "Not allowed"
    exit_code = 4


class Conflict(LossiError):
    """The thing is in a state in which this cannot be done, or a key was used for something else."""

    status = 409
    slug = "conflict"
    title = "Conflict"
    exit_code = 4


class NotSupported(LossiError):
    """Understood, but this version, language or machine cannot do it."""

    status = 422
    slug = "not-supported"
    title = "Not supported"
    exit_code = 2


class Unavailable(LossiError):
    """A part that is needed does not answer now: a scheduler, a store, a full or read-only disk."""

    status = 503
    slug = "unavailable"
    title = "Temporarily unavailable"
    exit_code = 5


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``"did you mean 'x'?"`` for the nearest known word, or an empty string."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}?" if near else ""

"""What the doctor finds."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes
    ----------
    level
        ``ok``, ``warning`` or ``error``.
    """

    what: str
    level: str
    detail: str
    remedy: str = ""

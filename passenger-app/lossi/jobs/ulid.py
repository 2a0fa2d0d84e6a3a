"""Job ids: lower-case ULIDs (github.com/ulid/spec), 48 bits of milliseconds and 80 random bits in Crockford's base 32.

They sort by time, need no coordination between hosts, and are safe in paths, URLs and scripts.
"""

from __future__ import annotations

import re
import secrets
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_FORM = re.compile(r"[0-7][0-9a-hjkmnp-tv-z]{25}")


def new(now: float | None = None) -> str:
    """Return a new id for the time ``now`` in seconds since the epoch (default: the clock)."""
    milliseconds = int((time.time() if now is None else now) * 1000)
    number = milliseconds << 80 | secrets.randbits(80)
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(125, -5, -5))


def is_ulid(text: str) -> bool:
    """Return whether ``text`` is such an id."""
    return _FORM.fullmatch(text) is not None


def moment(text: str) -> float:
    """Return when an id was made, in seconds since the epoch."""
    number = 0
    for character in text[:10]:
        number = number << 5 | _ALPHABET.index(character)
    return number / 1000

"""Paths in catalogues and on the command line: ``~`` and relative ones, never resolved through links."""

from __future__ import annotations

from pathlib import Path


def expanded(text: str, base: Path | None = None) -> Path:
    """Return ``text`` with a leading ``~`` replaced, absolute from ``base`` (default: the current folder).

    Links stay: a venv's interpreter is one, and a SIF may be replaced behind one.
    """
    path = Path(text)
    try:
        path = path.expanduser()
    except RuntimeError:  # ~name without such a user: an ordinary path
        path = Path(text)
    return (base or Path.cwd()) / path


def is_absolute(text: str) -> bool:
    """Return whether ``text`` means the same path wherever it is read."""
    return text.startswith("/") or (text.startswith("~") and expanded(text, Path("relative")).is_absolute())

"""Determine a notebook's programming language from its metadata, else from its code. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from lossi.notebooks import ipython

UNKNOWN = "unknown"

_ALIASES = {"ipython": "python", "python2": "python", "python3": "python", "ir": "r", "rlang": "r", "xr": "r"}
_KERNELS = (
    (re.compile(r"(x?python|ipykernel|pyspark|sagemath)", re.I), "python"),
    (re.compile(r"(ir|xr|r|sparkrkernel)(\W.*|_.*|\d.*)?$", re.I), "r"),
    (re.compile(r"julia", re.I), "julia"),
)
_R_CODE = re.compile(r"^\s*[\w.]+\s*<-|^\s*library\(", re.M)


def of(metadata: Mapping[str, Any], code: Sequence[str]) -> tuple[str | None, str, tuple[str, ...]]:
    """Return the kernel's name, the language, and a note if the language is a guess.

    Parameters
    ----------
    metadata
        The notebook's metadata; ``language_info.name`` takes precedence over ``kernelspec.language``, as in papermill.
    code
        The sources of its code cells.
    """
    kernelspec = metadata.get("kernelspec")
    info = metadata.get("language_info")
    kernel = _text(kernelspec, "name")
    declared = _text(info, "name") or _text(kernelspec, "language")
    if declared:
        return kernel, _ALIASES.get(declared.lower(), declared.lower()), ()
    if kernel:
        for pattern, language in _KERNELS:
            if pattern.match(kernel):
                return kernel, language, ()
    guess = _from_code(code)
    cause = f"the notebook does not say the language of its kernel {kernel!r}" if kernel else "the notebook names no kernel"
    outcome = "its language is unknown" if guess == UNKNOWN else f"its code looks like {'R' if guess == 'r' else guess.title()}"
    return kernel, guess, (f"{cause}: {outcome}; open it in Jupyter, choose a kernel and save it",)


def _from_code(code: Sequence[str]) -> str:
    if any(_R_CODE.search(cell) for cell in code):  # most lines of R are valid Python
        return "r"
    return "python" if any(cell.strip() for cell in code) and all(ipython.parses(cell) for cell in code) else UNKNOWN


def _text(mapping: object, key: str) -> str | None:
    value = mapping.get(key) if isinstance(mapping, Mapping) else None
    return value.strip() if isinstance(value, str) and value.strip() else None

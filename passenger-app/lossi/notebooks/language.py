"""Which programming language a notebook is written in: what its metadata says, else what its code looks like.

Pure functions over the metadata and the code.
"""

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
    """Return the kernel's name, the language and notes on how sure that is.

    Parameters
    ----------
    metadata
        The notebook's metadata; ``language_info.name`` counts more than ``kernelspec.language``, as in papermill.
    code
        The sources of its code cells.
    """
    kernelspec = metadata.get("kernelspec")
    info = metadata.get("language_info")
    kernel = _text(kernelspec, "name")
    said = _text(info, "name") or _text(kernelspec, "language")
    if said:
        return kernel, _ALIASES.get(said.lower(), said.lower()), ()
    if kernel:
        for pattern, language in _KERNELS:
            if pattern.match(kernel):
                return kernel, language, ()
    guess = _from_code(code)
    asked = f"the kernel {kernel!r}, whose language it does not say" if kernel else "no kernel"
    outcome = f"taken as {'R' if guess == 'r' else guess.title()} by its code" if guess != UNKNOWN else "its language is unknown"
    return kernel, guess, (f"the notebook names {asked}: {outcome}; open it in Jupyter, choose a kernel and save it",)


def _from_code(code: Sequence[str]) -> str:
    if any(_R_CODE.search(cell) for cell in code):  # most of R's lines would pass for Python too
        return "r"
    return "python" if any(cell.strip() for cell in code) and all(ipython.parses(cell) for cell in code) else UNKNOWN


def _text(mapping: object, key: str) -> str | None:
    value = mapping.get(key) if isinstance(mapping, Mapping) else None
    return value.strip() if isinstance(value, str) and value.strip() else None

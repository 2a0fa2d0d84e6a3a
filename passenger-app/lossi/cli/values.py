"""Parameter values as people type them: ``-p lr=0.1``, ``-g depth=2,4``, ``-r lr=loguniform(1e-4,1)``.

A notebook declares the types of its parameters, and text is read as that type. For scripts and commands, text that is JSON is
that value and any other text is a string.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lossi.errors import InvalidInput
from lossi.jsonable import from_text

_DISTRIBUTION = re.compile(r"(?s)\s*(uniform|loguniform|int|choice)\s*\((.*)\)\s*")


def pairs(texts: Iterable[str], option: str) -> dict[str, str]:
    """Return what ``NAME=VALUE``, given to ``option`` once for each name, says.

    Raises
    ------
    InvalidInput
        When a text has no name or no ``=``.
    """
    result = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise InvalidInput(f"{option} {text!r} is not NAME=VALUE", hint=f"write it as {option} name=value")
        result[name] = value
    return result


class Reader:
    """Reads text as values of the parameters of one source.

    Parameters
    ----------
    notebook
        Absolute path of the notebook; None for scripts and commands.
    """

    def __init__(self, notebook: Path | None) -> None:
        self._declared: Any = None
        if notebook is not None:
            from lossi import notebooks

            self._declared = notebooks.parameters(notebooks.read(notebook))

    def values(self, texts: Mapping[str, str]) -> dict[str, Any]:
        """Return the value of each parameter.

        Raises
        ------
        InvalidInput
            When a name is unknown or a text does not have its parameter's type.
        """
        if not texts:
            return {}
        if self._declared is None:
            return {name: from_text(text) for name, text in texts.items()}
        from lossi import notebooks

        checked: dict[str, Any] = notebooks.check_values(self._declared, texts, from_text=True)
        return checked

    def grid(self, texts: Mapping[str, str]) -> dict[str, list[Any]]:
        """Return the values in ``a,b,c`` or a JSON array, by parameter."""
        return {name: self._list(name, text) for name, text in texts.items()}

    def random(self, texts: Mapping[str, str]) -> dict[str, dict[str, Any]]:
        """Return the distribution that ``loguniform(1e-4,1)`` and the like describe, by parameter."""
        result: dict[str, dict[str, Any]] = {}
        for name, text in texts.items():
            match = _DISTRIBUTION.fullmatch(text)
            if match is None:
                raise InvalidInput(
                    f"{name}={text!r} is not a distribution",
                    hint="write uniform(a,b), loguniform(a,b), int(a,b) or choice(a,b,…)",
                )
            kind, inside = match.groups()
            if kind == "choice":
                result[name] = {"choice": self._list(name, inside)}
                continue
            try:
                low, high = (float(part) for part in inside.split(","))
            except ValueError:
                raise InvalidInput(f"{name}={text!r} needs two numbers", hint=f"write {kind}(low,high)") from None
            result[name] = {"distribution": kind, "low": low, "high": high}
        return result

    def _list(self, name: str, text: str) -> list[Any]:
        if text.lstrip().startswith("["):
            try:
                return list(json.loads(text))
            except ValueError as error:
                raise InvalidInput(
                    f"{name}={text!r} is not a JSON array", why=str(error), hint=f"write {name}=a,b,c or {name}=[1,2]"
                ) from None
        return [self.values({name: part.strip()})[name] for part in text.split(",")]

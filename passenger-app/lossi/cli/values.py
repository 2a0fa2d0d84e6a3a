"""Values of parameters as people type them: ``-p lr=0.1``, ``-g depth=2,4``, ``-r lr=loguniform(1e-4,1)``.

A notebook says which type a parameter has, and the text is read as that type; elsewhere a text that is JSON is that
value and any other text is itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lossi.errors import InvalidInput

_DISTRIBUTION = re.compile(r"(?s)\s*(uniform|loguniform|int|choice)\s*\((.*)\)\s*")


class Reader:
    """Reads texts as values of the parameters of one source.

    Parameters
    ----------
    notebook
        Absolute path of the notebook whose parameters are meant; None for scripts and commands.
    """

    def __init__(self, notebook: Path | None) -> None:
        self._declared: Any = None
        if notebook is not None:
            from lossi import notebooks

            self._declared = notebooks.parameters(notebooks.read(notebook))

    def values(self, texts: Mapping[str, str]) -> dict[str, Any]:
        """Return the values that ``texts`` stand for.

        Raises
        ------
        InvalidInput
            When a name is unknown or a text does not fit its parameter's type.
        """
        if not texts:
            return {}
        if self._declared is None:
            return {name: _guessed(text) for name, text in texts.items()}
        from lossi import notebooks

        checked: dict[str, Any] = notebooks.check_values(self._declared, texts, from_text=True)
        return checked

    def grid(self, texts: Mapping[str, str]) -> dict[str, list[Any]]:
        """Return the lists of values that ``a,b,c`` or a JSON array stand for."""
        return {name: self._list(name, text) for name, text in texts.items()}

    def random(self, texts: Mapping[str, str]) -> dict[str, dict[str, Any]]:
        """Return the distributions that ``loguniform(1e-4,1)`` and the like stand for."""
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
                values = json.loads(text)
            except ValueError as error:
                raise InvalidInput(
                    f"{name}={text!r} is not a JSON array", why=str(error), hint=f"write {name}=a,b,c or {name}=[1,2]"
                ) from None
            return list(values)
        parts: Sequence[str] = [part.strip() for part in text.split(",")]
        return [self.values({name: part})[name] for part in parts]


def _guessed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text

"""Notebooks as text."""

from __future__ import annotations

import json

PARAMETERS = "lr: float = 0.1  # learning rate\ndepth: int = 2\nname: str = 'x'\nflags: list = []"


def notebook(*cells: str, parameters: str | None = PARAMETERS, language: str = "python") -> str:
    """Return a notebook as text, its first cell tagged ``parameters`` unless None."""
    sources = [(parameters, ["parameters"])] if parameters is not None else []
    sources += [(source, []) for source in cells]
    kernel = {"name": "python3" if language == "python" else language, "language": language, "display_name": language}
    written = [
        {
            "cell_type": "code",
            "id": f"c{number}",
            "metadata": {"tags": tags},
            "source": source,
            "outputs": [],
            "execution_count": None,
        }
        for number, (source, tags) in enumerate(sources)
    ]
    return json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": kernel}, "cells": written})

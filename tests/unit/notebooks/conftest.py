"""Notebooks made in a few words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol

import pytest

KERNELS = {
    "python": {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "language_info": {"name": "python"},
    },
    "r": {"kernelspec": {"name": "ir", "display_name": "R", "language": "R"}, "language_info": {"name": "R"}},
    "julia": {
        "kernelspec": {"name": "julia-1.10", "display_name": "Julia", "language": "julia"},
        "language_info": {"name": "julia"},
    },
}


class Maker(Protocol):
    """Makes the bytes of a notebook of code cells; a cell is its source, or (source, tags)."""

    def __call__(self, *cells: Any, language: str | None = "python", **metadata: Any) -> bytes: ...


@pytest.fixture
def notebook() -> Maker:
    def make(*cells: Any, language: str | None = "python", **metadata: Any) -> bytes:
        entries = []
        for number, cell in enumerate(cells):
            source, tags = cell if isinstance(cell, tuple) else (cell, [])
            if source.startswith("md:"):
                entries.append({"cell_type": "markdown", "id": f"c{number}", "metadata": {}, "source": source[3:]})
                continue
            tags = [tags] if isinstance(tags, str) else tags
            entries.append(
                {
                    "cell_type": "code", "id": f"c{number}", "metadata": {"tags": tags}, "execution_count": None, "outputs": [],
                    "source": source.splitlines(keepends=True),
                }
            )  # fmt: skip
        data = {"nbformat": 4, "nbformat_minor": 5, "metadata": {**KERNELS.get(language or "", {}), **metadata}, "cells": entries}
        return json.dumps(data).encode("utf-8", "surrogatepass")

    return make


@pytest.fixture
def saved(tmp_path: Path, notebook: Maker) -> Any:
    """Like `notebook`, but saved as a file; returns its path."""

    def save(*cells: Any, name: str = "work.ipynb", **options: Any) -> Path:
        path = tmp_path / name
        path.write_bytes(notebook(*cells, **options))
        return path

    return save

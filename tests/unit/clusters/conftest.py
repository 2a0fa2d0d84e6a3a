"""Site files and OOD folders for the tests of this room."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

Write = Callable[..., Path]


@pytest.fixture(autouse=True)
def no_slurm_here(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH without Slurm, and no OOD: what this machine has must not matter."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("OOD_CLUSTERS", str(tmp_path / "clusters.d"))
    return folder


@pytest.fixture
def site(home: Path) -> Write:
    """Write the site file."""

    def write(text: str) -> Path:
        path = home / "no-site.yml"
        path.write_text(textwrap.dedent(text), "utf-8")
        return path

    return write


@pytest.fixture
def ood(tmp_path: Path) -> Write:
    """Write one file of OOD's folder."""

    def write(name: str, text: str) -> Path:
        folder = tmp_path / "clusters.d"
        folder.mkdir(exist_ok=True)
        path = folder / f"{name}.yml"
        path.write_text(textwrap.dedent(text), "utf-8")
        return path

    return write

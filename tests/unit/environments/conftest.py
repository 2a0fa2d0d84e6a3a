"""Catalogues and SIF files for the tests of environments."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

WriteCatalog = Callable[[str], Path]


@pytest.fixture
def user_catalog(home: Path) -> WriteCatalog:
    """Write the user's own catalogue."""

    def write(text: str) -> Path:
        path = home / "config" / "lossi" / "catalog.yml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), "utf-8")
        return path

    return write


@pytest.fixture
def site_catalog(home: Path, tmp_path: Path) -> WriteCatalog:
    """Write a site catalogue and a site file that lists it."""

    def write(text: str) -> Path:
        path = tmp_path / "site-catalog.yml"
        path.write_text(textwrap.dedent(text), "utf-8")
        (home / "no-site.yml").write_text(f"catalogs: [{path}]\n", "utf-8")
        return path

    return write


@pytest.fixture
def sif(tmp_path: Path) -> Callable[..., Path]:
    """Make a file with the header of a SIF image."""

    def make(name: str = "image.sif", architecture: bytes = b"02") -> Path:
        path = tmp_path / name
        path.write_bytes(
            b"#!/usr/bin/env run-singularity\n".ljust(32, b"\0") + b"SIF_MAGIC\0" + b"01\0" + architecture + b"\0" + bytes(100)
        )
        return path

    return make

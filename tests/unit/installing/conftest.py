"""A small bundle, as the package carries it, and a portal's host to install it on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from lossi import installing
from lossi.installing import Installed, Places, Plan

Write = Callable[[str, str], Path]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "source"


@pytest.fixture
def write(source: Path) -> Write:
    """Writes one file of the bundle."""

    def write_one(name: str, text: str) -> Path:
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    write_one("portal/manifest.yml", "name: Lossi\n")
    write_one("portal/bin/python", "#!/bin/sh\n").chmod(0o755)
    write_one("ood-apps/jupyter/manifest.yml", "role: batch_connect\n")
    write_one("ood-apps/jupyter/template/script.sh", "#!/bin/bash\necho one\n")
    write_one("ood-apps/dashboard-plugin/lossi/views/widgets/_lossi.html.erb", "<p>\n")
    write_one("batch-templates/job-composer/sweep/manifest.yml", "name: Sweep\n")
    write_one("batch-templates/project-manager/starter/.ondemand/manifest.yml", "name: Starter\n")
    return write_one


@pytest.fixture
def places(tmp_path: Path) -> Places:
    (tmp_path / "host" / "var" / "www" / "ood" / "apps" / "sys" / "dashboard").mkdir(parents=True)
    return Places.below(tmp_path / "host")


@pytest.fixture
def planned(source: Path, write: Write, places: Places) -> Callable[..., Plan]:
    """What would be installed of the bundle as it is now."""

    def plan(version: str = "1.0", **options: object) -> Plan:
        components = installing.components(source, places)
        return installing.plan(components, places, version=version, python=Path("/usr/bin/python3"), **options)  # type: ignore[arg-type]

    return plan


@pytest.fixture
def install(planned: Callable[..., Plan], places: Places) -> Callable[..., Installed]:
    """Installs the bundle as it is now."""
    return lambda version="1.0", **options: installing.apply(planned(version, **options), places)

"""The clusters with Slurm 24.11 and 26.05 that `make test-slurm-versions` starts, and ordinary users on them."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from version_cluster import Access, VersionCluster, as_user, home_of

CLIENTS = ("24.11-slurm_cli", "24.11-slurm_rest", "26.05-slurm_cli", "26.05-slurm_pyslurm")


@pytest.fixture(scope="session")
def clusters() -> dict[str, VersionCluster]:
    """Clusters by Slurm's release."""
    place = os.environ.get("LOSSI_SLURM_VERSIONS")
    if not place:
        pytest.skip("make test-slurm-versions starts the clusters with Slurm 24.11 and 26.05")
    return {entry["release"]: VersionCluster(**entry) for entry in json.loads(Path(place).read_text())}


@pytest.fixture(params=CLIENTS)
def access(request: pytest.FixtureRequest, clusters: dict[str, VersionCluster]) -> Access:
    """One client of one of the clusters."""
    release, scheduler = request.param.split("-")
    return clusters[release].access(scheduler)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A new folder of the first user's that both sides see."""
    place = home_of("lossi-tester1") / f"versions-{uuid.uuid4().hex}"
    as_user("lossi-tester1", place.mkdir)
    yield place
    shutil.rmtree(place)

"""Shared by the tests with Open OnDemand's parts: one Slurm cluster with ordinary users, and an installed Lossi."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import installation
import pytest
from real_cluster import CACHE, OwnCluster, throw_away, why_not_own


@pytest.fixture(scope="session")
def slurm() -> Iterator[OwnCluster]:
    """A throw-away cluster for all tests of this folder."""
    if reason := why_not_own():
        pytest.skip(reason)
    # Cancelled sessions get Slurm's default time to end.
    # Users of its own: the tests look for what a user's sessions leave behind, and those in tests/slurm may run meanwhile.
    with throw_away(users=("lossi-tester3", "lossi-tester4"), SLURMCI_KILLWAIT="30") as cluster:
        yield cluster


@pytest.fixture
def own_slurm(slurm: OwnCluster) -> OwnCluster:
    """The same cluster, by its name in tests/slurm."""
    return slurm


@pytest.fixture(scope="session")
def installed(slurm: OwnCluster) -> installation.Installation:
    """Lossi in an environment that Debian's Passenger can start: before 6.0.19 it needs a Python older than 3.12."""
    if subprocess.run([slurm.installation.python, "-W", "ignore", "-c", "import imp"], capture_output=True).returncode == 0:
        return slurm.installation
    python = "/usr/bin/python3"
    built = next((slurm.root / "wheel").glob("*.whl"))
    return installation.install(python, installation.foundation(python, CACHE), built, slurm.root / "lossi-portal")

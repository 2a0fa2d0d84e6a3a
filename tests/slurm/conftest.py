"""One Slurm cluster for all tests of this folder, started when the first of them asks for it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator, Iterator
from pathlib import Path

import host
import pytest
from existing_cluster import ExistingCluster
from real_cluster import OwnCluster, RealCluster, throw_away, why_not_own

ONLY_OWN = "only on a throw-away cluster"
WHOLESALE = (ONLY_OWN, why_not_own())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let all tests that lack the cluster they need make one line of the summary, which counts them."""
    report = yield
    if report.skipped and isinstance(report.longrepr, tuple) and report.longrepr[2].removeprefix("Skipped: ") in WHOLESALE:
        report.longrepr = (str(Path(__file__).parent), 0, report.longrepr[2])
    return report


def _existing() -> bool:
    return bool(os.environ.get("LOSSI_TEST_SLURM_CONF") or (os.environ.get("LOSSI_TEST_CLUSTER") and host.which("sbatch")))


def _own_or_skip() -> None:
    """Skip where there can be no cluster."""
    if reason := why_not_own():
        pytest.skip(reason)


@pytest.fixture
def host_path(host_path: str) -> str:
    """The PATH of a login node: basic programs, what a test names, and Slurm's commands."""
    return os.pathsep.join([host_path, host.path(host.SLURM)])


@pytest.fixture(scope="session")
def slurm() -> Iterator[RealCluster]:
    """A cluster, with accounting where it is our own."""
    if _existing():
        existing = ExistingCluster.from_environment()
        yield existing
        shutil.rmtree(existing.projects, ignore_errors=True)
        return
    _own_or_skip()
    with throw_away() as cluster:
        yield cluster


@pytest.fixture
def own_slurm(slurm: RealCluster) -> OwnCluster:
    """The cluster, in tests that break something, need two users or know what is configured."""
    if not isinstance(slurm, OwnCluster):
        pytest.skip(ONLY_OWN)
    return slurm


@pytest.fixture(scope="session")
def slurm_without_accounting() -> Iterator[OwnCluster]:
    """A second cluster, of a site without slurmdbd."""
    if _existing():
        pytest.skip(ONLY_OWN)
    _own_or_skip()
    # What a program says when it is stopped is all that tells of it there: it has Slurm's own default of time to say so.
    settings = {"SLURMCI_NGPU": "1", "SLURMCI_NCPU": "1", "SLURMCI_MINJOBAGE": "5", "SLURMCI_KILLWAIT": "30"}
    with throw_away(accounting=False, **settings) as cluster:
        yield cluster

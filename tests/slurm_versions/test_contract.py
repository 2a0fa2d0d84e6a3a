"""The contract of schedulers through PySlurm, on the one Slurm for which there is one: 26.05."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import test_slurm_scheduler
from scheduler_jobs import JobFactory
from version_cluster import VersionCluster, home_of

from lossi.jobs import schedulers
from lossi.jobs.schedulers.base import Handle, Scheduler


@dataclasses.dataclass(frozen=True)
class Commands:
    """What the contract asks of the cluster itself."""

    cluster: VersionCluster
    users: tuple[str, ...] = ("root",)

    def run_as(self, user: str, argv: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run([f"{self.cluster.bin}/{argv[0]}", *argv[1:]], capture_output=True, text=True, check=True)


@pytest.fixture
def slurm(clusters: dict[str, VersionCluster]) -> Commands:
    return Commands(clusters["26.05"])


@pytest.fixture
def scheduler(slurm: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scheduler:
    for name in ("XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("LOSSI_SITE", str(tmp_path / "no-site.yml"))
    model = slurm.cluster.model("slurm_pyslurm")
    return schedulers.of_cluster(
        model.model_copy(update={"poll_interval_s": 0.0, "exit_grace_s": 2.0, "default_partition": "small"})
    )


@pytest.fixture
def job_factory(scheduler: Scheduler) -> Iterator[JobFactory]:
    root = home_of("lossi-tester1") / f"contract-{uuid.uuid4().hex}"  # both systems see it
    factory = JobFactory(root, scheduler)
    yield factory
    for prepared in factory.prepared:
        submission = scheduler.find(prepared.job.id)
        if submission:
            scheduler.cancel(Handle(prepared.job.id, submission.scheduler_id, prepared.directory, prepared.job.tasks), None)
    shutil.rmtree(root, ignore_errors=True)


class TestPySlurm(test_slurm_scheduler.TestSlurmScheduler):
    """The contract, on the machines of another system."""

    interpreter = "/usr/bin/python3"

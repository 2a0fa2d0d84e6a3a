"""Slurm passes the contract of schedulers through each of its clients, on a real cluster."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from real_cluster import OwnCluster, RealCluster
from scheduler_contract import SchedulerContract
from scheduler_jobs import JobFactory, Prepared

from lossi.clusters import RestSettings
from lossi.contract.states import FAILED, SUCCEEDED
from lossi.jobs import schedulers
from lossi.jobs.schedulers.base import Handle, Scheduler

PYSLURM = os.environ.get("LOSSI_TEST_PYSLURM_PYTHON")
"""An interpreter with a PySlurm for this Slurm; Debian 12's has none, so `make test-slurm-versions` uses it."""
CLIENTS = ("slurm_cli", "slurm_rest", *(("slurm_pyslurm",) if PYSLURM else ()))
ME = pwd.getpwuid(os.geteuid()).pw_name


def client_settings(slurm: RealCluster, name: str) -> dict[str, Any]:
    """Return a cluster's settings for a client; skips if the client cannot be used here."""
    if name == "slurm_pyslurm":
        return {"pyslurm": {"python": PYSLURM}}
    if name == "slurm_rest":
        if isinstance(slurm, OwnCluster):
            return {"rest": slurm.rest_door(slurm.users[0])}
        url = os.environ.get("LOSSI_TEST_REST_URL")
        if not url:
            pytest.skip("LOSSI_TEST_REST_URL names no slurmrestd")
        return {"rest": RestSettings(url=url, token_command=("scontrol", "token", "lifespan=3600"))}
    return {}


@pytest.fixture(params=CLIENTS)
def scheduler(
    slurm: RealCluster, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Scheduler]:
    for name in ("XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("LOSSI_SITE", str(tmp_path / "no-site.yml"))
    for name in ("LOSSI_JOB_ID", "LOSSI_TASK", "SLURM_CONF"):
        monkeypatch.delenv(name, raising=False)
    yield schedulers.of_cluster(slurm.model(scheduler=request.param, **client_settings(slurm, request.param)))


@pytest.fixture
def job_factory(slurm: RealCluster, scheduler: Scheduler) -> Iterator[JobFactory]:
    factory = JobFactory(slurm.project(ME), scheduler)
    yield factory
    for prepared in factory.prepared:
        submission = scheduler.find(prepared.job.id)
        if submission:
            scheduler.cancel(Handle(prepared.job.id, submission.scheduler_id, prepared.directory, prepared.job.tasks), None)


def contains_processes(slurm: RealCluster) -> bool:
    """Return whether Slurm keeps hold of processes that left their parents: only cgroups do."""
    return "proctrack/cgroup" in slurm.run_as(slurm.users[0], ["scontrol", "show", "config"]).stdout


class TestSlurmScheduler(SchedulerContract):
    """The contract. Where a test differs from its original, it says what Slurm does otherwise."""

    shortest_time_limit_s = 60

    # sacct takes 128 from the codes above it; script.sh says them in exit.json.
    @pytest.mark.parametrize(("code", "state"), [(0, SUCCEEDED), (3, FAILED), (127, FAILED)])
    def test_exit_code_of_the_script_is_the_tasks(
        self, scheduler: Scheduler, job_factory: JobFactory, code: int, state: str
    ) -> None:
        prepared = job_factory(f"exit {code}")
        self.submit(scheduler, prepared)
        view = self.until_over(scheduler, prepared).tasks[0]
        assert (view.state, view.exit_code, view.signal) == (state, code, None)

    # The job's id is in its name; script.sh has it from its folder.
    def test_each_task_knows_its_job_and_number(self, scheduler: Scheduler, job_factory: JobFactory) -> None:
        prepared = job_factory('echo "${SLURM_JOB_NAME#lossi-} $LOSSI_TASK"', tasks=3)
        self.submit(scheduler, prepared)
        self.until_over(scheduler, prepared)
        assert [prepared.log(n).split() for n in range(3)] == [[prepared.job.id, str(n)] for n in range(3)]

    def test_unknown_job_is_said_to_be_unknown(self, scheduler: Scheduler, job_factory: JobFactory) -> None:
        prepared = job_factory("true")
        assert scheduler.poll([Handle(prepared.job.id, "4000000", prepared.directory, 1)])[prepared.job.id].known is False

    def test_whole_process_tree_ends_with_a_cancelled_task(
        self, slurm: RealCluster, scheduler: Scheduler, job_factory: JobFactory
    ) -> None:
        if not contains_processes(slurm):
            pytest.skip("a cluster without cgroups loses hold of processes that left their parents")
        super().test_whole_process_tree_ends_with_a_cancelled_task(scheduler, job_factory)

    def test_nothing_outlives_a_task_that_ended_by_itself(
        self, slurm: RealCluster, scheduler: Scheduler, job_factory: JobFactory
    ) -> None:
        if not contains_processes(slurm):
            pytest.skip("a cluster without cgroups loses hold of processes that left their parents")
        super().test_nothing_outlives_a_task_that_ended_by_itself(scheduler, job_factory)

    def time_is_up(self, prepared: Prepared) -> None:
        if isinstance(self.slurm, OwnCluster):
            self.slurm.scontrol("update", f"jobid={self.ids[prepared.job.id]}", "endtime=now")

    @pytest.mark.slow
    def test_time_limit_ends_a_task_and_is_named(self, slurm: RealCluster, scheduler: Scheduler, job_factory: JobFactory) -> None:
        self.slurm = slurm  # Slurm looks at limits twice a minute
        super().test_time_limit_ends_a_task_and_is_named(scheduler, job_factory)

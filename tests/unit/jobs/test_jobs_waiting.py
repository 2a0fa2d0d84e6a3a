"""The scheduler's reasons for waiting, and how long tasks waited."""

from __future__ import annotations

import datetime
import sqlite3
from typing import Any

import pytest
from hypothesis import given, strategies as st

from lossi.jobs.explain import pending_reasons, queue_waits
from lossi.projects import Project, index as store

ALL_WORDS = [
    "WaitingForScheduling",
    "None",
    "Priority",
    "Dependency",
    "Resources",
    "PartitionNodeLimit",
    "PartitionTimeLimit",
    "PartitionDown",
    "PartitionInactive",
    "JobHeldAdmin",
    "JobHeldUser",
    "BeginTime",
    "Licenses",
    "AssociationJobLimit",
    "AssociationResourceLimit",
    "AssociationTimeLimit",
    "Reservation",
    "ReqNodeNotAvail",
    "FrontEndDown",
    "SchedDefer",
    "NodeDown",
    "BadConstraints",
    "SystemFailure",
    "JobLaunchFailure",
    "NonZeroExitCode",
    "InvalidAccount",
    "InvalidQOS",
    "QOSUsageThreshold",
    "QOSJobLimit",
    "QOSResourceLimit",
    "QOSTimeLimit",
    "Cleaning",
    "QOSNotAllowed",
    "AccountNotAllowed",
    "DependencyNeverSatisfied",
    "QOSGrpCpuLimit",
    "QOSGrpCPUMinutesLimit",
    "QOSGrpCPURunMinutesLimit",
    "QOSGrpJobsLimit",
    "QOSGrpMemLimit",
    "QOSGrpNodeLimit",
    "QOSGrpSubmitJobsLimit",
    "QOSGrpWallLimit",
    "QOSMaxCpuPerJobLimit",
    "QOSMaxCpuMinutesPerJobLimit",
    "QOSMaxNodePerJobLimit",
    "QOSMaxWallDurationPerJobLimit",
    "QOSMaxCpuPerUserLimit",
    "QOSMaxJobsPerUserLimit",
    "QOSMaxNodePerUserLimit",
    "QOSMaxSubmitJobPerUserLimit",
    "QOSMinCpuNotSatisfied",
    "AssocGrpCpuLimit",
    "AssocGrpCPUMinutesLimit",
    "AssocGrpCPURunMinutesLimit",
    "AssocGrpJobsLimit",
    "AssocGrpMemLimit",
    "AssocGrpNodeLimit",
    "AssocGrpSubmitJobsLimit",
    "AssocGrpWallLimit",
    "AssocMaxJobsLimit",
    "AssocMaxCpuPerJobLimit",
    "AssocMaxCpuMinutesPerJobLimit",
    "AssocMaxNodePerJobLimit",
    "AssocMaxSubmitJobLimit",
    "AssocMaxWallDurationPerJobLimit",
    "JobHoldMaxRequeue",
    "JobArrayTaskLimit",
    "BurstBufferResources",
    "BurstBufferStageIn",
    "BurstBufferOperation",
    "PowerNotAvail",
    "PowerReserved",
    "AssocGrpGRES",
    "AssocGrpGRESMinutes",
    "AssocGrpGRESRunMinutes",
    "AssocMaxGRESPerJob",
    "AssocMaxGRESPerNode",
    "AssocGrpBilling",
    "AssocGrpBB",
    "AssocMaxBBPerNode",
    "QOSGrpMemoryMinutes",
    "QOSMaxMemoryPerUser",
    "QOSMaxGRESPerUser",
    "QOSMaxGRESPerNode",
    "QOSMaxGRESMinutesPerJob",
    "QOSMinGRES",
    "QOSMinCpuNotSatisfied",
    "QOSMinNode",
    "QOSGrpLicense",
    "QOSMaxBillingPerUser",
    "ReservationDeleted",
    "MaxBBPerAccount",
    "MaxCpuPerAccount",
    "MaxEnergyPerAccount",
    "MaxGRESPerAccount",
    "MaxNodePerAccount",
    "MaxLicensePerAccount",
    "MaxMemoryPerAccount",
    "MaxUnknownPerAccount",
    "MaxJobsPerAccount",
    "MaxSubmitJobsPerAccount",
    "PartitionConfig",
    "AccountingPolicy",
    "FedJobLock",
    "MaxMemPerLimit",
    "MaxBillingPerAccount",
    "QOSMinBilling",
]


@pytest.mark.parametrize("word", ALL_WORDS)
def test_every_reason_of_slurm_is_known(word: str) -> None:
    explanation = pending_reasons.explain_pending(word)
    assert "gives the reason" not in explanation.sentence
    assert explanation.sentence.endswith(".") and ".." not in explanation.sentence
    assert explanation.passes or explanation.suggestion, "who waits in vain is told what to do"


@pytest.mark.parametrize(
    ("reason", "words", "passes"),
    [
        ("Priority", "higher priority", True),
        ("(Resources)", "next in line", True),
        ("DependencyNeverSatisfied", "never start", False),
        ("ReqNodeNotAvail, UnavailableNodes:gpu[01-02]", "(gpu[01-02])", True),
        ("ReqNodeNotAvail(Unavailable:gpu01)", "not available", True),
        ("Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions", "not available", True),
        ("launch failed requeued held", "could not be started", False),
        ("job requeued in held state", "held", False),
        ("QOSMaxGRESPerUser", "no more at once (GPUs", True),
        ("QOSMaxWallDurationPerJobLimit", "more wall time in one job", False),
        ("AssocGrpGRESMinutes", "budget", False),
        ("AssocGrpCPURunMinutesLimit", "together", True),
        ("MaxGRESPerAccount", "all users of the account", True),
        ("QOSMinGRES", "less GPUs", False),
        ("", "not considered it", True),
        ("NewWordOfSlurm30", "'NewWordOfSlurm30'", True),
        ("waits for a free slot", "Waits for a free slot", True),
    ],
)
def test_reasons_are_explained(reason: str, words: str, passes: bool) -> None:
    explanation = pending_reasons.explain_pending(reason)
    assert words in explanation.sentence
    assert explanation.passes is passes


@given(st.text(max_size=80))
def test_any_reason_has_a_sentence(reason: str) -> None:
    assert pending_reasons.explain_pending(reason).sentence.strip(" .")


def _moment(days_ago: float) -> str:
    moment = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=days_ago)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


@pytest.fixture
def waited(project: Project) -> Any:
    """Put tasks with these waits in seconds into the index."""
    import os
    import pwd

    me = pwd.getpwuid(os.geteuid()).pw_name

    def put(
        job: str, values: list[float | None], *, partition: str | None = "gpu", user: str = me, days: float = 1, **more: Any
    ) -> None:
        with store.writing(project) as connection:
            connection.execute(
                "INSERT INTO jobs (id, name, kind, experiment, environment, user, cluster, tasks, state, created)"
                " VALUES (?, 'n', 'notebook', 'e', 'v', ?, 'c', ?, 'succeeded', ?)",
                (job, user, len(values), _moment(days)),
            )
            for number, value in enumerate(values):
                connection.execute(
                    "INSERT INTO tasks (job_id, task, state, started, wait_s, partition, restarts) VALUES (?, ?, 'succeeded', ?, ?, ?, ?)",
                    (job, number, _moment(days), value, partition, more.get("restarts", 0)),
                )

    return put


def test_waits_are_counted_by_partition(project: Project, waited: Any) -> None:
    waited("a", [10.0, 30.0, 120.0, 1000.0, 5000.0, 20000.0, 50000.0, 90000.0, None])
    waited("b", [5.0], partition="small")
    waits = queue_waits.queue_waits([project])
    gpu, small = waits.items
    assert (gpu.cluster, gpu.partition, gpu.count, gpu.median_s, gpu.longest_s) == ("c", "gpu", 8, 3000.0, 90000.0)
    assert [bucket.count for bucket in gpu.buckets] == [2, 1, 0, 1, 1, 1, 1, 1]
    assert gpu.first_quartile_s <= gpu.median_s <= gpu.third_quartile_s
    assert (small.count, small.median_s, small.first_quartile_s) == (1, 5.0, 5.0)


def test_only_own_recent_first_starts_in_a_partition_count(project: Project, waited: Any) -> None:
    waited("a", [1.0], user="somebody-else")
    waited("b", [1.0], days=91)
    waited("c", [1.0], partition=None)
    waited("d", [1.0], restarts=1)
    assert queue_waits.queue_waits([project]).items == []


def test_an_older_index_has_no_waits_and_a_broken_one_is_named(project: Project, waited: Any) -> None:
    project.make_home()
    connection = sqlite3.connect(project.index)
    connection.execute("CREATE TABLE tasks (job_id TEXT, task INTEGER)")
    connection.close()
    waits = queue_waits.queue_waits([project])
    assert (waits.items, waits.left_out) == ([], [])
    project.index.write_bytes(b"not a database at all, for sure" * 100)
    assert queue_waits.queue_waits([project]).left_out[0].startswith(f"{project.name}: ")

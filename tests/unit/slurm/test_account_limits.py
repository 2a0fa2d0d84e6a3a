"""Before a job is submitted, the limits of its account and quality of service are checked."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from limits_support import CPU, DAY, KNOWN, findings, mine, refused, with_limits

from lossi.clusters import AccountPolicy, Cluster
from lossi.jobs.schedulers.slurm.preflight.limits import Known
from lossi.jobs.schedulers.slurm.records import Configuration, Limits, Qos


def test_sites_policy_of_accounts() -> None:
    def known(**policy: Any) -> Known:
        return dataclasses.replace(KNOWN, cluster=Cluster(name="c", account=AccountPolicy(**policy)))

    assert refused(known(required=True)) == ["cluster.account.required"]
    assert refused(known(required=True), account="proj1") == []
    assert refused(known(pattern="project_[0-9]+"), account="proj1") == ["cluster.account.pattern"]


@pytest.mark.parametrize(
    ("held", "asked", "name"),
    [
        (Limits(max_wall_s=1800), {}, "MaxWall"),
        (Limits(max_tres_per_job={"cpu": 4}), {"cpus": 3, "nodes": 2}, "MaxTRESPerJob.cpu"),
        (Limits(max_tres_per_job={"mem": 1000}), {"memory_mb": 1001}, "MaxTRESPerJob.mem"),
        (Limits(max_tres_per_node={"cpu": 4}), {"cpus": 5}, "MaxTRESPerNode.cpu"),
        (Limits(max_tres_minutes_per_job={"cpu": 60}), {"cpus": 2}, "MaxTRESMinsPerJob.cpu"),
        (Limits(group_tres={"node": 1}), {"nodes": 2}, "GrpTRES.node"),
        (Limits(max_jobs=0), {}, "MaxJobs"),
        (Limits(max_submit=9), {"tasks": 10}, "MaxSubmitJobs"),
        (Limits(group_submit=9), {"tasks": 10}, "GrpSubmitJobs"),
    ],
)
def test_numbers_of_associations_and_qos(held: Limits, asked: dict[str, Any], name: str) -> None:
    assert refused(with_limits(association=held), **asked) == [f"association.{name}"]
    per_user = "PerUser" if name in ("MaxJobs", "MaxSubmitJobs") else ""
    assert refused(with_limits(qos=held), **asked) == [f"qos.{name}{per_user}"]
    unenforced = dataclasses.replace(KNOWN.configuration, enforced=("associations",))  # type: ignore[type-var]
    assert refused(dataclasses.replace(with_limits(association=held), configuration=unenforced), **asked) == []


def test_least_that_a_qos_wants() -> None:
    known = with_limits(None, Limits(min_tres_per_job={"gres/gpu": 2}), "DenyOnLimit")
    assert refused(known) == ["qos.MinTRESPerJob.gres/gpu"]
    assert refused(known, partition="gpu", gpus=2) == []


def test_limit_of_the_qos_goes_before_that_of_the_association() -> None:
    assert refused(with_limits(Limits(max_wall_s=60), Limits(max_wall_s=7200))) == []
    held = with_limits(Limits(max_tres_per_job={"cpu": 1, "node": 1}), Limits(max_tres_per_job={"cpu": 8}))
    assert refused(held, cpus=8) == []
    assert refused(held, nodes=2) == ["association.MaxTRESPerJob.node"]


def test_qos_of_the_partition_goes_before_that_of_the_job_unless_that_says_otherwise() -> None:
    def known(*flags: str) -> Known:
        return dataclasses.replace(
            KNOWN,
            partitions=(dataclasses.replace(CPU, qos="part"),),
            qos=(Qos("part", Limits(max_wall_s=7200)), Qos("normal", Limits(max_wall_s=60), flags)),
        )

    assert refused(known()) == []
    assert refused(known("OverPartQOS")) == ["qos.MaxWall"]
    assert refused(known("OVERRIDE_PARTITION_QOS")) == ["qos.MaxWall"]


def test_qos_may_lift_the_partitions_time_limit() -> None:
    assert refused(with_limits(None, None, "PartitionTimeLimit"), time_limit_min=2880) == []
    assert refused(with_limits(None, Limits(max_wall_s=DAY), "PartitionTimeLimit"), time_limit_min=2880) == ["qos.MaxWall"]


def test_what_slurm_would_take_and_never_start_is_said() -> None:
    held = Limits(max_wall_s=60)
    assert "never start" in findings(with_limits(None, held))[0].hint
    assert "never start" not in findings(with_limits(None, held, "DenyOnLimit"))[0].hint


def test_what_the_user_already_uses_makes_it_wait() -> None:
    held = Limits(max_tres={"gres/gpu": 8})
    busy = with_limits(None, held, queue=(mine(gpus=4, cpus=4), mine("PENDING", gpus=4, cpus=4), mine(gpus=1, qos="high")))
    assert findings(busy, partition="gpu", gpus=4) == []
    [finding] = findings(busy, partition="gpu", gpus=3, nodes=2)
    assert (finding.level, finding.limit, finding.allowed) == ("waits", "qos.MaxTRESPerUser.gres/gpu", 8)
    assert finding.message == "QOS 'normal' allows 8 GPUs at once: you use 4 and request 6"
    assert refused(busy, partition="gpu", gpus=8, nodes=2) == ["partition.node", "qos.MaxTRESPerUser.gres/gpu"]


def test_type_of_gpu_has_its_own_limit() -> None:
    held = with_limits(
        None, Limits(max_tres={"gres/gpu:a100": 4}), queue=(mine(gpus=3, gpu_type="a100"), mine(gpus=3, gpu_type="h200"))
    )
    assert [finding.level for finding in findings(held, partition="gpu", gpus=2, gpu_type="a100")] == ["waits"]
    assert findings(held, partition="gpu", gpus=2, gpu_type="h200") == []


def test_tasks_that_run_one_after_another_are_told() -> None:
    held = with_limits(Limits(max_jobs=3), queue=(mine(),))
    [finding] = findings(held, tasks=10)
    assert finding.level == "note" and "2 of the 10 tasks" in finding.message
    assert findings(held, tasks=10, throttle=2) == []
    [finding] = findings(with_limits(Limits(max_jobs=1), queue=(mine(),)))
    assert finding.level == "waits"


def test_array_that_waits_counts_by_its_tasks() -> None:
    held = with_limits(None, Limits(max_submit=20), queue=(mine("PENDING", tasks=(range(9), range(12, 15))), mine()))
    assert refused(held, tasks=7) == []
    [finding] = findings(held, tasks=8)
    assert (finding.limit, finding.asked, finding.allowed) == ("qos.MaxSubmitJobsPerUser", 8, 7)
    assert "you have 13 and request 8 more" in finding.message


def test_jobs_that_ended_and_those_of_another_account_do_not_count() -> None:
    queue = (mine("COMPLETED"), mine("PENDING", account="proj2"), mine("CANCELLED"))
    assert refused(with_limits(Limits(max_submit=1), queue=queue)) == []


def test_user_without_any_account_is_told() -> None:
    known = dataclasses.replace(KNOWN, associations=())
    assert refused(known) == ["association.account"]
    site_without = dataclasses.replace(known, configuration=Configuration("22.05.8"))
    assert refused(site_without, account="x") == []

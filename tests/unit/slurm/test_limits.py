"""Before a job is submitted, the limit that stops it, or keeps it waiting, is named."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from lossi.clusters import AccountPolicy, Cluster, GpuType, OfferedPartition
from lossi.errors import Forbidden, InvalidInput
from lossi.jobs.schedulers.slurm.preflight import limits
from lossi.jobs.schedulers.slurm.preflight.limits import Finding, Known
from lossi.jobs.schedulers.slurm.records import Association, Configuration, Limits, NodeGroup, PartitionRow, Qos, QueueRow
from lossi.jobs.schedulers.slurm.request import SlurmRequest

DAY = 86400
CPU, GPU, LONG = (
    PartitionRow("cpu", default=True, max_time_s=DAY, default_time_s=600, total_nodes=4),
    PartitionRow("gpu", max_time_s=DAY, max_nodes=2, total_nodes=3),
    PartitionRow("long", max_time_s=7 * DAY, max_cpus_per_node=8, max_memory_per_node_mb=32000, total_nodes=4),
)
NODES = (
    NodeGroup("cpu", 4, 16, 64000, features=("avx",), state="idle"),
    NodeGroup("long", 4, 16, 64000, features=("avx",), state="idle"),
    NodeGroup("gpu", 2, 32, 128000, {"a100": 4}, ("nvlink",), "mixed"),
    NodeGroup("gpu", 1, 16, 256000, {"h200": 8}, (), "idle"),
)
ACCOUNTS = (Association("c", "proj1", qos=("normal", "high"), is_default=True), Association("c", "proj2", "gpu", qos=("normal",)))
KNOWN = Known(
    Cluster(name="c"),
    Configuration("22.05.8", max_array_size=1001, max_job_count=10000, enforced=("associations", "limits", "qos")),
    (CPU, GPU, LONG),
    NODES,
    ACCOUNTS,
    (Qos("normal"), Qos("high"), Qos("closed")),
    (),
)


def request(**asked: Any) -> SlurmRequest:
    return SlurmRequest("lossi-x", Path("/p/script.sh"), Path("/p"), Path("/p/log"), **{"time_limit_min": 60, **asked})


def found(known: Known = KNOWN, tasks: int = 1, **asked: Any) -> list[Finding]:
    return limits.findings(request(**asked), tasks, known)


def refused(known: Known = KNOWN, tasks: int = 1, **asked: Any) -> list[str]:
    return [finding.limit for finding in found(known, tasks, **asked) if finding.level == "refused"]


def with_limits(
    association: Limits | None = None, qos: Limits | None = None, *flags: str, queue: tuple[QueueRow, ...] = ()
) -> Known:
    rows = (dataclasses.replace(ACCOUNTS[0], limits=association or Limits(), default_qos="normal"),)
    return dataclasses.replace(KNOWN, associations=rows, qos=(Qos("normal", qos or Limits(), flags), Qos("high")), queue=queue)


def mine(state: str = "RUNNING", **more: Any) -> QueueRow:
    return QueueRow(
        **{"job_id": 7, "name": "x", "state": state, "account": "proj1", "qos": "normal", "partition": "gpu", "nodes": 1, **more}
    )


def test_request_that_fits_meets_no_limit() -> None:
    assert found() == []
    assert found(partition="gpu", gpus=4, gpu_type="a100", cpus=32, nodes=2, memory_mb=128000, tasks=9999) == []


def test_sentence_says_what_is_allowed_and_where_it_would_do() -> None:
    [finding] = found(time_limit_min=2880)
    assert finding == Finding(
        "refused",
        "partition.max_time",
        "2-00:00:00",
        "1-00:00:00",
        "partition 'cpu' allows 1-00:00:00, you requested 2-00:00:00",
        "request 1-00:00:00 or less; or choose partition 'long'",
    )


@pytest.mark.parametrize(
    ("asked", "limit"),
    [
        ({"partition": "gpus"}, "partition.name"),
        ({"nodes": 5}, "partition.total_nodes"),
        ({"partition": "gpu", "gpus": 1, "nodes": 3}, "partition.max_nodes"),
        ({"cpus": 17}, "partition.cpus"),
        ({"partition": "long", "cpus": 9}, "partition.max_cpus_per_node"),
        ({"memory_mb": 64001}, "partition.memory"),
        ({"partition": "long", "memory_mb": 32001}, "partition.max_memory_per_node"),
        ({"gpus": 1}, "partition.gpus"),
        ({"partition": "gpu", "gpus": 9}, "partition.gpus"),
        ({"partition": "gpu", "gpus": 5, "gpu_type": "a100"}, "partition.gpus"),
        ({"partition": "gpu", "gpus": 1, "gpu_type": "v100"}, "partition.gpu_type"),
        ({"partition": "gpu", "gpus": 8, "cpus": 32}, "partition.node"),
        ({"constraint": "sse"}, "partition.features"),
        ({"constraint": "nvlink"}, "partition.features"),
        ({"constraint": "avx&nvlink"}, "partition.features"),
        ({"account": "proj3"}, "association.account"),
        ({"account": "proj2"}, "association.partition"),
        ({"qos": "nope"}, "qos.name"),
        ({"qos": "closed"}, "association.qos"),
        ({"array": range(1002)}, "cluster.MaxArraySize"),
        ({"tasks": 10000}, "cluster.MaxJobCount"),
        ({"dependency": "after"}, "dependency"),
        ({"dependency": "afterok:1,bogus:2"}, "dependency"),
    ],
)
def test_what_cannot_be_is_refused_by_its_limit(asked: dict[str, Any], limit: str) -> None:
    assert refused(**asked) == [limit]


def test_what_there_is_instead_is_named() -> None:
    assert "did you mean 'gpu'?" in found(partition="gpuu")[0].hint
    assert "a100, h200" in found(partition="gpu", gpus=1, gpu_type="v100")[0].hint
    assert "partition 'gpu'" in found(gpus=1)[0].hint
    assert "proj1" in found(account="proj9")[0].hint
    assert "high, normal" in found(qos="closed")[0].hint


def test_partition_that_is_closed_or_stopped() -> None:
    for state, level in (("DRAIN", "refused"), ("INACTIVE", "refused"), ("DOWN", "waits")):
        known = dataclasses.replace(KNOWN, partitions=(dataclasses.replace(CPU, state=state), GPU))
        assert [(one.level, one.limit) for one in found(known)] == [(level, "partition.state")]


def test_partition_that_lets_in_only_some() -> None:
    def known(**row: Any) -> Known:
        return dataclasses.replace(KNOWN, partitions=(dataclasses.replace(CPU, **row),), groups={"staff"})

    assert refused(known(allowed_accounts=("other",))) == ["partition.AllowAccounts"]
    assert refused(known(allowed_accounts=("PROJ1",))) == []
    assert refused(known(denied_accounts=("proj1",))) == ["partition.DenyAccounts"]
    assert refused(known(allowed_qos=("high",))) == ["partition.AllowQos"]
    assert refused(known(allowed_qos=("high",)), qos="high") == []
    assert refused(known(denied_qos=("normal",))) == ["partition.DenyQos"]
    assert refused(known(allowed_groups=("admins",))) == ["partition.AllowGroups"]
    assert refused(dataclasses.replace(known(allowed_groups=("admins",)), groups=None)) == []
    assert refused(known(min_nodes=2)) == ["partition.min_nodes"]
    assert refused(known(min_nodes=2), nodes=2) == []


def test_sites_own_limits_are_stricter() -> None:
    offer = OfferedPartition(
        name="gpu", gpu_types=(GpuType(name="a100"),), max_time="2:00:00", max_nodes=1, max_cpus=8, max_memory="100G", max_gpus=2
    )
    known = dataclasses.replace(KNOWN, cluster=Cluster(name="c", partitions=(offer,), max_tasks=100))
    assert refused(known, partition="gpu", gpus=2, time_limit_min=120, cpus=8) == []
    for asked, limit in (
        ({"time_limit_min": 121}, "cluster.max_time"),
        ({"nodes": 2}, "cluster.max_nodes"),
        ({"cpus": 9}, "cluster.max_cpus"),
        ({"memory_mb": 102401}, "cluster.max_memory"),
        ({"gpus": 3}, "cluster.max_gpus"),
        ({"gpus": 1, "gpu_type": "h200"}, "cluster.gpu_types"),
        ({"tasks": 101}, "cluster.max_tasks"),
    ):
        assert refused(known, **{"partition": "gpu", "gpus": 1, **asked}) == [limit]
    assert refused(known, partition="cpu") == ["cluster.partitions"]


def test_sites_policy_of_accounts() -> None:
    def known(**policy: Any) -> Known:
        return dataclasses.replace(KNOWN, cluster=Cluster(name="c", account=AccountPolicy(**policy)))

    assert refused(known(required=True)) == ["cluster.account.required"]
    assert refused(known(required=True), account="proj1") == []
    assert refused(known(pattern="project_[0-9]+"), account="proj1") == ["cluster.account.pattern"]


def test_default_partition_is_taken_or_missed() -> None:
    none = dataclasses.replace(KNOWN, partitions=(GPU, LONG))
    assert refused(none) == ["partition.name"]
    assert "gpu, long" in found(none)[0].hint


def test_of_several_partitions_one_is_enough() -> None:
    both = found(partition="cpu,long", time_limit_min=2880)
    assert [(one.level, one.limit) for one in both] == [("note", "partition.max_time")]
    assert refused(partition="cpu,gpu", time_limit_min=2880) == ["partition.max_time", "partition.max_time"]
    assert refused(partition="cpu,nowhere") == ["partition.name"]


def test_notes_on_what_may_not_be_meant() -> None:
    [finding] = found(partition="gpu")
    assert (finding.level, finding.limit) == ("note", "partition.gpus")
    [finding] = found(time_limit_min=None)
    assert (finding.level, finding.allowed) == ("note", "00:10:00")
    known = dataclasses.replace(KNOWN, partitions=(dataclasses.replace(CPU, max_memory_per_cpu_mb=4000),))
    [finding] = found(known, memory_mb=9000)
    assert finding.level == "note" and "3 cores" in finding.message
    [finding] = found(dependency="afterok:12")
    assert finding.level == "note" and "12" in finding.message
    [finding] = found(dataclasses.replace(KNOWN, queue=(mine(job_id=12),)), dependency="afterok:12")
    assert finding.level == "waits"


def test_nodes_out_of_service_make_it_wait() -> None:
    nodes = (dataclasses.replace(NODES[0], state="down*"), dataclasses.replace(NODES[0], nodes=1))
    known = dataclasses.replace(KNOWN, nodes=nodes)
    assert found(known) == []
    assert [(one.level, one.limit) for one in found(known, nodes=2)] == [("waits", "partition.nodes_in_service")]


def test_default_memory_counts() -> None:
    rows = (dataclasses.replace(CPU, default_memory_per_cpu_mb=8000),)
    assert refused(dataclasses.replace(KNOWN, partitions=rows), cpus=9) == ["partition.memory"]


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
    assert "never start" in found(with_limits(None, held))[0].hint
    assert "never start" not in found(with_limits(None, held, "DenyOnLimit"))[0].hint


def test_what_the_user_already_uses_makes_it_wait() -> None:
    held = Limits(max_tres={"gres/gpu": 8})
    busy = with_limits(None, held, queue=(mine(gpus=4, cpus=4), mine("PENDING", gpus=4, cpus=4), mine(gpus=1, qos="high")))
    assert found(busy, partition="gpu", gpus=4) == []
    [finding] = found(busy, partition="gpu", gpus=3, nodes=2)
    assert (finding.level, finding.limit, finding.allowed) == ("waits", "qos.MaxTRESPerUser.gres/gpu", 8)
    assert finding.message == "QOS 'normal' allows 8 GPUs at once: you use 4 and request 6"
    assert refused(busy, partition="gpu", gpus=8, nodes=2) == ["partition.node", "qos.MaxTRESPerUser.gres/gpu"]


def test_type_of_gpu_has_its_own_limit() -> None:
    held = with_limits(
        None, Limits(max_tres={"gres/gpu:a100": 4}), queue=(mine(gpus=3, gpu_type="a100"), mine(gpus=3, gpu_type="h200"))
    )
    assert [one.level for one in found(held, partition="gpu", gpus=2, gpu_type="a100")] == ["waits"]
    assert found(held, partition="gpu", gpus=2, gpu_type="h200") == []


def test_tasks_that_run_one_after_another_are_told() -> None:
    held = with_limits(Limits(max_jobs=3), queue=(mine(),))
    [finding] = found(held, tasks=10)
    assert finding.level == "note" and "2 of the 10 tasks" in finding.message
    assert found(held, tasks=10, throttle=2) == []
    [finding] = found(with_limits(Limits(max_jobs=1), queue=(mine(),)))
    assert finding.level == "waits"


def test_array_that_waits_counts_by_its_tasks() -> None:
    held = with_limits(None, Limits(max_submit=20), queue=(mine("PENDING", tasks=(range(9), range(12, 15))), mine()))
    assert refused(held, tasks=7) == []
    [finding] = found(held, tasks=8)
    assert (finding.limit, finding.asked, finding.allowed) == ("qos.MaxSubmitJobsPerUser", 8, 7)
    assert "you have 13 and request 8 more" in finding.message


def test_jobs_that_ended_and_those_of_another_account_do_not_count() -> None:
    queue = (mine("COMPLETED"), mine("PENDING", account="proj2"), mine("CANCELLED"))
    assert refused(with_limits(Limits(max_submit=1), queue=queue)) == []


def test_nothing_is_refused_for_what_is_not_known() -> None:
    known = Known(Cluster(name="c"))
    assert found(known, account="x", qos="y", partition="z", gpus=9, gpu_type="w", nodes=99, time_limit_min=10**6) == []
    assert found(known) == []


def test_user_without_any_account_is_told() -> None:
    known = dataclasses.replace(KNOWN, associations=())
    assert refused(known) == ["association.account"]
    site_without = dataclasses.replace(known, configuration=Configuration("22.05.8"))
    assert refused(site_without, account="x") == []


def test_first_limit_is_raised_with_all_of_them() -> None:
    with pytest.raises(InvalidInput, match="biggest node") as caught:
        limits.raise_refused(found(cpus=17, memory_mb=64001, account="proj3"))
    assert [one["limit"] for one in caught.value.details["limits"]] == [
        "partition.cpus",
        "partition.memory",
        "association.account",
    ]
    with pytest.raises(Forbidden, match="may not charge"):
        limits.raise_refused(found(account="proj3"))
    limits.raise_refused(found(time_limit_min=None))


def test_warnings_are_sentences_with_their_hint() -> None:
    assert limits.warnings(found(cpus=99)) == []
    assert limits.warnings(found(partition="gpu")) == [
        "all nodes of partition 'gpu' have GPUs, and you requested none (request GPUs, or choose a partition without)"
    ]


tres = st.dictionaries(st.sampled_from(["cpu", "mem", "node", "gres/gpu", "gres/gpu:a100"]), st.integers(0, 200), max_size=1)
some = st.none() | st.integers(0, 60)
anything = st.builds(
    Limits,
    max_wall_s=st.none() | st.integers(0, 10**6),
    max_jobs=some,
    max_submit=some,
    max_tres_per_job=tres,
    max_tres_per_node=tres,
    max_tres=tres,
    group_tres=tres,
    group_jobs=some,
    group_submit=some,
    max_tres_minutes_per_job=tres,
)
queues = st.lists(
    st.builds(
        mine,
        state=st.sampled_from(["RUNNING", "PENDING", "COMPLETED", "ODD"]),
        tasks=st.none() | st.just((range(3),)),
        cpus=some,
        gpus=some,
        gpu_type=st.sampled_from([None, "a100"]),
    ),
    max_size=3,
).map(tuple)
clusters = st.builds(
    with_limits, anything, anything, st.sampled_from(["DenyOnLimit", "OverPartQOS", "PartitionTimeLimit"]), queue=queues
)
requests = st.builds(
    request,
    partition=st.sampled_from(["cpu", "gpu", "gpu", "long", "cpu,gpu", "nowhere", None]),
    account=st.sampled_from([None, "proj1", "proj9"]),
    qos=st.sampled_from([None, "normal", "high", "closed"]),
    nodes=st.integers(1, 6),
    cpus=st.integers(1, 40),
    memory_mb=st.none() | st.integers(1, 300_000),
    gpus=st.integers(0, 9),
    gpu_type=st.sampled_from(["a100", "h200", "v100", None]),
    time_limit_min=st.none() | st.integers(1, 20_000),
    constraint=st.sampled_from([None, "avx", "nvlink|avx", "[a*2&b]"]),
)


def stops(found: list[Finding]) -> bool:
    return any(finding.level == "refused" for finding in found)


@settings(max_examples=300)
@given(requests, st.integers(1, 30), clusters, st.data())
def test_asking_for_less_never_adds_a_refusal(asked: SlurmRequest, tasks: int, known: Known, data: st.DataObject) -> None:
    less = dataclasses.replace(
        asked,
        nodes=data.draw(st.integers(1, asked.nodes)),
        cpus=data.draw(st.integers(1, asked.cpus)),
        gpus=data.draw(st.integers(0, asked.gpus)),
        memory_mb=None if asked.memory_mb is None else data.draw(st.integers(1, asked.memory_mb)),
        time_limit_min=None if asked.time_limit_min is None else data.draw(st.integers(1, asked.time_limit_min)),
    )
    assert stops(limits.findings(asked, tasks, known)) or not stops(
        limits.findings(less, data.draw(st.integers(1, tasks)), known)
    )


@given(requests, st.integers(1, 30), clusters)
def test_every_refusal_names_its_limit_and_a_way_out(asked: SlurmRequest, tasks: int, known: Known) -> None:
    everything = limits.findings(asked, tasks, known)
    for finding in everything:
        assert finding.limit and finding.message and finding.hint
    assert [one.level for one in everything] == sorted((one.level for one in everything), key=["refused", "waits", "note"].index)
    if stops(everything):
        with pytest.raises((InvalidInput, Forbidden)):
            limits.raise_refused(everything)

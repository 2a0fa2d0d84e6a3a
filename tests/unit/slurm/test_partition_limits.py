"""Before a job is submitted, the limits of its partition and nodes are checked."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from limits_support import CPU, GPU, KNOWN, LONG, NODES, findings, mine, refused

from lossi.clusters import Cluster, GpuType, OfferedPartition
from lossi.jobs.schedulers.slurm.preflight.limits import Finding, Known


def test_request_that_fits_meets_no_limit() -> None:
    assert findings() == []
    assert findings(partition="gpu", gpus=4, gpu_type="a100", cpus=32, nodes=2, memory_mb=128000, tasks=9999) == []


def test_sentence_says_what_is_allowed_and_where_it_would_do() -> None:
    [finding] = findings(time_limit_min=2880)
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
    assert "did you mean 'gpu'?" in findings(partition="gpuu")[0].hint
    assert "a100, h200" in findings(partition="gpu", gpus=1, gpu_type="v100")[0].hint
    assert "partition 'gpu'" in findings(gpus=1)[0].hint
    assert "proj1" in findings(account="proj9")[0].hint
    assert "high, normal" in findings(qos="closed")[0].hint


def test_partition_that_is_closed_or_stopped() -> None:
    for state, level in (("DRAIN", "refused"), ("INACTIVE", "refused"), ("DOWN", "waits")):
        known = dataclasses.replace(KNOWN, partitions=(dataclasses.replace(CPU, state=state), GPU))
        assert [(finding.level, finding.limit) for finding in findings(known)] == [(level, "partition.state")]


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
    for changes, limit in (
        ({"time_limit_min": 121}, "cluster.max_time"),
        ({"nodes": 2}, "cluster.max_nodes"),
        ({"cpus": 9}, "cluster.max_cpus"),
        ({"memory_mb": 102401}, "cluster.max_memory"),
        ({"gpus": 3}, "cluster.max_gpus"),
        ({"gpus": 1, "gpu_type": "h200"}, "cluster.gpu_types"),
        ({"tasks": 101}, "cluster.max_tasks"),
    ):
        assert refused(known, **{"partition": "gpu", "gpus": 1, **changes}) == [limit]
    assert refused(known, partition="cpu") == ["cluster.partitions"]


def test_default_partition_is_taken_or_missed() -> None:
    none = dataclasses.replace(KNOWN, partitions=(GPU, LONG))
    assert refused(none) == ["partition.name"]
    assert "gpu, long" in findings(none)[0].hint


def test_of_several_partitions_one_is_enough() -> None:
    both = findings(partition="cpu,long", time_limit_min=2880)
    assert [(finding.level, finding.limit) for finding in both] == [("note", "partition.max_time")]
    assert refused(partition="cpu,gpu", time_limit_min=2880) == ["partition.max_time", "partition.max_time"]
    assert refused(partition="cpu,nowhere") == ["partition.name"]


def test_notes_on_what_may_not_be_meant() -> None:
    [finding] = findings(partition="gpu")
    assert (finding.level, finding.limit) == ("note", "partition.gpus")
    [finding] = findings(time_limit_min=None)
    assert (finding.level, finding.allowed) == ("note", "00:10:00")
    known = dataclasses.replace(KNOWN, partitions=(dataclasses.replace(CPU, max_memory_per_cpu_mb=4000),))
    [finding] = findings(known, memory_mb=9000)
    assert finding.level == "note" and "3 cores" in finding.message
    [finding] = findings(dependency="afterok:12")
    assert finding.level == "note" and "12" in finding.message
    [finding] = findings(dataclasses.replace(KNOWN, queue=(mine(job_id=12),)), dependency="afterok:12")
    assert finding.level == "waits"


def test_nodes_out_of_service_make_it_wait() -> None:
    nodes = (dataclasses.replace(NODES[0], state="down*"), dataclasses.replace(NODES[0], nodes=1))
    known = dataclasses.replace(KNOWN, nodes=nodes)
    assert findings(known) == []
    assert [(finding.level, finding.limit) for finding in findings(known, nodes=2)] == [("waits", "partition.nodes_in_service")]


def test_default_memory_counts() -> None:
    rows = (dataclasses.replace(CPU, default_memory_per_cpu_mb=8000),)
    assert refused(dataclasses.replace(KNOWN, partitions=rows), cpus=9) == ["partition.memory"]

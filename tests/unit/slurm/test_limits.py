"""Before a job is submitted, the limit that stops it or keeps it waiting is named."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings, strategies as st
from limits_support import findings, mine, request, with_limits

from lossi.clusters import Cluster
from lossi.errors import Forbidden, InvalidInput
from lossi.jobs.schedulers.slurm.preflight import limits
from lossi.jobs.schedulers.slurm.preflight.limits import Finding, Known
from lossi.jobs.schedulers.slurm.records import Limits
from lossi.jobs.schedulers.slurm.request import SlurmRequest


def test_nothing_is_refused_for_what_is_not_known() -> None:
    known = Known(Cluster(name="c"))
    assert findings(known, account="x", qos="y", partition="z", gpus=9, gpu_type="w", nodes=99, time_limit_min=10**6) == []
    assert findings(known) == []


def test_first_limit_is_raised_with_all_of_them() -> None:
    with pytest.raises(InvalidInput, match="biggest node") as caught:
        limits.raise_refused(findings(cpus=17, memory_mb=64001, account="proj3"))
    assert [finding["limit"] for finding in caught.value.details["limits"]] == [
        "partition.cpus",
        "partition.memory",
        "association.account",
    ]
    with pytest.raises(Forbidden, match="may not charge"):
        limits.raise_refused(findings(account="proj3"))
    limits.raise_refused(findings(time_limit_min=None))


def test_warnings_are_sentences_with_their_hint() -> None:
    assert limits.warnings(findings(cpus=99)) == []
    assert limits.warnings(findings(partition="gpu")) == [
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
    assert [finding.level for finding in everything] == sorted(
        (finding.level for finding in everything), key=["refused", "waits", "note"].index
    )
    if stops(everything):
        with pytest.raises((InvalidInput, Forbidden)):
            limits.raise_refused(everything)

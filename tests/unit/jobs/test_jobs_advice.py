"""What a job requested and used."""

from __future__ import annotations

import dataclasses
from typing import Any

from hypothesis import given, strategies as st

from lossi import units
from lossi.contract.records import PreparedJob, Resources
from lossi.contract.states import STATES
from lossi.jobs.explain.advice import Advice, advise
from lossi.jobs.models import Task
from lossi.jobs.submit.spec import validated

ASKED = Resources(cpus=16, memory_mb=65536, time_limit_s=86400, gpus=1)
JOB = PreparedJob("j", "n", "notebook", "/p", "ann", "", resources=ASKED)


def done(state: str = "succeeded", **more: Any) -> Task:
    return Task(job_id="j", task=0, state=state, **{"elapsed_s": 3600.0, **more})


def of(tasks: list[Task], resource: str, job: PreparedJob = JOB) -> Advice:
    return next(item for item in advise(job, tasks).items if item.resource == resource)


def test_unused_memory_is_not_requested_again() -> None:
    used = [100.0] * 39 + [5.1 * 1024]
    advice = of([done(max_rss_mb=value) for value in used], "memory")
    assert advice.sentence == "It requested 64 GiB of memory, the peak use of 40 tasks was 5.1 GiB: request 8G."
    assert (advice.verdict, advice.suggested, advice.changes) == ("too_much", 8192, {"resources": {"memory": "8G"}})
    assert (advice.median, advice.ninth_decile, advice.measured) == (100.0, 100.0, 40)


def test_a_fitting_request_is_not_changed() -> None:
    advice = advise(JOB, [done(max_rss_mb=50000.0, elapsed_s=70000.0, cpu_s=70000.0 * 12, gpu_utilisation=80.0)])
    assert {item.verdict for item in advice.items} == {"fits"} and advice.changes == {}
    assert advice.sentence == "The request fits the use."


def test_a_tight_limit_is_raised() -> None:
    advice = of([done(max_rss_mb=64000.0)], "memory")
    assert advice.verdict == "tight" and advice.suggested is not None and advice.suggested > ASKED.memory_mb  # type: ignore[operator]


def test_exceeded_limits_are_raised() -> None:
    advice = of([done(max_rss_mb=100.0), done("out_of_memory", max_rss_mb=65000.0)], "memory")
    assert advice.changes == {"resources": {"memory": "128G"}} and "1 task ran out of memory" in advice.sentence
    late = of([done(elapsed_s=100.0), done("timed_out", elapsed_s=86400.0)], "time")
    assert late.changes == {"resources": {"time": "2-00:00:00"}}


def test_the_time_of_the_last_attempt_counts() -> None:
    advice = of([done(elapsed_s=90000.0, attempt=2, time_limit_s=86400.0, time_efficiency=0.05)], "time")
    assert (advice.greatest, advice.changes) == (4320.0, {"resources": {"time": "01:45:00"}})


def test_idle_cores_are_not_requested_again() -> None:
    advice = of([done(cpu_s=3600.0 * 2)], "cpus")
    assert advice.changes == {"resources": {"cpus": 3}} and "12 % were busy" in advice.sentence
    assert not any(item.resource == "cpus" for item in advise(JOB, [done(cpu_s=0.1, elapsed_s=2.0)]).items), (
        "start-up says nothing"
    )


def test_idle_gpus_are_reported() -> None:
    advice = of([done(gpu_utilisation=4.0, gpu_memory_mb=900.0)], "gpus")
    assert advice.verdict == "too_much" and advice.changes == {} and "check whether" in advice.sentence
    never = of([done(gpu_utilisation=0.0, gpu_memory_mb=0.0)], "gpus")
    assert never.changes == {"resources": {"gpus": 0, "gpu_type": None}}
    assert of([done(gpu_utilisation=70.0)], "gpus").verdict == "fits"


def test_there_is_no_advice_without_a_success() -> None:
    advice = advise(JOB, [done("failed", max_rss_mb=1.0), Task(job_id="j", task=1, state="running")])
    assert (advice.items, advice.ended, advice.succeeded) == ([], 1, 0)


def test_there_is_no_advice_without_measurements() -> None:
    advice = advise(dataclasses.replace(JOB, resources=Resources()), [done(elapsed_s=None)])
    assert advice.items == [] and "Nothing was measured" in advice.sentence


NUMBERS = st.none() | st.floats() | st.floats(0, 1e9)


@given(
    tasks=st.lists(
        st.builds(
            done,
            st.sampled_from(STATES),
            elapsed_s=NUMBERS,
            cpu_s=NUMBERS,
            max_rss_mb=NUMBERS,
            gpu_utilisation=NUMBERS,
            gpu_memory_mb=NUMBERS,
            time_efficiency=NUMBERS,
            nodes=st.none() | st.integers(-1, 4),
        ),
        max_size=6,
    ),
    resources=st.builds(
        Resources,
        cpus=st.integers(1, 99),
        memory_mb=st.none() | st.integers(1, 2**40),
        time_limit_s=st.none() | st.integers(1, 10**7),
        gpus=st.integers(0, 4),
        nodes=st.integers(0, 4),
    ),
)
def test_advice_is_a_valid_request_and_never_below_the_peak(tasks: list[Task], resources: Resources) -> None:
    advice = advise(dataclasses.replace(JOB, resources=resources), tasks)
    advice.model_dump_json()
    assert advice.sentence
    if advice.changes:
        validated({"command": ["true"], **advice.changes})
    for item in advice.items:
        for name, value in item.changes.get("resources", {}).items():
            amount = units.parse_memory(value) if name == "memory" else units.parse_time(value) if name == "time" else value
            most = {"memory": 2**40, "time": 366 * 86400}.get(name, float("inf"))
            if item.resource != "gpus":
                assert amount >= min(item.greatest, most)

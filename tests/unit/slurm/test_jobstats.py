"""Jobstats' summaries in AdminComment."""

from __future__ import annotations

import base64
import gzip
import json

import pytest
from hypothesis import given, strategies as st

from lossi.jobs.schedulers.slurm.jobstats import MOST_BYTES, gpu_use


def comment(data: object) -> str:
    return "JS1:" + base64.b64encode(gzip.compress(json.dumps(data).encode(), mtime=0)).decode()


def test_use_and_memory_are_those_of_all_gpus() -> None:
    node = {"gpu_utilization": {"0": 90, "1": 70}, "gpu_used_memory": {"0": 2 * 2**30, "1": 2**30}, "cpus": 8}
    other = {"gpu_utilization": {"0": 20}, "gpu_used_memory": {"0": 2**30}}
    use = gpu_use(comment({"nodes": {"n1": node, "n2": other}, "total_time": 60, "gpus": 3}))
    assert use is not None
    assert (use.utilisation, use.memory_mb) == (60, 4096)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a note",
        "JS1:Short",
        "JS1:None",
        "JS1:####",
        "JS1:" + base64.b64encode(b"no gzip").decode(),
        comment([1]),
        comment({"nodes": 3}),
    ],
)
def test_what_is_no_summary_says_nothing(text: str) -> None:
    assert gpu_use(text) is None


def test_a_job_without_gpus_has_no_use_of_them() -> None:
    assert gpu_use(comment({"nodes": {"n1": {"cpus": 4, "used_memory": 5}}})) is None


def test_a_summary_that_would_fill_memory_is_cut_off() -> None:
    assert gpu_use(comment({"nodes": {}, "padding": "x" * (2 * MOST_BYTES)})) is None


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=5), lambda inner: st.dictionaries(st.text(max_size=9), inner, max_size=3)
    )
)
def test_nothing_that_somebody_wrote_there_breaks_anything(data: object) -> None:
    gpu_use(comment(data))
    gpu_use(comment({"nodes": data}))

"""What a cluster offers, and its export for nodes that have no ``clusters.d``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from lossi import clusters
from lossi.clusters import AccountPolicy, Cluster, GpuType, OfferedPartition
from lossi.errors import InvalidInput

MI250 = GpuType(name="mi250", accelerator="rocm", units_per_gpu=2)
A100 = GpuType(name="a100")
SLICE = GpuType(name="a100_1g.5gb")
MIXED = Cluster(
    name="mixed",
    default_partition="cpu",
    partitions=(
        OfferedPartition(name="cpu"),
        OfferedPartition(name="amd", gpu_types=(MI250,)),
        OfferedPartition(name="small", gpu_types=(A100, SLICE)),
        OfferedPartition(name="arm", architecture="aarch64", gpu_types=(A100,)),
        OfferedPartition(name="both", gpu_types=(A100, MI250)),
    ),
)
OPEN = Cluster(name="open")


def test_gpu_types_are_listed_with_their_partitions() -> None:
    assert clusters.gpu_types(MIXED) == {
        "mi250": ("amd", "both"),
        "a100": ("small", "arm", "both"),
        "a100_1g.5gb": ("small",),
    }
    assert clusters.gpu_types(OPEN) == {}


def test_the_variant_of_an_environment_follows_from_the_partition() -> None:
    assert clusters.accelerator_of(MIXED, "amd") == "rocm"
    assert clusters.accelerator_of(MIXED, "small") == "cuda"
    assert clusters.accelerator_of(MIXED, "both") is None
    assert clusters.accelerator_of(MIXED, "both", "mi250") == "rocm"
    assert clusters.accelerator_of(MIXED, None) is None
    assert clusters.architecture_of(MIXED, "arm") == "aarch64"
    assert clusters.architecture_of(MIXED, "cpu") is None
    assert clusters.accelerator_of(OPEN, "any", "a100") is None


def test_a_partition_or_gpu_that_is_not_offered_is_refused_with_those_that_are() -> None:
    with pytest.raises(InvalidInput, match="did you mean 'small'"):
        clusters.offered(MIXED, "smal")
    with pytest.raises(InvalidInput, match="mi250 is in amd and both"):
        clusters.gpu_type(MIXED, "small", "mi250")
    with pytest.raises(InvalidInput, match="has no GPUs"):
        clusters.gpu_type(MIXED, "cpu", "h100")
    assert clusters.offered(OPEN, "anything") is None


def test_without_a_name_the_only_gpu_type_of_a_partition_is_used() -> None:
    assert clusters.gpu_type(MIXED, "amd", None) == MI250
    assert clusters.gpu_type(MIXED, "small", None) is None


def test_gpu_hours_count_cards_even_if_the_scheduler_counts_dies() -> None:
    assert clusters.gpu_hours(MIXED, "amd", None, gpus=8, seconds=3600) == 4
    assert clusters.gpu_hours(MIXED, "both", "mi250", gpus=1, seconds=1800) == 0.25
    assert clusters.gpu_hours(MIXED, "gone", "mi250", gpus=2, seconds=3600) == 1
    assert clusters.gpu_hours(MIXED, "small", "a100", gpus=2, seconds=3600) == 2
    assert clusters.gpu_hours(OPEN, "any", None, gpus=3, seconds=3600) == 3


def test_an_offer_does_not_tell_how_to_reach_the_cluster() -> None:
    cluster = Cluster.model_validate(
        {
            "name": "r",
            "scheduler": "slurm_rest",
            "rest": {"url": "http://inside:6820", "token_command": ["get-token", "--secret"]},
            "setup": ["export SECRET=1"],
            "bin": "/opt/secret",
            "submit_host": "inside",
            "options": ["--comment=secret"],
        }
    )
    shown = clusters.offer(cluster, default=True).model_dump_json()
    assert "secret" not in shown.lower() and "inside" not in shown
    assert '"title":"r"' in shown and '"default":true' in shown


names = st.from_regex(r"\A[A-Za-z_][A-Za-z0-9_-]{0,8}\Z")
lines = st.text(st.characters(min_codepoint=32, exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30)


@settings(max_examples=60)
@given(
    found=st.dictionaries(
        names,
        st.builds(
            dict,
            title=lines,
            setup=st.lists(lines, max_size=3),
            labels=st.dictionaries(names, lines, max_size=2),
            account=st.builds(AccountPolicy, required=st.booleans(), default=names),
            partitions=st.lists(names, unique=True, max_size=3).map(
                lambda found: [OfferedPartition(name=name, max_time="2-00:00:00", gpu_types=(MI250,)) for name in found]
            ),
        ),
        max_size=3,
    )
)
def test_an_exported_cluster_is_read_back_unchanged(found: dict[str, dict[str, object]]) -> None:
    from lossi.files import document

    given_clusters = [Cluster.model_validate({**members, "name": name}) for name, members in found.items()]
    text = clusters.export(given_clusters, default="x")
    data = document.parse(text.encode()).data
    assert data["default_cluster"] == "x"
    assert [Cluster.model_validate({**members, "name": name}) for name, members in data["clusters"].items()] == given_clusters


def test_an_exported_site_file_needs_no_ood(
    ood: Callable[..., Path], site: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    ood("owens", "v2: {metadata: {title: Owens}, job: {adapter: slurm, bin: /opt/slurm/bin, bin_overrides: {sbatch: /x/sbatch}}}")
    site("clusters: {owens: {partitions: [{name: gpu, gpu_types: [{name: a100}], max_time: '36:00:00'}]}}")
    before = clusters.load()
    site(clusters.export(before.clusters))
    monkeypatch.setenv("OOD_CLUSTERS", "/nowhere")
    assert clusters.load().clusters == before.clusters

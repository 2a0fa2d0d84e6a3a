"""The example profiles: they load, and what sbatch would be asked for with them is what the golden files say."""

from __future__ import annotations

from pathlib import Path

import pytest
from syrupy.assertion import SnapshotAssertion
from syrupy.extensions.single_file import SingleFileSnapshotExtension, WriteMode

from lossi import clusters
from lossi.contract.records import PreparedJob, Resources
from lossi.jobs.schedulers.slurm import directives, request
from lossi.jobs.schedulers.slurm.array_chunks import ArrayChunk

SITES = Path(__file__).parents[3] / "docs" / "sites"
PROFILES = sorted(path.stem for path in SITES.glob("*.yml"))

GPU_PARTITION = {"lumi": "small-g", "mahti": "gpusmall", "roihu": "gpumedium"}
NODES_PARTITION = {"lumi": "standard-g", "mahti": "gpumedium", "roihu": "gpumedium"}


class Options(SingleFileSnapshotExtension):
    """One option a line."""

    _write_mode = WriteMode.TEXT
    file_extension = "txt"


@pytest.fixture
def profile(monkeypatch: pytest.MonkeyPatch, name: str) -> clusters.Cluster:
    monkeypatch.setenv("LOSSI_SITE", str(SITES / f"{name}.yml"))
    loaded = clusters.load()
    assert loaded.problems == ()
    return loaded.get(name)


def options(cluster: clusters.Cluster, tasks: int, resources: Resources) -> str:
    job = PreparedJob(
        id="01aryz6s41tsv4rrffq69g5fav",
        name="train",
        kind="notebook",
        project="/scratch/project_2000123/mnist",
        user="user",
        created="2026-01-01T00:00:00Z",
        tasks=tasks,
        resources=resources,
    )
    directory = Path("/scratch/project_2000123/mnist/.lossi/jobs/01aryz6s41tsv4rrffq69g5fav")
    submission = request.build(job, directory, cluster, ArrayChunk(0, tasks), 10 if tasks > 10 else None)
    return "\n".join(directives.option_list(submission)) + "\n"


@pytest.mark.parametrize("name", PROFILES)
def test_profile_says_that_it_was_not_run(name: str) -> None:
    assert "rendered, not run" in (SITES / f"{name}.yml").read_text("utf-8")


@pytest.mark.parametrize("name", PROFILES)
def test_options_of_a_sweep_on_cpus(profile: clusters.Cluster, name: str, snapshot: SnapshotAssertion) -> None:
    resources = Resources(cpus=4, memory_mb=8192, time_limit_s=3600, account="project_2000123")
    assert options(profile, 100, resources) == snapshot(extension_class=Options)


@pytest.mark.parametrize("name", PROFILES)
def test_options_of_a_job_with_one_gpu(profile: clusters.Cluster, name: str, snapshot: SnapshotAssertion) -> None:
    partition = GPU_PARTITION[name]
    gpu = profile.partitions[[offered.name for offered in profile.partitions].index(partition)].gpu_types[0]
    resources = Resources(
        cpus=7,
        memory_mb=60 * 1024,
        gpus=1,
        gpu_type=gpu.name,
        time_limit_s=2 * 3600,
        partition=partition,
        account="project_2000123",
    )
    assert options(profile, 1, resources) == snapshot(extension_class=Options)


@pytest.mark.parametrize("name", PROFILES)
def test_options_of_a_job_on_two_whole_gpu_nodes(profile: clusters.Cluster, name: str, snapshot: SnapshotAssertion) -> None:
    place = clusters.offered(profile, NODES_PARTITION[name])
    assert place is not None and place.max_gpus and place.max_cpus
    resources = Resources(
        nodes=2,
        cpus=place.max_cpus,
        gpus=place.max_gpus,
        gpu_type=place.gpu_types[0].name,
        time_limit_s=24 * 3600,
        partition=place.name,
        account="project_2000123",
    )
    assert options(profile, 1, resources) == snapshot(extension_class=Options)


@pytest.mark.parametrize("name", ["mahti"])
def test_options_of_a_job_with_a_slice_of_a_gpu(profile: clusters.Cluster, name: str, snapshot: SnapshotAssertion) -> None:
    resources = Resources(
        cpus=4, gpus=1, gpu_type="a100_1g.5gb", time_limit_s=3600, partition="gpusmall", account="project_2000123"
    )
    assert options(profile, 1, resources) == snapshot(extension_class=Options)


@pytest.mark.parametrize(
    ("name", "partition", "architecture", "accelerator"),
    [
        ("lumi", "small-g", "x86_64", "rocm"),
        ("roihu", "gpumedium", "aarch64", "cuda"),
        ("roihu", "small", "x86_64", None),
        ("mahti", "gpusmall", "x86_64", "cuda"),
    ],
)
def test_the_image_that_a_partition_needs(
    profile: clusters.Cluster, name: str, partition: str, architecture: str, accelerator: str | None
) -> None:
    assert clusters.architecture_of(profile, partition) == architecture
    assert clusters.accelerator_of(profile, partition) == accelerator


@pytest.mark.parametrize("name", ["lumi"])
def test_lumi_counts_two_dies_as_one_card(profile: clusters.Cluster, name: str) -> None:
    # The example of LUMI's billing page: 2 dies for 24 hours are 24 GPU-hours.
    assert clusters.gpu_hours(profile, "small-g", "mi250", gpus=2, seconds=24 * 3600) == 24

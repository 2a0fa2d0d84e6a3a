"""A site for the Jupyter app: two clusters of two architectures and both kinds of GPU, environments that fit some of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

CLUSTERS: dict[str, Any] = {
    "mahti": {
        "title": "Mahti",
        "account": {"required": True, "pattern": "project_[0-9]+"},
        "partitions": [
            {"name": "small", "architecture": "x86_64", "max_time": "3-00:00:00", "max_cpus": 40, "max_memory": "180G"},
            {
                "name": "gpu_small",
                "architecture": "x86_64",
                "max_time": "0:30:00",
                "max_cpus": 64,
                "max_memory": "480G",
                "max_gpus": 4,
                "gpu_types": [{"name": "a100", "title": "NVIDIA A100"}],
            },
        ],
        "mounts": [{"source": "/appl"}],
        "setup": ["module load apptainer"],
    },
    "Lumi-G": {
        "gpu_option": "gpus-per-node",
        "partitions": [
            {
                "name": "dev-g",
                "architecture": "x86_64",
                "interactive": True,
                "max_time": "2:00:00",
                "max_cpus": 56,
                "max_gpus": 8,
                "gpu_types": [{"name": "mi250", "accelerator": "rocm"}],
            },
            {
                "name": "1grace",
                "architecture": "aarch64",
                "max_cpus": 72,
                "max_gpus": 4,
                "gpu_types": [{"name": "gh200"}],
            },
        ],
    },
}
VARIANTS: dict[str, dict[str, list[str]]] = {
    "torch": {"x86_64": ["none", "cuda"], "aarch64": ["cuda"]},
    "torch-rocm": {"x86_64": ["rocm"]},
    "sklearn.cpu": {"x86_64": ["none"], "aarch64": ["none"]},
    "nothing": {"x86_64": ["cuda"]},
}
"""Architecture → accelerators of the variants; the image of `nothing` is not built."""


def write(home: Path, **more: Any) -> None:
    """Write the site's files into the home of a test."""
    environments = {}
    for name, kinds in VARIANTS.items():
        variants: dict[str, Any] = {}
        for architecture, accelerators in kinds.items():
            for accelerator in accelerators:
                image = home / f"{name}-{architecture}-{accelerator}"
                if name != "nothing":
                    (image / "usr").mkdir(parents=True, exist_ok=True)
                variants.setdefault(architecture, {})[accelerator] = {"sif": str(image)}
        environments[name] = {"title": f"Title of {name}: <b>ä & 'x'</b>", "variants": variants}
    site = {"environments": environments, "clusters": CLUSTERS, "portal_url": "https://portal.example/", **more}
    (home / "no-site.yml").write_text(yaml.safe_dump(site))
    (home / "no-site.yml").chmod(0o644)


def combinations() -> Iterator[dict[str, str]]:
    """Yield every choice of environment, cluster, partition and GPU that a form could submit, possible or not."""
    partitions = [(cluster, partition["name"]) for cluster, entry in CLUSTERS.items() for partition in entry["partitions"]]
    gpus = ["none", "a100", "mi250", "gh200"]
    for environment, (cluster, partition), gpu in itertools.product(VARIANTS, partitions, gpus):
        yield {
            "cluster": cluster,
            "environment": environment,
            "queue": f"{cluster}--{partition}",
            "gpu_type": gpu,
            "gpus": "0" if gpu == "none" else "2",
            "cores": "4",
            "memory_gb": "8",
            "hours": "1",
            "account": "project_123",
            "folder": "",
            "interface": "lab",
            "portal_origin": "https://portal.example",
        }


def possible(values: dict[str, str]) -> bool:
    """Return whether a choice can run on this site."""
    _, _, name = values["queue"].partition("--")
    partition = next(entry for entry in CLUSTERS[values["cluster"]]["partitions"] if entry["name"] == name)
    kinds = {"none": "none", **{gpu["name"]: gpu.get("accelerator", "cuda") for gpu in partition.get("gpu_types", [])}}
    if values["gpu_type"] not in kinds or values["environment"] == "nothing":
        return False
    return kinds[values["gpu_type"]] in VARIANTS[values["environment"]].get(partition["architecture"], [])

"""Clusters: which there are, how their scheduler is reached, what the site offers on them.

Reads OOD's ``clusters.d`` and the section ``clusters`` of the site file; asks no scheduler. The room knows nothing of jobs.
The parts load when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lossi.clusters.exporting import export
    from lossi.clusters.loading import Clusters, load
    from lossi.clusters.models import (
        Accelerator,
        AccountPolicy,
        Architecture,
        Cluster,
        GpuType,
        Mount,
        OfferedPartition,
        Problem,
        PySlurmDoor,
        RestDoor,
    )
    from lossi.clusters.offering import (
        ClusterOffer,
        accelerator_of,
        architecture_of,
        gpu_hours,
        gpu_type,
        gpu_types,
        offer,
        offered,
        units,
    )

_HOME = {
    "exporting": ("export",),
    "loading": ("Clusters", "load"),
    "models": (
        "Accelerator",
        "AccountPolicy",
        "Architecture",
        "Cluster",
        "GpuType",
        "Mount",
        "OfferedPartition",
        "Problem",
        "PySlurmDoor",
        "RestDoor",
    ),
    "offering": (
        "ClusterOffer",
        "accelerator_of",
        "architecture_of",
        "gpu_hours",
        "gpu_type",
        "gpu_types",
        "offer",
        "offered",
        "units",
    ),
}
_MODULE = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "Accelerator",
    "AccountPolicy",
    "Architecture",
    "Cluster",
    "ClusterOffer",
    "Clusters",
    "GpuType",
    "Mount",
    "OfferedPartition",
    "Problem",
    "PySlurmDoor",
    "RestDoor",
    "accelerator_of",
    "architecture_of",
    "export",
    "gpu_hours",
    "gpu_type",
    "gpu_types",
    "load",
    "offer",
    "offered",
    "units",
]


def __getattr__(name: str) -> Any:
    try:
        return getattr(import_module(f"lossi.clusters.{_MODULE[name]}"), name)
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None

"""Export clusters as part of a site file, for login and compute nodes, which have no ``clusters.d``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lossi.clusters.models import Cluster

_HEAD = """\
# Clusters of Lossi, including Open OnDemand's clusters.d: part of a site file for login and compute nodes.
# Access lists of clusters.d are left out: there, the scheduler decides who may use a partition.
# Remove `submit_host` on nodes that have the Slurm commands.
"""


def export(clusters: Iterable[Cluster], default: str | None = None) -> str:
    """Return clusters as YAML from which `load` reads the same clusters.

    Parameters
    ----------
    clusters
        For example those of `load`.
    default
        Value of ``default_cluster``, if any.
    """
    import yaml

    data: dict[str, Any] = {} if default is None else {"default_cluster": default}
    data["clusters"] = {
        cluster.name: cluster.model_dump(mode="json", exclude_defaults=True, exclude={"name"}) for cluster in clusters
    }
    return _HEAD + yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=10_000)

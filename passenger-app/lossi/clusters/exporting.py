"""Whole cluster entries as a part of a site file, for the login and compute nodes, which have no ``clusters.d``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lossi.clusters.models import Cluster

_HEAD = """\
# Clusters of Lossi, with what Open OnDemand's clusters.d says of them: a part of the site file for login and compute nodes.
# Access lists of clusters.d are not in it: who may use a partition is the scheduler's to say there.
# Where a node has the Slurm commands itself, take out `submit_host`.
"""


def export(clusters: Iterable[Cluster], default: str | None = None) -> str:
    """Return the clusters as YAML that `load` reads back as the same clusters.

    Parameters
    ----------
    clusters
        Such as those of `load`.
    default
        Name for ``default_cluster``, if any.
    """
    import yaml

    data: dict[str, Any] = {} if default is None else {"default_cluster": default}
    data["clusters"] = {
        cluster.name: cluster.model_dump(mode="json", exclude_defaults=True, exclude={"name"}) for cluster in clusters
    }
    return _HEAD + yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=10_000)

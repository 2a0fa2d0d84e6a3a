"""Clusters: where jobs can run and what the site offers there, but not how to reach them."""

from __future__ import annotations

from flask import Response, jsonify
from flask_openapi3 import Tag
from pydantic import BaseModel, Field

from lossi.api.operations import Operations
from lossi.clusters import ClusterOffer, Problem
from lossi.jsonable import plain

api = Operations(
    "clusters",
    __name__,
    abp_tags=[Tag(name="clusters", description="Batch systems: partitions, GPU types and accounts that the site offers.")],
)


class ClusterPath(BaseModel):
    """A cluster."""

    name: str = Field(min_length=1, max_length=200, description="Its name.")


class ClusterList(BaseModel):
    """The clusters of this user."""

    clusters: list[ClusterOffer]
    problems: list[Problem] = Field(description="Entries and files that are ignored, and why.")


@api.get("/clusters", summary="List clusters", responses={200: ClusterList})
def list_clusters() -> Response:
    """List the clusters that jobs can be submitted to, and what the site offers on each. Asks no scheduler."""
    from lossi import clusters

    known = clusters.load()
    offers = [clusters.offer(cluster, default=known.default is cluster) for cluster in known.clusters if not cluster.hidden]
    return jsonify({"clusters": plain(offers), "problems": plain(known.problems)})


@api.get("/clusters/<string:name>", summary="Show a cluster", responses={200: ClusterOffer})
def show_cluster(path: ClusterPath) -> Response:
    """Show one cluster with its partitions, GPU types and account policy."""
    from lossi import clusters

    known = clusters.load()
    cluster = known.get(path.name)
    return jsonify(plain(clusters.offer(cluster, default=known.default is cluster)))

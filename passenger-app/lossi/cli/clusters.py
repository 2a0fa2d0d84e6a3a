"""``lossi clusters``: where jobs can run, and what the site offers there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from lossi.cli import options, output

if TYPE_CHECKING:
    from lossi.clusters import ClusterOffer, Clusters, OfferedPartition

app = typer.Typer(no_args_is_help=True)


@app.command("list")
def list_clusters(as_json: options.Json = False) -> None:
    """List the clusters, what each offers, and problems in their configuration."""
    from lossi import clusters

    known = clusters.load()
    offers = [_offer(known, cluster.name) for cluster in known.clusters if not cluster.hidden]

    def render() -> None:
        rows = []
        for offer in offers:
            partitions = ", ".join(partition.name for partition in offer.partitions) or "all of the scheduler"
            name = f"{offer.name} (default)" if offer.default else offer.name
            rows.append([name, offer.title, offer.scheduler, partitions, ", ".join(offer.gpu_types)])
        empty = "No cluster is configured, and sbatch is not on PATH."
        output.show_table(("name", "title", "scheduler", "partitions", "GPU types"), rows, empty=empty)
        _note_problems(known)

    output.emit({"clusters": offers, "problems": known.problems}, as_json, render)


@app.command("show")
def show(
    name: Annotated[str, typer.Argument(help="Name of the cluster.", show_default=False)], as_json: options.Json = False
) -> None:
    """Show one cluster: its partitions with their limits and GPUs, and its rule for accounts."""
    from lossi import clusters

    known = clusters.load()
    offer = _offer(known, name)

    def render() -> None:
        output.say(f"{offer.name}: {offer.title}{' (default)' if offer.default else ''}")
        output.say(f"scheduler: {offer.scheduler}" + (f"; log in to {offer.login_host}" if offer.login_host else ""))
        for key, value in offer.labels.items():
            output.say(f"{key}: {value}")
        output.say(_account(offer))
        if offer.max_tasks is not None:
            output.say(f"at most {offer.max_tasks} tasks in one job")
        output.show_table(
            ("partition", "title", "architecture", "GPUs", "time", "nodes", "cores", "memory", "GPUs a node"),
            [_row(offer, partition) for partition in offer.partitions],
            empty="All partitions of the scheduler are offered.",
        )

    output.emit(offer, as_json, render)


def _offer(known: Clusters, name: str) -> ClusterOffer:
    from lossi import clusters

    cluster = known.get(name)
    return clusters.offer(cluster, default=known.default is cluster)


def _row(offer: ClusterOffer, partition: OfferedPartition) -> list[object]:
    name = f"{partition.name} (default)" if partition.name == offer.default_partition else partition.name
    return [
        name,
        partition.title,
        partition.architecture,
        ", ".join(gpu.name for gpu in partition.gpu_types),
        partition.max_time,
        partition.max_nodes,
        partition.max_cpus,
        partition.max_memory,
        partition.max_gpus,
    ]


def _account(offer: ClusterOffer) -> str:
    policy = offer.account
    rules = ["account: required" if policy.required and not policy.default else "account: optional"]
    if policy.default:
        rules.append(f"default {policy.default}")
    if policy.pattern:
        rules.append(f"must match {policy.pattern}")
    return "; ".join(rules)


def _note_problems(known: Clusters) -> None:
    for problem in known.problems:
        output.note(f"{'ignored' if problem.level == 'error' else 'note'}: {problem}")

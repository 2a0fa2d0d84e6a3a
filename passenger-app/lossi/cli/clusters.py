"""``lossi clusters``: where jobs can run, and what is offered there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from lossi.cli import options, output

if TYPE_CHECKING:
    from lossi.clusters import ClusterOffer, Clusters, OfferedPartition

app = typer.Typer(no_args_is_help=True)


@app.command("list")
def list_clusters(as_json: options.Json = False) -> None:
    """List the clusters, what each offers, and what is wrong in their files."""
    from lossi import clusters

    found = clusters.load()
    offers = [_offer(found, cluster.name) for cluster in found.clusters if not cluster.hidden]

    def render() -> None:
        rows = []
        for offer in offers:
            partitions = ", ".join(partition.name for partition in offer.partitions) or "all that the scheduler names"
            name = f"{offer.name} (default)" if offer.default else offer.name
            rows.append([name, offer.title, offer.scheduler, partitions, ", ".join(offer.gpu_types)])
        empty = "No cluster is configured, and there is no sbatch on PATH."
        output.show_table(("name", "title", "scheduler", "partitions", "GPU types"), rows, empty=empty)
        _note_problems(found)

    output.emit({"clusters": offers, "problems": found.problems}, as_json, render)


@app.command("show")
def show(
    name: Annotated[str, typer.Argument(help="Name of the cluster.", show_default=False)], as_json: options.Json = False
) -> None:
    """Show one cluster: its partitions with their limits and GPUs, and which accounts may pay."""
    from lossi import clusters

    found = clusters.load()
    offer = _offer(found, name)

    def render() -> None:
        output.say(f"{offer.name}: {offer.title}{' (default)' if offer.default else ''}")
        output.say(f"talked to by {offer.scheduler}" + (f"; users log in to {offer.login_host}" if offer.login_host else ""))
        for key, value in offer.labels.items():
            output.say(f"{key}: {value}")
        output.say(_account(offer))
        if offer.max_tasks is not None:
            output.say(f"at most {offer.max_tasks} tasks in one job")
        output.show_table(
            ("partition", "title", "architecture", "GPUs", "time", "nodes", "cores", "memory", "GPUs a node"),
            [_row(offer, partition) for partition in offer.partitions],
            empty="All partitions that the scheduler names are offered.",
        )

    output.emit(offer, as_json, render)


def _offer(found: Clusters, name: str) -> ClusterOffer:
    from lossi import clusters

    cluster = found.get(name)
    return clusters.offer(cluster, default=found.default is cluster)


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
    words = ["account: must be named" if policy.required and not policy.default else "account: need not be named"]
    if policy.default:
        words.append(f"without one {policy.default} pays")
    if policy.pattern:
        words.append(f"must have the form {policy.pattern}")
    return "; ".join(words)


def _note_problems(found: Clusters) -> None:
    for problem in found.problems:
        output.note(f"{'left out' if problem.level == 'error' else 'note'}: {problem}")

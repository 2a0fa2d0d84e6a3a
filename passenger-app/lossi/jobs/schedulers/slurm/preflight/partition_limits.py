"""Checks of a request against a partition and its nodes, as the scheduler and the site limit them. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Sequence

from lossi import units
from lossi.clusters import OfferedPartition
from lossi.errors import did_you_mean
from lossi.jobs.schedulers.slurm.preflight.findings import Finding, Known, counted, listed, memory_asked, seconds
from lossi.jobs.schedulers.slurm.records import NodeGroup, PartitionRow
from lossi.jobs.schedulers.slurm.request import SlurmRequest

_AWAY = frozenset(("down", "drain", "drained", "draining", "fail", "failing", "error", "not_responding", "inval"))
"""States of a node in which it starts nothing."""
_CLOSED = frozenset(("DRAIN", "INACTIVE", "INACT"))


def offered(known: Known) -> list[str]:
    """Return the partitions that a user may request: those of the scheduler that the site offers."""
    site = {offer.name for offer in known.cluster.partitions}
    return [row.name for row in known.partitions or () if not site or row.name in site]


def check(request: SlurmRequest, name: str, known: Known, qos_flags: Collection[str]) -> Iterator[Finding]:
    """Yield the findings for one partition; some flags of the QOS lift its limits."""
    offer = next((candidate for candidate in known.cluster.partitions if candidate.name == name), None)
    row = known.partition(name)
    if known.partitions is not None and row is None:
        names = offered(known)
        hint = " ".join(part for part in (did_you_mean(name, names), f"there are: {listed(names)}" if names else "") if part)
        yield Finding(
            "refused",
            "partition.name",
            name,
            None,
            f"there is no partition {name!r} that you may use",
            hint or "ask the site which there are",
        )
        return
    if known.cluster.partitions and offer is None:
        names = [candidate.name for candidate in known.cluster.partitions]
        yield Finding(
            "refused", "cluster.partitions", name, None, f"the site does not offer partition {name!r}", f"choose {listed(names)}"
        )
        return
    if offer is not None:
        yield from _site(request, offer)
    if row is not None:
        yield from _open(row, known)
        yield from _time(request, row, qos_flags)
        yield from _nodes(request, row, qos_flags)
        yield from _memory(request, row)
    if known.nodes is not None:
        groups = [group for group in known.nodes if group.partition == name]
        if groups:
            yield from _fitting(request, name, row, groups, known.nodes)


def _most(limit: str, who: str, what: str, wish: int | None, allowed: int | None) -> Iterator[Finding]:
    if wish is not None and allowed is not None and wish > allowed:
        hint = f"request {allowed:,} or fewer" if allowed else f"request no {what.split(' per ')[0]}"
        yield Finding("refused", limit, wish, allowed, f"{who} allows {counted(allowed, what)}, you requested {wish:,}", hint)


def _longest(limit: str, who: str, asked: int | None, allowed: int | None) -> Iterator[Finding]:
    if asked is not None and allowed is not None and asked > allowed:
        most, wish = units.format_time(allowed), units.format_time(asked)
        yield Finding("refused", limit, wish, most, f"{who} allows {most}, you requested {wish}", f"request {most} or less")


def _site(request: SlurmRequest, offer: OfferedPartition) -> Iterator[Finding]:
    who = f"the site's partition {offer.name!r}"
    yield from _longest(
        "cluster.max_time", who, seconds(request), None if offer.max_time is None else units.parse_time(offer.max_time)
    )
    yield from _most("cluster.max_nodes", who, "nodes", request.nodes, offer.max_nodes)
    yield from _most("cluster.max_cpus", who, "cores per node", request.cpus, offer.max_cpus)
    most = None if offer.max_memory is None else units.parse_memory(offer.max_memory)
    yield from _most("cluster.max_memory", who, "MiB of memory per node", request.memory_mb, most)
    yield from _most("cluster.max_gpus", who, "GPUs per node", request.gpus, offer.max_gpus)
    types = [kind.name for kind in offer.gpu_types]
    if request.gpus and request.gpu_type and types and request.gpu_type not in types:
        yield _no_such_gpu("cluster.gpu_types", who, request.gpu_type, types)


def _no_such_gpu(limit: str, who: str, requested: str, types: Collection[str]) -> Finding:
    hint = " ".join(part for part in (did_you_mean(requested, types), f"it has {listed(types)}") if part)
    return Finding("refused", limit, requested, listed(types), f"{who} has no GPUs of type {requested!r}", hint)


def _open(row: PartitionRow, known: Known) -> Iterator[Finding]:
    state = row.state.upper()
    if state in _CLOSED:
        yield Finding("refused", "partition.state", None, state, f"partition {row.name!r} takes no jobs now ({state})", _LATER)
    elif state == "DOWN":
        yield Finding("waits", "partition.state", None, state, f"partition {row.name!r} starts no jobs now ({state})", _LATER)
    if row.allowed_groups and known.groups is not None and not set(row.allowed_groups) & set(known.groups):
        yield Finding(
            "refused",
            "partition.AllowGroups",
            None,
            listed(row.allowed_groups),
            f"partition {row.name!r} is for members of {listed(row.allowed_groups)}",
            "choose another partition, or ask the site for membership",
        )


_LATER = "choose another partition, or try later"


def _time(request: SlurmRequest, row: PartitionRow, qos_flags: Collection[str]) -> Iterator[Finding]:
    if "partitiontimelimit" not in qos_flags:
        yield from _longest("partition.max_time", f"partition {row.name!r}", seconds(request), row.max_time_s)
    default = row.default_time_s
    if request.time_limit_min is None and default is not None:
        text = units.format_time(default)
        message = f"no time limit was requested: partition {row.name!r} gives {text}"
        yield Finding("note", "partition.default_time", None, text, message, "set a time limit if the job may take longer")


def _nodes(request: SlurmRequest, row: PartitionRow, qos_flags: Collection[str]) -> Iterator[Finding]:
    who = f"partition {row.name!r}"
    if "partitionmaxnodes" not in qos_flags:
        yield from _most("partition.max_nodes", who, "nodes", request.nodes, row.max_nodes)
    if row.total_nodes is not None and request.nodes > row.total_nodes:
        yield Finding(
            "refused",
            "partition.total_nodes",
            request.nodes,
            row.total_nodes,
            f"{who} has {counted(row.total_nodes, 'nodes')}, you requested {request.nodes:,}",
            f"request {row.total_nodes:,} or fewer",
        )
    if row.min_nodes and request.nodes < row.min_nodes and "partitionminnodes" not in qos_flags:
        yield Finding(
            "refused",
            "partition.min_nodes",
            request.nodes,
            row.min_nodes,
            f"{who} is for jobs of {row.min_nodes:,} nodes or more, you requested {request.nodes:,}",
            f"request {row.min_nodes:,} nodes or more",
        )
    yield from _most("partition.max_cpus_per_node", who, "cores per node", request.cpus, row.max_cpus_per_node)


def _memory(request: SlurmRequest, row: PartitionRow) -> Iterator[Finding]:
    who = f"partition {row.name!r}"
    requested = memory_asked(request, row)
    yield from _most("partition.max_memory_per_node", who, "MiB of memory per node", requested, row.max_memory_per_node_mb)
    most = row.max_memory_per_cpu_mb
    if most and request.memory_mb is not None and request.memory_mb > most * request.cpus:
        cores = math.ceil(request.memory_mb / most)
        message = f"{who} allows {most:,} MiB of memory per core: for {request.memory_mb:,} MiB Slurm takes {cores:,} cores"
        yield Finding(
            "note",
            "partition.max_memory_per_cpu",
            request.memory_mb,
            most * request.cpus,
            message,
            f"request {cores:,} cores, or for {most * request.cpus:,} MiB",
        )


def _gpus(group: NodeGroup, kind: str | None) -> int:
    return sum(group.gpus.values()) if kind is None else group.gpus.get(kind, 0)


def _fitting(
    request: SlurmRequest, name: str, row: PartitionRow | None, groups: Sequence[NodeGroup], everywhere: Sequence[NodeGroup]
) -> Iterator[Finding]:
    """Check the nodes: first each resource by itself, then whether enough nodes have all of them."""
    who = f"partition {name!r}"
    memory = memory_asked(request, row)
    if sum(group.nodes for group in groups) < request.nodes and row is not None and row.total_nodes is not None:
        return  # already a finding
    result = [
        *_biggest("partition.cpus", who, "cores", request.cpus, max(group.cpus for group in groups)),
        *_biggest("partition.memory", who, "MiB of memory", memory, max(group.memory_mb for group in groups)),
        *_gpus_there(request, who, groups),
        *_features(request, name, groups, everywhere),
    ]
    yield from result
    if any(finding.level == "refused" for finding in result):
        return
    kind = request.gpu_type if request.gpus else None
    fit = [
        group
        for group in groups
        if group.cpus >= request.cpus
        and group.memory_mb >= (memory or 0)
        and (not request.gpus or _gpus(group, kind) >= request.gpus)
        and _has(group, request.constraint)
    ]
    together = sum(group.nodes for group in fit)
    if together < request.nodes:
        has = counted(together, "nodes") if together else "no node"
        message = f"{who} has {has} with everything that you requested, you requested {request.nodes:,}"
        yield Finding(
            "refused", "partition.node", request.nodes, together, message, "request less of what is scarce, or fewer nodes"
        )
    elif sum(group.nodes for group in fit if not _away(group)) < request.nodes:
        left = sum(group.nodes for group in fit if not _away(group))
        message = f"{left:,} of the {together:,} nodes of {who} that would do are in service now, you requested {request.nodes:,}"
        yield Finding("waits", "partition.nodes_in_service", request.nodes, left, message, _LATER)


def _biggest(limit: str, who: str, what: str, wish: int | None, most: int) -> Iterator[Finding]:
    if wish is not None and wish > most:
        message = f"the biggest node of {who} has {counted(most, what)}, you requested {wish:,}"
        yield Finding("refused", limit, wish, most, message, f"request {most:,} or fewer")


def _gpus_there(request: SlurmRequest, who: str, groups: Sequence[NodeGroup]) -> Iterator[Finding]:
    types = {kind for group in groups for kind, number in group.gpus.items() if number}
    if not request.gpus:
        if all(any(group.gpus.values()) for group in groups):
            message = f"all nodes of {who} have GPUs, and you requested none"
            yield Finding("note", "partition.gpus", 0, None, message, "request GPUs, or choose a partition without")
        return
    if not types:
        yield Finding("refused", "partition.gpus", request.gpus, 0, f"{who} has no GPUs", "request no GPUs")
    elif request.gpu_type is not None and request.gpu_type not in types:
        yield _no_such_gpu("partition.gpu_type", who, request.gpu_type, types - {""} or {"GPUs without a type"})
    else:
        most = max(_gpus(group, request.gpu_type) for group in groups)
        what = f"GPUs of type {request.gpu_type}" if request.gpu_type else "GPUs"
        yield from _biggest("partition.gpus", who, what, request.gpus, most)


def _features(
    request: SlurmRequest, name: str, groups: Sequence[NodeGroup], everywhere: Sequence[NodeGroup]
) -> Iterator[Finding]:
    requested = set(re.findall(r"[A-Za-z_][A-Za-z0-9_.:+-]*", request.constraint or ""))
    strange = sorted(requested - {feature for group in everywhere for feature in group.features})
    for word in strange:
        names = {feature for group in groups for feature in group.features}
        hint = " ".join(part for part in (did_you_mean(word, names), f"there are: {listed(names)}" if names else "") if part)
        yield Finding(
            "refused", "partition.features", word, None, f"no node has the feature {word!r}", hint or "leave the constraint out"
        )
    if not strange and not any(_has(group, request.constraint) for group in groups):
        message = f"no node of partition {name!r} has the features {request.constraint!r}"
        yield Finding("refused", "partition.features", request.constraint, None, message, "change the constraint")


def _has(group: NodeGroup, constraint: str | None) -> bool:
    """Return whether nodes have the features; True for more than ``a&b`` or ``a|b``, which only Slurm can evaluate."""
    if not constraint or re.search(r"[^A-Za-z0-9_.:+&,|-]", constraint) or ("|" in constraint and re.search("[&,]", constraint)):
        return True
    if "|" in constraint:
        return bool(set(constraint.split("|")) & set(group.features))
    return set(re.split("[&,]", constraint)) <= set(group.features)


def _away(group: NodeGroup) -> bool:
    words = re.split(r"[+,]", group.state.lower().rstrip("*~#!%$@^-"))
    return any(word in _AWAY for word in words)

"""What the apps' forms share: a site's partitions, the fields for resources, and the site's problems.

Open OnDemand keeps a form for hours and hides an app whose template fails. So each form is written once, as a file that its
template prints (`apps`), and an error in a catalogue becomes a sentence on the form. Which choices depend on which is written in
Open OnDemand's own directives (``data-option-for-…``, ``data-max-…``); `sessions` checks all values again.
"""

from __future__ import annotations

import html
import platform
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from lossi import clusters, units
from lossi.clusters import Cluster, OfferedPartition

NO_GPU = "none"
MOST_HOURS, MOST_CORES, MOST_MEMORY_GB, MOST_GPUS = 168, 256, 4096, 16
"""Offered at most if the site names no limit of a partition."""
NOTHING = "Nothing can be started yet"
PARTITION = "queue"
"""Name of the partition's field. ``partition`` is a method of Ruby's lists: Open OnDemand would not keep its value for a relaunch."""

Option = list[Any]


@dataclass(frozen=True)
class Place:
    """A partition of a cluster, as a form offers it.

    Attributes
    ----------
    partition
        None: the cluster's default, which the site file does not describe.
    """

    cluster: Cluster
    partition: OfferedPartition | None

    @property
    def value(self) -> str:
        """The value that the form submits; two clusters may have partitions of the same name."""
        return f"{self.cluster.name}--{self.partition.name if self.partition else 'default'}"

    @property
    def architecture(self) -> str:
        return (self.partition.architecture if self.partition else None) or platform.machine()

    @property
    def most_hours(self) -> int:
        limit = self.partition.max_time if self.partition else None
        return MOST_HOURS if limit is None else max(1, units.parse_time(limit) // 3600)

    @property
    def most_memory_gb(self) -> int | None:
        limit = self.partition.max_memory if self.partition else None
        return None if limit is None else max(1, units.parse_memory(limit) // 1024)

    @property
    def most_cores(self) -> int | None:
        return self.partition.max_cpus if self.partition else None

    @property
    def most_gpus(self) -> int | None:
        if self.partition is None or not self.partition.gpu_types:
            return 0
        return self.partition.max_gpus

    def accelerators(self) -> dict[str, str]:
        """Return GPU type → accelerator that an environment needs for it; `NO_GPU` is always included."""
        kinds = self.partition.gpu_types if self.partition else ()
        return {NO_GPU: "none", **{gpu.name: gpu.accelerator for gpu in kinds}}


def places(offered: Iterable[Cluster]) -> list[Place]:
    """Return the offered partitions, those for interactive work first."""
    every = [Place(cluster, partition) for cluster in offered for partition in (cluster.partitions or (None,))]
    return sorted(every, key=lambda place: not (place.partition and place.partition.interactive))


def offered() -> tuple[list[Cluster], list[str]]:
    """Return the clusters that everybody sees, and the errors in their files."""
    known = clusters.load()
    errors = [str(problem) for problem in known.problems if problem.level == "error"]
    return [cluster for cluster in known.clusters if not cluster.hidden], errors


def form(shown: Sequence[Cluster], fields: Sequence[str], attributes: dict[str, Any], problems: Sequence[str]) -> dict[str, Any]:
    """Return a whole form as Open OnDemand reads it.

    Parameters
    ----------
    shown
        The clusters; may be empty.
    fields
        In their order, without ``cluster``, which Open OnDemand adds.
    attributes
        Of each field.
    problems
        Shown above the form (Open OnDemand 4.0 and later).
    """
    document: dict[str, Any] = {"form": list(fields), "attributes": {"cluster": {"label": "Cluster"}, **attributes}}
    if shown:
        document["cluster"] = [cluster.name for cluster in shown]
    if problems:
        lines = "".join(f"<li>{html.escape(problem)}</li>" for problem in problems)
        document["form_header"] = (
            f'<div class="alert alert-warning" role="alert">Please tell your site\'s support:<ul>{lines}</ul></div>'
        )
    return document


def number(label: str, value: int, least: int, most: int) -> dict[str, Any]:
    """Return a field for a whole number."""
    return {"widget": "number_field", "label": label, "value": value, "min": least, "max": most, "step": 1, "required": True}


def amounts(offered: Sequence[Place], *, cores: int, memory_gb: int, hours: int) -> dict[str, Any]:
    """Return the fields ``cores``, ``memory_gb`` and ``hours`` with these defaults."""
    return {
        "cores": number("Cores", cores, 1, most((place.most_cores for place in offered), MOST_CORES)),
        "memory_gb": number("Memory (GB)", memory_gb, 1, most((place.most_memory_gb for place in offered), MOST_MEMORY_GB)),
        "hours": number("Hours", hours, 1, most((place.most_hours for place in offered), MOST_HOURS)),
    }


def most(limits: Iterable[int | None], otherwise: int) -> int:
    """Return the highest limit, with ``otherwise`` for one that is None; ``otherwise`` if there are none."""
    return max((otherwise if limit is None else limit for limit in limits), default=otherwise)


def partition(offered: Sequence[Place], fields: Collection[str]) -> dict[str, Any]:
    """Return the field `PARTITION`: a partition is shown with its cluster only, and sets the limits of other ``fields``."""
    return {"widget": "select", "label": "Partition", "options": [_partition(place, offered, fields) for place in offered]}


def _partition(place: Place, offered: Sequence[Place], fields: Collection[str]) -> Option:
    data: dict[str, Any] = {
        f"data-option-for-cluster-{token(name)}": False
        for name in dict.fromkeys(other.cluster.name for other in offered)
        if name != place.cluster.name
    }
    # Every limit, because the page keeps that of the partition before for one that is not given.
    limits = {
        "hours": place.most_hours,
        "cores": place.most_cores or MOST_CORES,
        "memory_gb": place.most_memory_gb or MOST_MEMORY_GB,
        "gpus": place.most_gpus or MOST_GPUS,
    }
    data |= {f"data-max-{token(field)}": limit for field, limit in limits.items() if field in fields}
    if place.partition is None:
        return [label(f"{place.cluster.title or place.cluster.name}: default"), place.value, data]
    name, title = place.partition.name, place.partition.title
    return [label(f"{name}: {title}" if title else name), place.value, data]


def account(shown: Sequence[Cluster]) -> dict[str, Any]:
    """Return the field ``account``."""
    policies = [cluster.account for cluster in shown]
    return {
        "widget": "text_field",
        "label": "Account",
        "help": "The project that pays."
        + ("" if policies and all(policy.required for policy in policies) else " Empty: the cluster's default."),
        # Empty if the clusters have different defaults, so that each takes its own.
        "value": policies[0].default or "" if len({policy.default for policy in policies}) == 1 else "",
        "required": bool(policies) and all(policy.required and not policy.default for policy in policies),
    }


def token(value: str) -> str:
    """Return a value as part of a directive's name; Open OnDemand's page ignores case and underscores."""
    return re.sub(r"_(?=[a-z0-9])", "-", value.lower())


def label(text: str) -> str:
    """Return an option's text without quotes: before 4.2, Open OnDemand's page looks options up by their quoted text."""
    return text.replace("'", "’").replace("\\", "/")


def plain(text: str) -> str:
    """Return a help text with its Markdown characters escaped."""
    return re.sub(r"([\\`*_{}\[\]<>#|~])", r"\\\1", text)

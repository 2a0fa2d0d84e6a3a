"""What the apps' forms have in common: the places of a site, the fields that ask for resources, and what is wrong.

Open OnDemand keeps a form for hours and shows none at all when a template fails. So each form is written once, as a file that its
template only prints (`apps`); a fault in a catalogue becomes a sentence on it. What depends on what is said in Open OnDemand's own
directives (``data-option-for-…``, ``data-max-…``), which its page acts upon; whatever comes back is checked again in `sessions`.
"""

from __future__ import annotations

import html
import platform
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from lossi import clusters
from lossi.clusters import Cluster, OfferedPartition
from lossi.jobs import parse_memory, parse_time

NO_GPU = "none"
MOST_HOURS, MOST_CORES, MOST_MEMORY_GB, MOST_GPUS = 168, 256, 4096, 16
"""What is offered at most where the site names no limit of a partition."""
NOTHING = "Nothing can be started yet"
PARTITION = "queue"
"""Name of the field with the partition. Under ``partition``, a method of Ruby's lists, Open OnDemand keeps no value to launch again."""

Option = list[Any]


@dataclass(frozen=True)
class Place:
    """One partition of one cluster as the form offers it.

    Attributes
    ----------
    partition
        None: the cluster's own default, of which the site file says nothing.
    """

    cluster: Cluster
    partition: OfferedPartition | None

    @property
    def value(self) -> str:
        """What the form sends: two clusters may have partitions of one name."""
        return f"{self.cluster.name}--{self.partition.name if self.partition else 'default'}"

    @property
    def architecture(self) -> str:
        return (self.partition.architecture if self.partition else None) or platform.machine()

    @property
    def most_hours(self) -> int:
        most = self.partition.max_time if self.partition else None
        return MOST_HOURS if most is None else max(1, parse_time(most) // 3600)

    @property
    def most_memory_gb(self) -> int | None:
        most = self.partition.max_memory if self.partition else None
        return None if most is None else max(1, parse_memory(most) // 1024)

    @property
    def most_cores(self) -> int | None:
        return self.partition.max_cpus if self.partition else None

    @property
    def most_gpus(self) -> int | None:
        if self.partition is None or not self.partition.gpu_types:
            return 0
        return self.partition.max_gpus

    def accelerators(self) -> dict[str, str]:
        """Return type of GPU → variant of an environment that it needs; `NO_GPU` is always among them."""
        kinds = self.partition.gpu_types if self.partition else ()
        return {NO_GPU: "none", **{gpu.name: gpu.accelerator for gpu in kinds}}


def places(offered: Iterable[Cluster]) -> list[Place]:
    """Return the partitions that are offered, those for interactive work first."""
    found = [Place(cluster, one) for cluster in offered for one in (cluster.partitions or (None,))]
    return sorted(found, key=lambda place: not (place.partition and place.partition.interactive))


def offered() -> tuple[list[Cluster], list[str]]:
    """Return the clusters that everybody is shown, and what is wrong in their files."""
    found = clusters.load()
    problems = [str(problem) for problem in found.problems if problem.level == "error"]
    return [one for one in found.clusters if not one.hidden], problems


def form(where: Sequence[Cluster], fields: Sequence[str], attributes: dict[str, Any], said: Sequence[str]) -> dict[str, Any]:
    """Return a whole form as Open OnDemand reads it.

    Parameters
    ----------
    where
        The clusters; without any there is a form all the same.
    fields
        In their order, but ``cluster``, which Open OnDemand makes itself.
    attributes
        Of each of them.
    said
        What is wrong and stands above the form (Open OnDemand 4.0 and later).
    """
    found: dict[str, Any] = {"form": list(fields), "attributes": {"cluster": {"label": "Cluster"}, **attributes}}
    if where:
        found = {"cluster": [cluster.name for cluster in where], **found}
    if said:
        lines = "".join(f"<li>{html.escape(one)}</li>" for one in said)
        found["form_header"] = (
            f'<div class="alert alert-warning" role="alert">Please tell your site\'s support:<ul>{lines}</ul></div>'
        )
    return found


def number(label: str, value: int, least: int, most: int) -> dict[str, Any]:
    """Return a field for a whole number."""
    return {"widget": "number_field", "label": label, "value": value, "min": least, "max": most, "step": 1, "required": True}


def amounts(where: Sequence[Place], *, cores: int, memory_gb: int, hours: int) -> dict[str, Any]:
    """Return the fields ``cores``, ``memory_gb`` and ``hours`` with these values."""
    return {
        "cores": number("Cores", cores, 1, most((place.most_cores for place in where), MOST_CORES)),
        "memory_gb": number("Memory (GB)", memory_gb, 1, most((place.most_memory_gb for place in where), MOST_MEMORY_GB)),
        "hours": number("Hours", hours, 1, most((place.most_hours for place in where), MOST_HOURS)),
    }


def most(limits: Iterable[int | None], otherwise: int) -> int:
    """Return the highest of some limits; ``otherwise`` where there are none, or one place has none."""
    return max((otherwise if limit is None else limit for limit in limits), default=otherwise)


def partition(where: Sequence[Place], fields: Collection[str]) -> dict[str, Any]:
    """Return the field `PARTITION`: each is shown with its cluster only, and sets the limits of others among ``fields``."""
    return {"widget": "select", "label": "Partition", "options": [_partition(place, where, fields) for place in where]}


def _partition(place: Place, where: Sequence[Place], fields: Collection[str]) -> Option:
    data: dict[str, Any] = {
        f"data-option-for-cluster-{token(name)}": False
        for name in dict.fromkeys(other.cluster.name for other in where)
        if name != place.cluster.name
    }
    # All limits, always: for one that is not said, the page keeps that of the partition before.
    limits = {
        "hours": place.most_hours,
        "cores": place.most_cores or MOST_CORES,
        "memory_gb": place.most_memory_gb or MOST_MEMORY_GB,
        "gpus": place.most_gpus or MOST_GPUS,
    }
    data |= {f"data-max-{token(field)}": limit for field, limit in limits.items() if field in fields}
    found = place.partition
    if found is None:
        return [label(f"{place.cluster.title or place.cluster.name}: its default"), place.value, data]
    return [label(f"{found.name}: {found.title}" if found.title else found.name), place.value, data]


def account(where: Sequence[Cluster]) -> dict[str, Any]:
    """Return the field ``account``."""
    accounts = [cluster.account for cluster in where]
    return {
        "widget": "text_field",
        "label": "Account",
        "help": "The project that pays."
        + ("" if accounts and all(one.required for one in accounts) else " Empty: the cluster's own choice."),
        # Clusters with defaults of their own: empty, so that each takes its own.
        "value": accounts[0].default or "" if len({one.default for one in accounts}) == 1 else "",
        "required": bool(accounts) and all(one.required and not one.default for one in accounts),
    }


def token(value: str) -> str:
    """Return a value as it stands in the name of a directive; Open OnDemand's page compares without case and underscores."""
    return re.sub(r"_(?=[a-z0-9])", "-", value.lower())


def label(text: str) -> str:
    """Return the text of an option. Before 4.2, Open OnDemand's page looks one up by its text in quotes: one in it stops the page."""
    return text.replace("'", "’").replace("\\", "/")


def plain(text: str) -> str:
    """Return a help text, which Open OnDemand reads as Markdown, as it is meant."""
    return re.sub(r"([\\`*_{}\[\]<>#|~])", r"\\\1", text)

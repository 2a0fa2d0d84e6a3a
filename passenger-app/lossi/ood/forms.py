"""The form of the Jupyter app, from the catalogue and the site file: what exists, and nothing else.

Open OnDemand keeps a form for hours and shows none at all when a template fails. So the form is written once, as a file that the
template only prints; a fault in a catalogue becomes a sentence on it. What depends on what is said in Open OnDemand's own
directives (``data-option-for-…``, ``data-max-…``), which its page acts upon; whatever comes back is checked again in `sessions`.
"""

from __future__ import annotations

import html
import json
import platform
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lossi import clusters, environments
from lossi.clusters import Cluster, OfferedPartition
from lossi.environments import Environment
from lossi.files import atomic
from lossi.jobs.resources import parse_memory, parse_time
from lossi.ood import usable

FILE = "form.json"
NO_GPU = "none"
MOST_HOURS = 168
"""Longest session that is offered where the site names no limit of a partition."""
FIELDS = (
    "environment",
    "interface",
    "folder",
    "partition",
    "gpu_type",
    "gpus",
    "cores",
    "memory_gb",
    "hours",
    "account",
    "portal_origin",
)
"""The fields besides ``cluster``, which Open OnDemand makes itself."""
NOTHING = "Nothing can be started yet"

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

    def accelerators(self) -> dict[str, str]:
        """Return type of GPU → variant of an environment that it needs; `NO_GPU` is always among them."""
        kinds = self.partition.gpu_types if self.partition else ()
        return {NO_GPU: "none", **{gpu.name: gpu.accelerator for gpu in kinds}}


def places(offered: Iterable[Cluster]) -> list[Place]:
    """Return the partitions that are offered, those for interactive work first."""
    found = [Place(cluster, one) for cluster in offered for one in (cluster.partitions or (None,))]
    return sorted(found, key=lambda place: not (place.partition and place.partition.interactive))


def current() -> dict[str, Any]:
    """Return the form of this site as it is now."""
    # Root writes it, for users of other groups; Open OnDemand leaves out the clusters that a user may not use.
    found = clusters.load(for_all=True)
    catalog = environments.load()
    problems = [str(problem) for problem in found.problems if problem.level == "error"]
    problems += [str(problem) for problem in catalog.problems]
    # Whoever installs has a catalogue too; everybody's own is added by the page (form.js).
    everybodys = [one for one in catalog.environments if one.source != "user"]
    return jupyter([one for one in found.clusters if not one.hidden], everybodys, problems)


def write(folder: Path) -> Path:
    """Write the form into the folder of the app, where its template finds it, and return the file.

    Raises
    ------
    Forbidden, Unavailable
        When it cannot be written.
    """
    path = folder / FILE
    atomic.write(path, json.dumps(current(), ensure_ascii=False).encode("utf-8"), mode=0o644)
    path.chmod(0o644)  # whatever the umask of whoever installs
    return path


def jupyter(offered: Sequence[Cluster], catalog: Sequence[Environment], problems: Sequence[str]) -> dict[str, Any]:
    """Return the form of the Jupyter app.

    Parameters
    ----------
    offered
        The clusters; without any there is a form all the same, which says so.
    catalog
        All environments; those that can be used nowhere are left out.
    problems
        What is wrong in catalogue or site file.
    """
    where = places(offered)
    software = _environments(catalog, where)
    said = list(problems)
    if not offered:
        said.insert(0, f"{NOTHING}: no cluster is configured.")
    if not software:
        said.insert(0, f"{NOTHING}: no environment with JupyterLab is built here (lossi env list says why).")
    form: dict[str, Any] = {"form": list(FIELDS), "attributes": _attributes(offered, where, software, said)}
    if offered:
        form = {"cluster": [cluster.name for cluster in offered], **form}
    if said:
        lines = "".join(f"<li>{html.escape(one)}</li>" for one in said)
        form["form_header"] = (
            f'<div class="alert alert-warning" role="alert">Please tell your site\'s support:<ul>{lines}</ul></div>'
        )
    return form


def _attributes(
    offered: Sequence[Cluster], where: Sequence[Place], software: list[Option], said: Sequence[str]
) -> dict[str, Any]:
    most_gpus = max((place.partition.max_gpus or 0 for place in where if place.partition), default=0)
    accounts = [cluster.account for cluster in offered]
    return {
        "cluster": {"label": "Cluster"},
        "environment": {
            "widget": "select",
            "label": "Environment",
            "help": _plain(" ".join(["Software in which notebooks run.", *said])),
            "required": True,
            "options": software or [["none", ""]],
        },
        "interface": {
            "widget": "select",
            "label": "Interface",
            "help": "Notebook shows one document at a time.",
            "options": [["JupyterLab", "lab"], ["Notebook", "notebook"]],
        },
        "folder": {
            "widget": "path_selector",
            "label": "Folder",
            "help": "Where Jupyter starts, and the top of what its file browser shows. Empty: your home folder.",
            "show_hidden": False,
            "show_files": False,
        },
        "partition": {"widget": "select", "label": "Partition", "options": [_partition(place, where) for place in where]},
        "gpu_type": {"widget": "select", "label": "GPU", "options": list(_gpus(where))},
        "gpus": _number("Number of GPUs", 0, 0, most_gpus or 16),
        "cores": _number("Cores", 1, 1, _most(where, "max_cpus") or 256),
        "memory_gb": _number("Memory (GB)", 4, 1, max((_memory(place) or 4096 for place in where), default=4096)),
        "hours": _number("Hours", 2, 1, max((_hours(place) for place in where), default=MOST_HOURS)),
        "account": {
            "widget": "text_field",
            "label": "Account",
            "help": "The project that pays."
            + ("" if accounts and all(one.required for one in accounts) else " Empty: the cluster's own choice."),
            "value": next((one.default for one in accounts if one.default), "") or "",
            "required": bool(accounts) and all(one.required and not one.default for one in accounts),
        },
        "portal_origin": {"widget": "hidden_field", "value": "", "cacheable": False},
    }


def _number(label: str, value: int, least: int, most: int) -> dict[str, Any]:
    return {"widget": "number_field", "label": label, "value": value, "min": least, "max": most, "step": 1, "required": True}


def _partition(place: Place, where: Sequence[Place]) -> Option:
    """Return the option of a partition: only with its cluster, and with the limits that it sets to other fields."""
    data: dict[str, Any] = {
        f"data-option-for-cluster-{token(name)}": False
        for name in dict.fromkeys(other.cluster.name for other in where)
        if name != place.cluster.name
    }
    partition = place.partition
    if partition is None:
        return [f"{place.cluster.title or place.cluster.name}: its default", place.value, data]
    data["data-max-hours"] = _hours(place)
    for field, most in (("cores", partition.max_cpus), ("memory-gb", _memory(place)), ("gpus", partition.max_gpus)):
        if most is not None:
            data[f"data-max-{field}"] = most
    label = f"{partition.name}: {partition.title}" if partition.title else partition.name
    return [label, place.value, data]


def _gpus(where: Sequence[Place]) -> Iterator[Option]:
    yield ["none", NO_GPU, {"data-hide-gpus": True, "data-set-gpus": 0, "data-min-gpus": 0}]
    titles = {gpu.name: gpu.title for place in where if place.partition for gpu in place.partition.gpu_types}
    for name, title in titles.items():
        data: dict[str, Any] = {
            f"data-option-for-partition-{token(place.value)}": False for place in where if name not in place.accelerators()
        }
        yield [title or name, name, {**data, "data-min-gpus": 1}]


def _environments(catalog: Iterable[Environment], where: Sequence[Place]) -> list[Option]:
    """Return the options of the environments that can be used somewhere, each hidden where it cannot."""
    found: list[Option] = []
    kinds = list(dict.fromkeys(name for place in where for name in place.accelerators()))
    for environment in catalog:
        good = {
            (place.value, kind)
            for place in where
            for kind, accelerator in place.accelerators().items()
            if usable.has_jupyter(environment, place.architecture, accelerator)
        }
        if not good:
            continue
        data = {
            f"data-option-for-partition-{token(place.value)}": False
            for place in where
            if not any(value == place.value for value, _ in good)
        }
        data |= {f"data-option-for-gpu-type-{token(kind)}": False for kind in kinds if not any(name == kind for _, name in good)}
        found.append([environment.title, environment.name, data])
    return found


def token(value: str) -> str:
    """Return a value as it stands in the name of a directive; Open OnDemand's page compares without case and underscores."""
    return re.sub(r"_(?=[a-z0-9])", "-", value.lower())


def _plain(text: str) -> str:
    """Return a help text, which Open OnDemand reads as Markdown, as it is meant."""
    return re.sub(r"([\\`*_{}\[\]<>#|~])", r"\\\1", text)


def _most(where: Iterable[Place], name: str) -> int:
    return max((getattr(place.partition, name) or 0 for place in where if place.partition), default=0)


def _memory(place: Place) -> int | None:
    most = place.partition.max_memory if place.partition else None
    return None if most is None else max(1, parse_memory(most) // 1024)


def _hours(place: Place) -> int:
    most = place.partition.max_time if place.partition else None
    return MOST_HOURS if most is None else max(1, parse_time(most) // 3600)

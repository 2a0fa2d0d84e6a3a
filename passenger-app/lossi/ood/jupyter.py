"""The Jupyter app: its form from catalogue and site file, and what its job starts.

A session's folder keeps the form's values apart from every script: the command as words separated by NUL, the site's set-up
lines unchanged, the rest as JSON.
"""

from __future__ import annotations

import importlib.resources
import json
import os
import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lossi import clusters, environments, settings
from lossi.clusters import Cluster
from lossi.contract.records import ResolvedEnvironment
from lossi.contract.text import CONTROL
from lossi.environments import Environment, Mount
from lossi.errors import InvalidInput
from lossi.files import atomic, roots
from lossi.jobs import Resources
from lossi.ood import forms, jupyter_available, sessions
from lossi.ood.forms import NO_GPU, NOTHING, Option, Place, token
from lossi.ood.jupyter_node import status

FIELDS = (
    forms.PARTITION,
    "gpu_type",
    "gpus",
    "environment",
    "interface",
    "folder",
    "cores",
    "memory_gb",
    "hours",
    "account",
    "portal_origin",
)
COMMAND, SETUP, SCRATCH, NODE = "words", "setup.sh", "scratch", "jupyter_node"
SHIM, INTERPRETER = "bin/lossi", "interpreter"
"""Names in the session's folder."""
INTERFACES = ("lab", "notebook")

_ORIGIN = re.compile(r"https?://[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252}[A-Za-z0-9])?(?::[0-9]{1,5})?")


def form() -> dict[str, Any]:
    """Return the site's present form, without environments that no partition can use."""
    offered, problems = forms.offered()
    catalog = environments.load()
    problems += [str(problem) for problem in catalog.problems]
    places = forms.places(offered)
    # Without the catalogue of the user who installs; the page adds each user's own (form.js).
    shared = [environment for environment in catalog.environments if environment.source != "user"]
    software = _environments(shared, places)
    if not offered:
        problems.insert(0, f"{NOTHING}: no cluster is configured.")
    if not software:
        problems.insert(0, f"{NOTHING}: no environment with JupyterLab is built here (lossi env list says why).")
    return forms.form(offered, FIELDS, _attributes(offered, places, software, problems), problems)


def _attributes(
    offered: Sequence[Cluster], places: Sequence[Place], software: list[Option], problems: Sequence[str]
) -> dict[str, Any]:
    return {
        "environment": {
            "widget": "select",
            "label": "Environment",
            "help": forms.plain(" ".join(["Software in which notebooks run.", *problems])),
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
            "help": "Where Jupyter starts, and the top folder of its file browser. Empty: your home folder.",
            "show_hidden": False,
            "show_files": False,
        },
        forms.PARTITION: forms.partition(places, FIELDS),
        "gpu_type": {"widget": "select", "label": "GPU", "options": list(_gpus(places))},
        "gpus": forms.number("Number of GPUs", 0, 0, forms.most((place.most_gpus for place in places), forms.MOST_GPUS)),
        **forms.amounts(places, cores=1, memory_gb=4, hours=2),
        "account": forms.account(offered),
        "portal_origin": {"widget": "hidden_field", "value": "", "cacheable": False},
    }


def _gpus(places: Sequence[Place]) -> Iterator[Option]:
    yield ["none", NO_GPU, {"data-hide-gpus": True, "data-set-gpus": 0, "data-min-gpus": 0}]
    titles = {gpu.name: gpu.title for place in places if place.partition for gpu in place.partition.gpu_types}
    for name, title in titles.items():
        data: dict[str, Any] = {
            f"data-option-for-{forms.PARTITION}-{token(place.value)}": False
            for place in places
            if name not in place.accelerators()
        }
        yield [forms.label(title or name), name, {**data, "data-min-gpus": 1}]


def _environments(catalog: Iterable[Environment], places: Sequence[Place]) -> list[Option]:
    """Return the options of the environments that some partition can use, each hidden for the others."""
    options: list[Option] = []
    gpu_types = list(dict.fromkeys(name for place in places for name in place.accelerators()))
    for environment in catalog:
        usable = [
            (place.value, gpu_type)
            for place in places
            for gpu_type, accelerator in place.accelerators().items()
            if jupyter_available.has_jupyter(environment, place.architecture, accelerator)
        ]
        if not usable:
            continue
        partitions, kinds = map(set, zip(*usable, strict=True))
        data = {
            f"data-option-for-{forms.PARTITION}-{token(place.value)}": False for place in places if place.value not in partitions
        }
        data |= {f"data-option-for-gpu-type-{token(name)}": False for name in gpu_types if name not in kinds}
        options.append([forms.label(environment.title), environment.name, data])
    return options


def submit(values: Mapping[str, str]) -> dict[str, Any]:
    """Prepare a session's folder and return the content of ``submit.yml``, as `apps.App.submit`."""
    place = sessions.place(values)
    gpu = _gpu_type(values, place)
    resources = _resources(values, place, gpu)
    options = sessions.options(resources, place.cluster)
    environment = environments.load().get(values.get("environment", ""))
    architecture = clusters.architecture_of(place.cluster, resources.partition)
    resolved = jupyter_available.resolve(environment, architecture, place.accelerators()[gpu])
    folder, origin = _folder(values.get("folder", "")), _origin(values.get("portal_origin", ""))
    session = {
        "environment": environment.name,
        "cluster": place.cluster.name,
        "site": str(settings.site_file()),
        "title": environment.title,
        "interface": sessions.one_of("interface", values.get("interface") or INTERFACES[0], INTERFACES),
        "folder": str(folder),
        "origin": origin,
        "cores": resources.cpus,
        "memory_mb": resources.memory,
        "time_s": resources.time,
    }
    with sessions.staged(values) as staged:
        _put(staged, place.cluster, resolved, folder, session)
    return sessions.submission(place, options, ["interface"])


def _gpu_type(values: Mapping[str, str], place: Place) -> str:
    gpu, known = values.get("gpu_type") or NO_GPU, place.accelerators()
    if gpu not in known:
        raise InvalidInput(
            f"there is no GPU of type {gpu[:80]!r} in {place.value.replace('--', ', partition ')}",
            hint=f"choose one of {', '.join(known)}",
        )
    return gpu


def _resources(values: Mapping[str, str], place: Place, gpu: str) -> Resources:
    gpus = 0 if gpu == NO_GPU else sessions.whole(values, "gpus", least=1)
    return sessions.resources(values, place, gpus=gpus, gpu_type=gpu)


def _folder(text: str) -> Path:
    try:
        folder = roots.default().resolve(text.strip(" ") or "~", base=Path.home())
    except UnicodeEncodeError:
        raise InvalidInput(
            "the folder's name contains half a character (a lone surrogate)", hint="choose another folder"
        ) from None
    if not folder.is_dir():
        raise InvalidInput(f"{text[:200]} is not a folder", hint="choose the folder in which Jupyter starts")
    environments.bind_options(folder)  # refuses a name that cannot be mounted
    if CONTROL.search(str(folder)):
        raise InvalidInput(f"the folder's name {str(folder)[:200]!r} contains control characters", hint="rename it")
    return folder


def _origin(sent: str) -> str:
    """Return the portal's origin, the only one whose pages Jupyter answers: the site's setting, else the form's address."""
    portal_url = settings.load().portal_url
    if portal_url:
        address = urlsplit(portal_url)
        return f"{address.scheme}://{address.netloc}"
    if not _ORIGIN.fullmatch(sent):
        raise InvalidInput(
            "the address of this portal is unknown",
            why="the form's own script did not run",
            hint="allow scripts and reload the page, or ask the site to set portal_url in the site file",
        )
    return sent


def _put(staged: Path, cluster: Cluster, resolved: ResolvedEnvironment, folder: Path, session: Mapping[str, Any]) -> None:
    """Write what the job starts into the session's folder."""
    words = ["python3", "-I", str(staged / NODE), str(staged)]
    home = Path.home()
    bound = [path for path in dict.fromkeys((home, folder, staged)) if path == home or not path.is_relative_to(home)]
    mounts = [
        Mount(source=str(mount.source), target=None if mount.target is None else str(mount.target), read_only=mount.read_only)
        for mount in cluster.mounts
    ]
    argv = environments.command(resolved, words, binds=[*bound, *mounts], cwd=folder)
    if resolved.kind == "local":
        variables = {**resolved.variables, "PYTHONNOUSERSITE": "1"}
        argv = ["/usr/bin/env", *(f"{name}={value}" for name, value in sorted(variables.items())), *argv]
    program = [path for path in importlib.resources.files(f"lossi.ood.{NODE}").iterdir() if path.name.endswith(".py")]
    for path in (staged / NODE, (staged / SHIM).parent):
        path.mkdir(mode=0o700, exist_ok=True)
    for name, data in (
        (COMMAND, b"".join(os.fsencode(word) + b"\0" for word in argv)),
        # Stops at the first line that fails.
        (SETUP, "".join(f"eval {shlex.quote(line)} || return\n" for line in cluster.setup).encode()),
        (SCRATCH, (cluster.scratch or "").encode()),
        (sessions.SESSION, json.dumps({**session, "kind": resolved.kind}).encode()),
        (status.FILE, status.waiting(session["title"]).encode()),
        *((f"{NODE}/{path.name}", path.read_bytes()) for path in program),
        (SHIM, importlib.resources.files("lossi.ood").joinpath("shim.py").read_bytes()),
        # If the node has it too, `lossi` works inside the session.
        (INTERPRETER, os.fsencode(sys.executable)),
    ):
        atomic.write(staged / name, data, mode=0o700 if name == SHIM else 0o600)

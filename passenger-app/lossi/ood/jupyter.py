"""The Jupyter app: its form from catalogue and site file, and what its job starts.

What is put into a session's folder holds the form's values apart from every script: the command as words with NUL between, the
site's set-up lines as they are, the rest as JSON.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lossi import clusters, environments, settings
from lossi.clusters import Cluster
from lossi.contract.records import ResolvedEnvironment
from lossi.environments import Environment, Mount
from lossi.errors import InvalidInput
from lossi.files import atomic, roots
from lossi.jobs import Resources
from lossi.ood import forms, node, sessions, usable
from lossi.ood.forms import NO_GPU, NOTHING, Option, Place, token

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
COMMAND, SETUP, SCRATCH, LAUNCHER = "words", "setup.sh", "scratch", "session.py"
SHIM, INTERPRETER = "bin/lossi", "interpreter"
"""What is put into the session's folder."""
INTERFACES = ("lab", "notebook")

_ORIGIN = re.compile(r"https?://[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252}[A-Za-z0-9])?(?::[0-9]{1,5})?")


def form() -> dict[str, Any]:
    """Return the form of this site as it is now; environments that can be used nowhere are left out."""
    offered, said = forms.offered()
    catalog = environments.load()
    said += [str(problem) for problem in catalog.problems]
    where = forms.places(offered)
    # Whoever installs has a catalogue too; everybody's own is added by the page (form.js).
    software = _environments([one for one in catalog.environments if one.source != "user"], where)
    if not offered:
        said.insert(0, f"{NOTHING}: no cluster is configured.")
    if not software:
        said.insert(0, f"{NOTHING}: no environment with JupyterLab is built here (lossi env list says why).")
    return forms.form(offered, FIELDS, _attributes(offered, where, software, said), said)


def _attributes(
    offered: Sequence[Cluster], where: Sequence[Place], software: list[Option], said: Sequence[str]
) -> dict[str, Any]:
    return {
        "environment": {
            "widget": "select",
            "label": "Environment",
            "help": forms.plain(" ".join(["Software in which notebooks run.", *said])),
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
        forms.PARTITION: forms.partition(where, FIELDS),
        "gpu_type": {"widget": "select", "label": "GPU", "options": list(_gpus(where))},
        "gpus": forms.number("Number of GPUs", 0, 0, forms.most((place.most_gpus for place in where), forms.MOST_GPUS)),
        **forms.amounts(where, cores=1, memory_gb=4, hours=2),
        "account": forms.account(offered),
        "portal_origin": {"widget": "hidden_field", "value": "", "cacheable": False},
    }


def _gpus(where: Sequence[Place]) -> Iterator[Option]:
    yield ["none", NO_GPU, {"data-hide-gpus": True, "data-set-gpus": 0, "data-min-gpus": 0}]
    titles = {gpu.name: gpu.title for place in where if place.partition for gpu in place.partition.gpu_types}
    for name, title in titles.items():
        data: dict[str, Any] = {
            f"data-option-for-{forms.PARTITION}-{token(place.value)}": False
            for place in where
            if name not in place.accelerators()
        }
        yield [forms.label(title or name), name, {**data, "data-min-gpus": 1}]


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
            f"data-option-for-{forms.PARTITION}-{token(place.value)}": False
            for place in where
            if not any(value == place.value for value, _ in good)
        }
        data |= {f"data-option-for-gpu-type-{token(kind)}": False for kind in kinds if not any(name == kind for _, name in good)}
        found.append([forms.label(environment.title), environment.name, data])
    return found


def submit(values: Mapping[str, str]) -> dict[str, Any]:
    """Prepare the folder of a session and return what ``submit.yml`` is to say.

    Parameters
    ----------
    values
        The form's fields by name, as texts, and ``staged_root``, the session's folder.

    Raises
    ------
    LossiError
        For whatever cannot be; says what to change.
    """
    place = sessions.place(values)
    gpu = _gpu_type(values, place)
    asked = _resources(values, place, gpu)
    request = sessions.request(asked, place.cluster)
    environment = environments.load().get(values.get("environment", ""))
    architecture = clusters.architecture_of(place.cluster, asked.partition)
    resolved = usable.resolve(environment, architecture, place.accelerators()[gpu])
    folder, origin = _folder(values.get("folder", "")), _origin(values.get("portal_origin", ""))
    session = {
        "environment": environment.name,
        "cluster": place.cluster.name,
        "site": str(settings.site_file()),
        "title": environment.title,
        "interface": sessions.one_of("interface", values.get("interface") or INTERFACES[0], INTERFACES),
        "folder": str(folder),
        "origin": origin,
        "cores": asked.cpus,
        "memory_mb": asked.memory,
        "time_s": asked.time,
    }
    with sessions.staged(values) as staged:
        _put(staged, place.cluster, resolved, folder, session)
    return sessions.submission(place, asked, request, ["interface"])


def _gpu_type(values: Mapping[str, str], place: Place) -> str:
    gpu, kinds = values.get("gpu_type") or NO_GPU, place.accelerators()
    if gpu not in kinds:
        raise InvalidInput(
            f"there is no GPU of type {gpu[:80]!r} in {place.value.replace('--', ', partition ')}",
            hint=f"choose one of {', '.join(kinds)}",
        )
    return gpu


def _resources(values: Mapping[str, str], place: Place, gpu: str) -> Resources:
    gpus = 0 if gpu == NO_GPU else sessions.whole(values, "gpus", least=1)
    return sessions.resources(values, place, gpus=gpus, gpu_type=gpu)


def _folder(text: str) -> Path:
    try:
        found = roots.default().resolve(text.strip(" ") or "~", base=Path.home())
    except UnicodeEncodeError:
        raise InvalidInput("the folder's name holds half a character (a lone surrogate)", hint="choose another folder") from None
    if not found.is_dir():
        raise InvalidInput(f"{text[:200]} is no folder", hint="choose a folder in which Jupyter is to start")
    environments.bind_options(found)  # a name that no container can have is refused
    if sessions.CONTROL.search(str(found)):
        raise InvalidInput(f"the folder's name {str(found)[:200]!r} holds control characters", hint="rename it")
    return found


def _origin(sent: str) -> str:
    """Return the portal's origin, the only one whose pages Jupyter answers: the site's word, or where the form was shown."""
    told = settings.load().portal_url
    if told:
        parts = urlsplit(told)
        return f"{parts.scheme}://{parts.netloc}"
    if not _ORIGIN.fullmatch(sent):
        raise InvalidInput(
            "the address of this portal is not known",
            why="the form's own script did not run",
            hint="allow scripts and reload the page; or the site sets portal_url in its site file",
        )
    return sent


def _put(staged: Path, cluster: Cluster, resolved: ResolvedEnvironment, folder: Path, session: Mapping[str, Any]) -> None:
    """Write what the job starts; nobody else can read the folder."""
    words = ["python3", "-I", str(staged / LAUNCHER), str(staged)]
    home = Path.home()
    shown = [place for place in dict.fromkeys((home, folder, staged)) if place == home or not place.is_relative_to(home)]
    mounts = [
        Mount(source=str(one.source), target=None if one.target is None else str(one.target), read_only=one.read_only)
        for one in cluster.mounts
    ]
    argv = environments.command(resolved, words, binds=[*shown, *mounts], cwd=folder)
    if resolved.kind == "local":
        variables = {**resolved.variables, "PYTHONNOUSERSITE": "1"}
        argv = ["/usr/bin/env", *(f"{name}={value}" for name, value in sorted(variables.items())), *argv]
    kind = {**session, "kind": resolved.kind}
    room = resources.files("lossi.ood")
    (staged / SHIM).parent.mkdir(mode=0o700, exist_ok=True)
    for name, data in (
        (COMMAND, b"".join(os.fsencode(word) + b"\0" for word in argv)),
        # The first that fails is the last.
        (SETUP, "".join(f"eval {shlex.quote(line)} || return\n" for line in cluster.setup).encode()),
        (SCRATCH, (cluster.scratch or "").encode()),
        (sessions.SESSION, json.dumps(kind).encode()),
        (node.STATUS, node.waiting(session["title"]).encode()),
        (LAUNCHER, room.joinpath("node.py").read_bytes()),
        (node.CONFIG, room.joinpath("jupyter_config.py").read_bytes()),
        (SHIM, room.joinpath("shim.py").read_bytes()),
        # Where the node has it too, `lossi` works inside the session.
        (INTERPRETER, os.fsencode(sys.executable)),
    ):
        atomic.write(staged / name, data, mode=0o700 if name == SHIM else 0o600)

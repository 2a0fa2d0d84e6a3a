"""From what the Jupyter app's form sent to a job: everything is checked here, whatever the page offered.

Open OnDemand asks before it fills the session's folder; what the job starts is put there first, so that no value of the form ever
stands in a script: the command as words with NUL between, the site's set-up lines as they are, the rest as JSON.
"""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import sys
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from lossi import clusters, environments, settings
from lossi.clusters import Cluster, OfferedPartition
from lossi.environments import Mount
from lossi.errors import InvalidInput, LossiError, did_you_mean
from lossi.files import atomic, roots
from lossi.jobs.resources import Resources, parse_time
from lossi.jobs.schedulers.slurm import limits
from lossi.jobs.schedulers.slurm.directives import option_list
from lossi.jobs.schedulers.slurm.finding import Known
from lossi.jobs.schedulers.slurm.request import SlurmRequest
from lossi.ood import forms, usable
from lossi.runner.records import ResolvedEnvironment

COMMAND, SETUP, SCRATCH, SESSION, LAUNCHER = "words", "setup.sh", "scratch", "session.json", "session.py"
SHIM, INTERPRETER = "bin/lossi", "interpreter"
"""What is put into the session's folder."""
INTERFACES = ("lab", "notebook")

_OOD_SAYS = ("--job-name=", "--partition=", "--account=", "--time=", "--open-mode=", "--export=")
"""Options that Open OnDemand has names of its own for."""
_ORIGIN = re.compile(r"https?://[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252}[A-Za-z0-9])?(?::[0-9]{1,5})?")
_NUMBER = re.compile(r"[0-9]{1,6}")


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
    place = _place(values)
    asked = _resources(values, place)
    request = _request(asked, place.cluster)
    limits.raise_refused(limits.findings(request, 1, Known(place.cluster)))
    environment = environments.load().get(values.get("environment", ""))
    gpu = values.get("gpu_type") or forms.NO_GPU
    accelerator = place.accelerators()[gpu if asked.gpus else forms.NO_GPU]
    resolved = usable.resolve(environment, clusters.architecture_of(place.cluster, asked.partition), accelerator)
    folder, origin = _folder(values.get("folder", "")), _origin(values.get("portal_origin", ""))
    interface = _one_of("interface", values.get("interface") or INTERFACES[0], INTERFACES)
    session = {
        "environment": environment.name,
        "cluster": place.cluster.name,
        "site": str(settings.site_file()),
        "title": environment.title,
        "interface": interface,
        "folder": str(folder),
        "origin": origin,
        "cores": asked.cpus,
        "memory_mb": asked.memory,
    }
    _put(_staged(values), place.cluster, resolved, folder, session)
    script: dict[str, Any] = {"native": [one for one in option_list(request) if not one.startswith(_OOD_SAYS)]}
    for name, value in (("queue_name", request.partition), ("accounting_id", request.account), ("wall_time", asked.time)):
        if value is not None:
            script[name] = value
    return {
        "cluster": place.cluster.name,
        "batch_connect": {"template": "basic", "conn_params": ["interface"]},
        "script": script,
    }


def _place(values: Mapping[str, str]) -> forms.Place:
    cluster = clusters.load().get(values.get("cluster", ""))
    known = {place.value: place for place in forms.places([cluster])}
    found = known.get(values.get("partition", ""))
    if found is None:
        asked = values.get("partition", "").removeprefix(f"{cluster.name}--")
        names = [one.name for one in cluster.partitions] or ["default"]
        raise InvalidInput(
            f"partition {asked[:80]!r} is not offered on {cluster.name}",
            hint=did_you_mean(asked, names) or f"choose one of {', '.join(names)}",
        )
    return found


def _resources(values: Mapping[str, str], place: forms.Place) -> Resources:
    gpu = values.get("gpu_type") or forms.NO_GPU
    kinds = place.accelerators()
    if gpu not in kinds:
        raise InvalidInput(
            f"there is no GPU of type {gpu[:80]!r} in {place.value.replace('--', ', partition ')}",
            hint=f"choose one of {', '.join(kinds)}",
        )
    gpus = 0 if gpu == forms.NO_GPU else _whole(values, "gpus", least=1)
    policy, account = place.cluster.account, values.get("account", "").strip()
    account = account or policy.default or ""
    if not account and policy.required:
        raise InvalidInput("no account is named", hint=f"{place.cluster.name} needs one: name the project that pays")
    if account and policy.pattern and not re.fullmatch(policy.pattern, account):
        raise InvalidInput(
            f"account {account[:80]!r} is none of {place.cluster.name}", hint=f"its accounts look like {policy.pattern}"
        )
    try:
        return Resources(
            cpus=_whole(values, "cores", least=1),
            memory=_whole(values, "memory_gb", least=1) * 1024,
            gpus=gpus,
            gpu_type=gpu if gpus else None,
            time=_seconds(_whole(values, "hours", least=1), place.partition),
            partition=place.partition.name if place.partition else place.cluster.default_partition,
            account=account or None,
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidInput(f"{first['loc'][0]} cannot be {str(first['input'])[:80]!r}", why=first["msg"]) from None


def _seconds(hours: int, partition: OfferedPartition | None) -> int:
    most = parse_time(partition.max_time) if partition and partition.max_time else None
    # The shortest session is an hour, also where the partition gives less.
    return most if most is not None and hours == 1 and most < 3600 else hours * 3600


def _whole(values: Mapping[str, str], name: str, *, least: int) -> int:
    text = values.get(name, "").strip()
    if not _NUMBER.fullmatch(text) or int(text) < least:
        raise InvalidInput(
            f"{name.replace('_', ' ')} cannot be {text[:80]!r}", hint=f"write a whole number from {least} to 999999"
        )
    return int(text)


def _one_of(name: str, value: str, known: tuple[str, ...]) -> str:
    if value not in known:
        raise InvalidInput(f"{name} cannot be {value[:80]!r}", hint=f"choose one of {', '.join(known)}")
    return value


def _request(asked: Resources, cluster: Cluster) -> SlurmRequest:
    nowhere = Path()
    return SlurmRequest(
        name="",
        script=nowhere,
        directory=nowhere,
        output=nowhere,
        cpus=asked.cpus,
        memory_mb=asked.memory,
        gpus=asked.gpus,
        gpu_type=asked.gpu_type,
        gpu_option=cluster.gpu_option,
        time_limit_min=None if asked.time is None else math.ceil(asked.time / 60),
        partition=asked.partition,
        account=asked.account,
        requeue=False,
        options=cluster.options,
    )


def _folder(text: str) -> Path:
    try:
        found = roots.default().resolve(text.strip(" ") or "~", base=Path.home())
    except UnicodeEncodeError:
        raise InvalidInput("the folder's name holds half a character (a lone surrogate)", hint="choose another folder") from None
    if not found.is_dir():
        raise InvalidInput(f"{text[:200]} is no folder", hint="choose a folder in which Jupyter is to start")
    environments.bind_options(found)  # a name that no container can have is refused
    if re.search(r"[\x00-\x1f\x7f]", str(found)):
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


def _staged(values: Mapping[str, str]) -> Path:
    text = values.get("staged_root", "")
    if not text.startswith("/") or re.search(r"[\x00-\x1f\x7f]", text):
        raise LossiError("Open OnDemand names no folder for this session", hint="tell your site's support")
    return Path(text)


def _put(staged: Path, cluster: Cluster, resolved: ResolvedEnvironment, folder: Path, session: Mapping[str, Any]) -> None:
    """Write what the job starts; nobody else can read the folder."""
    staged.mkdir(mode=0o700, parents=True, exist_ok=True)
    staged.chmod(0o700)
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
        (SESSION, json.dumps(kind).encode()),
        (LAUNCHER, room.joinpath("node.py").read_bytes()),
        (SHIM, room.joinpath("shim.py").read_bytes()),
        # Where the node has it too, `lossi` works inside the session.
        (INTERPRETER, os.fsencode(sys.executable)),
    ):
        atomic.write(staged / name, data, mode=0o700 if name == SHIM else 0o600)

"""From what a form sent to a job: what all apps check in the same way, whatever the page offered.

Open OnDemand asks before it fills the session's folder; what the job starts is put there first (`jupyter`, `mlflow_session`), so
that no value of the form ever stands in a script.
"""

from __future__ import annotations

import contextlib
import math
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lossi import clusters
from lossi.clusters import Cluster, OfferedPartition
from lossi.errors import InvalidInput, LossiError, did_you_mean
from lossi.files import atomic
from lossi.jobs import Resources, parse_time
from lossi.jobs.schedulers.slurm.directives import option_list
from lossi.jobs.schedulers.slurm.preflight import limits
from lossi.jobs.schedulers.slurm.preflight.findings import Known
from lossi.jobs.schedulers.slurm.request import SlurmRequest
from lossi.ood import forms

SESSION = "session.json"
"""The session's own values, in its folder."""
CONTROL = re.compile(r"[\x00-\x1f\x7f]")

_OOD_SAYS = ("--job-name=", "--partition=", "--account=", "--time=", "--open-mode=", "--export=")
"""Options that Open OnDemand has names of its own for."""
_NUMBER = re.compile(r"[0-9]{1,6}")


def place(values: Mapping[str, str]) -> forms.Place:
    """Return the partition that was chosen.

    Raises
    ------
    NotFound, InvalidInput
        When the cluster or the partition is not offered.
    """
    cluster = clusters.load().get(values.get("cluster", ""))
    known = {one.value: one for one in forms.places([cluster])}
    found = known.get(values.get(forms.PARTITION, ""))
    if found is None:
        asked = values.get(forms.PARTITION, "").removeprefix(f"{cluster.name}--")
        names = [one.name for one in cluster.partitions] or ["default"]
        raise InvalidInput(
            f"partition {asked[:80]!r} is not offered on {cluster.name}",
            hint=did_you_mean(asked, names) or f"choose one of {', '.join(names)}",
        )
    return found


def resources(values: Mapping[str, str], where: forms.Place, *, gpus: int = 0, gpu_type: str | None = None) -> Resources:
    """Return what is asked for, by the fields ``cores``, ``memory_gb``, ``hours`` and ``account``.

    Raises
    ------
    InvalidInput
        When one of them cannot be, or the cluster's rule for accounts is not met.
    """
    policy, account = where.cluster.account, values.get("account", "").strip()
    account = account or policy.default or ""
    if not account and policy.required:
        raise InvalidInput("no account is named", hint=f"{where.cluster.name} needs one: name the project that pays")
    if account and policy.pattern and not re.fullmatch(policy.pattern, account):
        raise InvalidInput(
            f"account {account[:80]!r} is none of {where.cluster.name}", hint=f"its accounts look like {policy.pattern}"
        )
    try:
        return Resources(
            cpus=whole(values, "cores", least=1),
            memory=whole(values, "memory_gb", least=1) * 1024,
            gpus=gpus,
            gpu_type=gpu_type if gpus else None,
            time=_seconds(whole(values, "hours", least=1), where.partition),
            partition=where.partition.name if where.partition else where.cluster.default_partition,
            account=account or None,
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise InvalidInput(f"{first['loc'][0]} cannot be {str(first['input'])[:80]!r}", why=first["msg"]) from None


def _seconds(hours: int, partition: OfferedPartition | None) -> int:
    most = parse_time(partition.max_time) if partition and partition.max_time else None
    # The shortest session is an hour, also where the partition gives less.
    return most if most is not None and hours == 1 and most < 3600 else hours * 3600


def whole(values: Mapping[str, str], name: str, *, least: int) -> int:
    """Return the whole number in a field.

    Raises
    ------
    InvalidInput
        When it is none, or less than ``least``.
    """
    text = values.get(name, "").strip()
    if not _NUMBER.fullmatch(text) or int(text) < least:
        raise InvalidInput(
            f"{name.replace('_', ' ')} cannot be {text[:80]!r}", hint=f"write a whole number from {least} to 999999"
        )
    return int(text)


def one_of(name: str, value: str, known: tuple[str, ...]) -> str:
    """Return a value that must be one of some.

    Raises
    ------
    InvalidInput
        When it is not.
    """
    if value not in known:
        raise InvalidInput(f"{name} cannot be {value[:80]!r}", hint=f"choose one of {', '.join(known)}")
    return value


def request(asked: Resources, cluster: Cluster) -> SlurmRequest:
    """Return what Slurm is asked for, held against the limits of the cluster.

    Raises
    ------
    Forbidden, InvalidInput
        When the cluster would never start it.
    """
    nowhere = Path()
    found = SlurmRequest(
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
    limits.raise_refused(limits.findings(found, 1, Known(cluster)))
    return found


def submission(where: forms.Place, asked: Resources, wanted: SlurmRequest, shown: Sequence[str]) -> dict[str, Any]:
    """Return what ``submit.yml`` is to say; ``shown`` are variables of the job script that the card knows, besides host and port."""
    script: dict[str, Any] = {"native": [one for one in option_list(wanted) if not one.startswith(_OOD_SAYS)]}
    for name, value in (("queue_name", wanted.partition), ("accounting_id", wanted.account), ("wall_time", asked.time)):
        if value is not None:
            script[name] = value
    return {
        "cluster": where.cluster.name,
        "batch_connect": {"template": "basic", "conn_params": list(shown)},
        "script": script,
    }


@contextlib.contextmanager
def staged(values: Mapping[str, str]) -> Iterator[Path]:
    """Make the session's folder so that nobody else can look into it; it is gone again when the block fails.

    Raises
    ------
    LossiError
        When Open OnDemand names none, or it cannot be made.
    """
    text = values.get("staged_root", "")
    if not text.startswith("/") or CONTROL.search(text):
        raise LossiError("Open OnDemand names no folder for this session", hint="tell your site's support")
    folder = Path(text)
    new = not folder.exists()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        yield folder
    except (LossiError, OSError) as error:
        if new:
            shutil.rmtree(folder, ignore_errors=True)
        raise atomic.explained(error, folder) if isinstance(error, OSError) else error from None

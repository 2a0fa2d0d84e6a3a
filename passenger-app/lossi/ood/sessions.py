"""From a form's values to a job: the checks that all apps share. The values are checked whatever the page offered.

Open OnDemand asks before it fills the session's folder; `jupyter` and `mlflow_session` put there what the job starts, so that no
value of the form is ever part of a script.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lossi import clusters, units
from lossi.clusters import Cluster, OfferedPartition
from lossi.contract.text import CONTROL
from lossi.errors import InvalidInput, LossiError, did_you_mean
from lossi.files import atomic
from lossi.jobs import Resources, schedulers
from lossi.jobs.schedulers import SessionOptions
from lossi.ood import forms

SESSION = "session.json"
"""The session's own values, in its folder."""

_NUMBER = re.compile(r"[0-9]{1,6}")


def place(values: Mapping[str, str]) -> forms.Place:
    """Return the chosen partition.

    Raises
    ------
    NotFound, InvalidInput
        If the cluster or the partition is not offered.
    """
    cluster = clusters.load().get(values.get("cluster", ""))
    by_value = {offered.value: offered for offered in forms.places([cluster])}
    value = values.get(forms.PARTITION, "")
    if value not in by_value:
        name = value.removeprefix(f"{cluster.name}--")
        names = [partition.name for partition in cluster.partitions] or ["default"]
        raise InvalidInput(
            f"partition {name[:80]!r} is not offered on {cluster.name}",
            hint=did_you_mean(name, names) or f"choose one of {', '.join(names)}",
        )
    return by_value[value]


def resources(values: Mapping[str, str], where: forms.Place, *, gpus: int = 0, gpu_type: str | None = None) -> Resources:
    """Return the resources in the fields ``cores``, ``memory_gb``, ``hours`` and ``account``.

    Raises
    ------
    InvalidInput
        If a field is not valid, or the account breaks the cluster's rule.
    """
    policy = where.cluster.account
    account = values.get("account", "").strip() or policy.default or ""
    if not account and policy.required:
        raise InvalidInput("no account was given", hint=f"{where.cluster.name} needs one: enter the project that pays")
    if account and policy.pattern and not re.fullmatch(policy.pattern, account):
        raise InvalidInput(
            f"account {account[:80]!r} is not valid on {where.cluster.name}", hint=f"its accounts look like {policy.pattern}"
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
    limit = units.parse_time(partition.max_time) if partition and partition.max_time else None
    # The form's least is an hour, even if the partition allows less.
    return limit if limit is not None and hours == 1 and limit < 3600 else hours * 3600


def whole(values: Mapping[str, str], name: str, *, least: int) -> int:
    """Return the whole number in a field.

    Raises
    ------
    InvalidInput
        If it is not one, or is less than ``least``.
    """
    text = values.get(name, "").strip()
    if not _NUMBER.fullmatch(text) or int(text) < least:
        raise InvalidInput(
            f"{name.replace('_', ' ')} cannot be {text[:80]!r}", hint=f"enter a whole number from {least} to 999999"
        )
    return int(text)


def one_of(name: str, value: str, known: tuple[str, ...]) -> str:
    """Return ``value``, which must be in ``known``.

    Raises
    ------
    InvalidInput
        If it is not.
    """
    if value not in known:
        raise InvalidInput(f"{name} cannot be {value[:80]!r}", hint=f"choose one of {', '.join(known)}")
    return value


def options(requested: Resources, cluster: Cluster) -> SessionOptions:
    """Return the scheduler's options for a session, checked against the cluster's limits.

    Raises
    ------
    Forbidden, InvalidInput
        If the cluster would never start it.
    """
    return schedulers.of_cluster(cluster).session_options(requested.record())


def submission(where: forms.Place, chosen: SessionOptions, params: Sequence[str]) -> dict[str, Any]:
    """Return the content of ``submit.yml``; ``params`` are variables of the job script for the card, besides host and port."""
    script: dict[str, Any] = {"native": chosen.native}
    for name, value in (("queue_name", chosen.partition), ("accounting_id", chosen.account), ("wall_time", chosen.time_s)):
        if value is not None:
            script[name] = value
    return {
        "cluster": where.cluster.name,
        "batch_connect": {"template": "basic", "conn_params": list(params)},
        "script": script,
    }


@contextlib.contextmanager
def staged(values: Mapping[str, str]) -> Iterator[Path]:
    """Make the session's folder, closed to other users; it is removed if the block fails.

    Raises
    ------
    LossiError
        If Open OnDemand names no folder, or it cannot be made.
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

"""The doctor's checks of a Slurm cluster: whether it answers, and has what the site file offers."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator

from lossi.clusters import Cluster
from lossi.errors import InvalidInput
from lossi.jobs.schedulers.slurm import client as clients
from lossi.jobs.schedulers.slurm.client import SlurmClient
from lossi.jobs.schedulers.slurm.records import Configuration
from lossi.jobs.schedulers.system import ClusterCheck

NEEDED = ("sbatch", "squeue", "scontrol", "scancel", "sinfo")
ACCOUNTING = ("sacct", "sacctmgr")
OLDEST, NEWEST = (20, 11), (26, 5)
"""Supported versions of Slurm."""


def check(cluster: Cluster) -> Iterator[ClusterCheck]:
    """Check a cluster; asks it a few short questions, each with a deadline.

    Raises
    ------
    LossiError
        If it does not answer.
    """
    missing = _missing_commands(cluster)
    if missing:
        hint = "install Slurm's client commands, or set `bin` or `bin_overrides` in the site file"
        yield ClusterCheck("", "error", f"{', '.join(missing)} not found", hint)
        return
    client = clients.of_cluster(cluster)
    began = time.monotonic()
    configuration = client.configuration()
    yield _answer(cluster, configuration, time.monotonic() - began)
    yield from _accounting(cluster, configuration)
    yield from _partitions(cluster, client)
    yield from _gpus(cluster, client)
    yield from _accounts(cluster, client, configuration)


def _missing_commands(cluster: Cluster) -> list[str]:
    """Return the missing commands, if this machine is the one that runs them."""
    if cluster.scheduler != "slurm_cli":
        return []
    if cluster.submit_host:
        return [] if shutil.which(cluster.command("ssh")) or shutil.which("ssh") else ["ssh"]
    return [name for name in NEEDED if shutil.which(cluster.command(name)) is None]


def _answer(cluster: Cluster, configuration: Configuration, seconds: float) -> ClusterCheck:
    detail = f"{cluster.scheduler}: Slurm {configuration.version or '(unknown version)'} answers in {seconds * 1000:.0f} ms"
    version = tuple(int(part) for part in re.findall(r"\d+", configuration.version)[:2])
    if len(version) == 2 and not OLDEST <= version <= NEWEST:
        known = " to ".join(f"{year}.{month:02}" for year, month in (OLDEST, NEWEST))
        return ClusterCheck("", "warning", detail, f"Lossi supports {known}: try a small sweep before offering it to users")
    if seconds > cluster.deadline_s / 2:
        hint = f"find out why: after `deadline_s` ({cluster.deadline_s:g} s) Lossi shows old data"
        return ClusterCheck("", "warning", detail, hint)
    return ClusterCheck("", "ok", detail)


def _accounting(cluster: Cluster, configuration: Configuration) -> Iterator[ClusterCheck]:
    topic = "accounting"
    if not configuration.accounting:
        yield ClusterCheck(
            topic, "ok", "none: the state of ended jobs comes from their exit records; no hours, billing or energy are shown"
        )
        return
    missing = []
    if cluster.scheduler == "slurm_cli" and not cluster.submit_host:
        missing = [name for name in ACCOUNTING if shutil.which(cluster.command(name)) is None]
    if missing:
        yield ClusterCheck(topic, "warning", f"on, but {', '.join(missing)} not found", "install it, or set `bin_overrides`")
    else:
        yield ClusterCheck(
            topic, "ok", f"on{', enforced: ' + ', '.join(configuration.enforced) if configuration.enforced else ''}"
        )


def _partitions(cluster: Cluster, client: SlurmClient) -> Iterator[ClusterCheck]:
    topic = "partitions"
    rows = {row.name: row for row in client.partitions()}
    names = [partition.name for partition in cluster.partitions] or list(rows)
    named = [*names, *([cluster.default_partition] if cluster.default_partition else [])]
    missing = sorted({name for name in named if name not in rows})
    down = [name for name in names if name in rows and rows[name].state != "UP"]
    if missing:
        hint = f"correct them in the site file; the scheduler has {', '.join(rows) or 'none that you may see'}"
        yield ClusterCheck(topic, "error", f"the scheduler has no {', '.join(missing)}", hint)
    if down:
        yield ClusterCheck(topic, "warning", f"not up: {', '.join(down)}", "bring them up, or remove them from the site file")
    if not missing and not down:
        yield ClusterCheck(topic, "ok", f"{', '.join(names)}{'' if cluster.partitions else ' (all of the scheduler)'}")


def _gpus(cluster: Cluster, client: SlurmClient) -> Iterator[ClusterCheck]:
    if not any(partition.gpu_types for partition in cluster.partitions):
        return
    topic = "GPU types"
    gpus: dict[str, set[str]] = {}
    for group in client.nodes():
        gpus.setdefault(group.partition, set()).update(group.gpus)
    missing = [
        f"{gpu.name} in {partition.name}"
        for partition in cluster.partitions
        if partition.name in gpus
        for gpu in partition.gpu_types
        if gpu.name not in gpus[partition.name]
    ]
    if missing:
        known = "; ".join(
            f"{partition.name}: {', '.join(sorted(kind or 'untyped' for kind in gpus.get(partition.name, ()))) or 'none'}"
            for partition in cluster.partitions
            if partition.gpu_types
        )
        hint = f"correct them in the site file; the nodes have {known}"
        yield ClusterCheck(topic, "error", f"the nodes have no {', '.join(missing)}", hint)
    else:
        yield ClusterCheck(topic, "ok", "the nodes have all that the site file names")


def _accounts(cluster: Cluster, client: SlurmClient, configuration: Configuration) -> Iterator[ClusterCheck]:
    topic = "account"
    policy = cluster.account
    try:
        accounts = sorted({association.account for association in client.associations()}) if configuration.accounting else []
    except InvalidInput as error:
        yield ClusterCheck(topic, "warning", f"{error.what}{': ' + error.why if error.why else ''}", error.hint)
        return
    if not accounts:
        enforced = "associations" in configuration.enforced
        detail = "you may not charge any account" if enforced else "the scheduler has none for you"
        needed = enforced or policy.required
        yield ClusterCheck(topic, "warning" if needed else "ok", detail, "ask for an account before submitting" if needed else "")
        return
    valid = [name for name in accounts if not policy.pattern or re.fullmatch(policy.pattern, name)]
    if not valid:
        detail = f"none of yours ({', '.join(accounts)}) matches the site's pattern"
        hint = f"correct `pattern` in the site file (it is {policy.pattern}), or ask for a matching account"
        yield ClusterCheck(topic, "warning", detail, hint)
    elif policy.default and policy.default not in accounts:
        detail = f"the site's default {policy.default} is not one of yours"
        yield ClusterCheck(topic, "warning", detail, f"choose one of {', '.join(valid)}")
    else:
        rule = "you must name one; " if policy.required and not policy.default else ""
        yield ClusterCheck(topic, "ok", f"{rule}you may charge {', '.join(valid)}")

"""The doctor's checks of clusters: whether each answers, and has what the site file offers."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from lossi.cli.doctor.finding import Finding, failed
from lossi.errors import InvalidInput, LossiError

if TYPE_CHECKING:
    from lossi.clusters import Cluster
    from lossi.jobs.schedulers.slurm.client import SlurmClient
    from lossi.jobs.schedulers.slurm.records import Configuration

NEEDED = ("sbatch", "squeue", "scontrol", "scancel", "sinfo")
ACCOUNTING = ("sacct", "sacctmgr")
OLDEST, NEWEST = (20, 11), (26, 5)
"""Supported versions of Slurm."""


def findings() -> Iterator[Finding]:
    """Check each cluster of this user; asks the scheduler a few short questions, each with a deadline."""
    from lossi import clusters

    known = clusters.load()
    for problem in known.problems:
        level = "ok" if problem.level == "note" else "error"
        yield Finding("clusters", level, str(problem), problem.hint and "correct that entry")
    if not known.clusters and not known.problems:
        yield Finding("clusters", "ok", "none is configured, and sbatch is not on PATH")
    for cluster in known.clusters:
        try:
            yield from _cluster(cluster)
        except LossiError as error:
            yield failed(f"cluster {cluster.name}", error, "check whether its daemons run, then try again")


def _cluster(cluster: Cluster) -> Iterator[Finding]:
    from lossi.jobs import schedulers

    missing = _missing_commands(cluster)
    if missing:
        yield Finding(
            f"cluster {cluster.name}",
            "error",
            f"{', '.join(missing)} not found",
            "install Slurm's client commands, or set `bin` or `bin_overrides` in the site file",
        )
        return
    client = schedulers.client_of(cluster)
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


def _answer(cluster: Cluster, configuration: Configuration, seconds: float) -> Finding:
    what = f"cluster {cluster.name}"
    detail = f"{cluster.scheduler}: Slurm {configuration.version or '(unknown version)'} answers in {seconds * 1000:.0f} ms"
    version = tuple(int(part) for part in re.findall(r"\d+", configuration.version)[:2])
    if len(version) == 2 and not OLDEST <= version <= NEWEST:
        known = " to ".join(f"{year}.{month:02}" for year, month in (OLDEST, NEWEST))
        return Finding(what, "warning", detail, f"Lossi supports {known}: try a small sweep before offering it to users")
    if seconds > cluster.deadline_s / 2:
        remedy = f"find out why: after `deadline_s` ({cluster.deadline_s:g} s) Lossi shows old data"
        return Finding(what, "warning", detail, remedy)
    return Finding(what, "ok", detail)


def _accounting(cluster: Cluster, configuration: Configuration) -> Iterator[Finding]:
    what = f"cluster {cluster.name}: accounting"
    if not configuration.accounting:
        yield Finding(
            what, "ok", "none: the state of ended jobs comes from their exit records; no hours, billing or energy are shown"
        )
        return
    missing = []
    if cluster.scheduler == "slurm_cli" and not cluster.submit_host:
        missing = [name for name in ACCOUNTING if shutil.which(cluster.command(name)) is None]
    if missing:
        yield Finding(what, "warning", f"on, but {', '.join(missing)} not found", "install it, or set `bin_overrides`")
    else:
        yield Finding(what, "ok", f"on{', enforced: ' + ', '.join(configuration.enforced) if configuration.enforced else ''}")


def _partitions(cluster: Cluster, client: SlurmClient) -> Iterator[Finding]:
    what = f"cluster {cluster.name}: partitions"
    rows = {row.name: row for row in client.partitions()}
    names = [partition.name for partition in cluster.partitions] or list(rows)
    named = [*names, *([cluster.default_partition] if cluster.default_partition else [])]
    missing = sorted({name for name in named if name not in rows})
    down = [name for name in names if name in rows and rows[name].state != "UP"]
    if missing:
        remedy = f"correct them in the site file; the scheduler has {', '.join(rows) or 'none that you may see'}"
        yield Finding(what, "error", f"the scheduler has no {', '.join(missing)}", remedy)
    if down:
        yield Finding(what, "warning", f"not up: {', '.join(down)}", "bring them up, or remove them from the site file")
    if not missing and not down:
        yield Finding(what, "ok", f"{', '.join(names)}{'' if cluster.partitions else ' (all of the scheduler)'}")


def _gpus(cluster: Cluster, client: SlurmClient) -> Iterator[Finding]:
    if not any(partition.gpu_types for partition in cluster.partitions):
        return
    what = f"cluster {cluster.name}: GPU types"
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
        remedy = f"correct them in the site file; the nodes have {known}"
        yield Finding(what, "error", f"the nodes have no {', '.join(missing)}", remedy)
    else:
        yield Finding(what, "ok", "the nodes have all that the site file names")


def _accounts(cluster: Cluster, client: SlurmClient, configuration: Configuration) -> Iterator[Finding]:
    what = f"cluster {cluster.name}: account"
    policy = cluster.account
    try:
        accounts = sorted({association.account for association in client.associations()}) if configuration.accounting else []
    except InvalidInput as error:
        yield failed(what, error, level="warning")
        return
    if not accounts:
        enforced = "associations" in configuration.enforced
        detail = "you may not charge any account" if enforced else "the scheduler has none for you"
        needed = enforced or policy.required
        yield Finding(what, "warning" if needed else "ok", detail, "ask for an account before submitting" if needed else "")
        return
    valid = [name for name in accounts if not policy.pattern or re.fullmatch(policy.pattern, name)]
    if not valid:
        detail = f"none of yours ({', '.join(accounts)}) matches the site's pattern"
        remedy = f"correct `pattern` in the site file (it is {policy.pattern}), or ask for a matching account"
        yield Finding(what, "warning", detail, remedy)
    elif policy.default and policy.default not in accounts:
        detail = f"the site's default {policy.default} is not one of yours"
        yield Finding(what, "warning", detail, f"choose one of {', '.join(valid)}")
    else:
        rule = "you must name one; " if policy.required and not policy.default else ""
        yield Finding(what, "ok", f"{rule}you may charge {', '.join(valid)}")

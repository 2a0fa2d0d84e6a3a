"""The doctor's look at clusters: whether each can be reached, and whether what the site file offers is there."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from lossi.cli.finding import Finding
from lossi.errors import InvalidInput, LossiError

if TYPE_CHECKING:
    from lossi.clusters import Cluster
    from lossi.jobs.schedulers.slurm.client import SlurmClient
    from lossi.jobs.schedulers.slurm.records import Configuration

NEEDED = ("sbatch", "squeue", "scontrol", "scancel", "sinfo")
OF_ACCOUNTING = ("sacct", "sacctmgr")
OLDEST, NEWEST = (20, 11), (26, 5)
"""Versions of Slurm that the adapters are made for."""


def findings() -> Iterator[Finding]:
    """Look at each cluster of this user; the schedulers are asked a few short questions, each within its deadline."""
    from lossi import clusters

    found = clusters.load()
    for problem in found.problems:
        yield Finding(
            "clusters", "ok" if problem.level == "note" else "error", str(problem), problem.hint and "correct that entry"
        )
    if not found.clusters and not found.problems:
        yield Finding("clusters", "ok", "none is configured, and there is no sbatch on PATH")
    for cluster in found.clusters:
        try:
            yield from _cluster(cluster)
        except LossiError as error:
            what = f"{error.what}{': ' + error.why if error.why else ''}"
            yield Finding(f"cluster {cluster.name}", "error", what, error.hint or "see whether its daemons run, then try again")


def _cluster(cluster: Cluster) -> Iterator[Finding]:
    from lossi.jobs import schedulers

    missing = _missing_commands(cluster)
    if missing:
        yield Finding(
            f"cluster {cluster.name}",
            "error",
            f"no command {', '.join(missing)}",
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
    """Return the commands that are not there, where it is this machine that runs them."""
    if cluster.scheduler != "slurm_cli":
        return []
    if cluster.submit_host:
        return [] if shutil.which(cluster.command("ssh")) or shutil.which("ssh") else ["ssh"]
    return [name for name in NEEDED if shutil.which(cluster.command(name)) is None]


def _answer(cluster: Cluster, configuration: Configuration, seconds: float) -> Finding:
    what = f"cluster {cluster.name}"
    detail = f"{cluster.scheduler}: Slurm {configuration.version or 'of unknown version'} answers in {seconds * 1000:.0f} ms"
    version = tuple(int(part) for part in re.findall(r"\d+", configuration.version)[:2])
    if len(version) == 2 and not OLDEST <= version <= NEWEST:
        known = " to ".join(f"{year}.{month:02}" for year, month in (OLDEST, NEWEST))
        return Finding(what, "warning", detail, f"Lossi is made for {known}: try a small sweep before offering it to users")
    if seconds > cluster.deadline_s / 2:
        return Finding(
            what, "warning", detail, f"that is near `deadline_s` ({cluster.deadline_s:g} s), after which old data is shown"
        )
    return Finding(what, "ok", detail)


def _accounting(cluster: Cluster, configuration: Configuration) -> Iterator[Finding]:
    what = f"cluster {cluster.name}: accounting"
    if not configuration.accounting:
        yield Finding(what, "ok", "none: jobs are settled by their own exit files; no hours, billing or energy are shown")
        return
    missing = []
    if cluster.scheduler == "slurm_cli" and not cluster.submit_host:
        missing = [name for name in OF_ACCOUNTING if shutil.which(cluster.command(name)) is None]
    if missing:
        yield Finding(what, "warning", f"on, but there is no command {', '.join(missing)}", "install it, or set `bin_overrides`")
    else:
        yield Finding(what, "ok", f"on{', enforced: ' + ', '.join(configuration.enforced) if configuration.enforced else ''}")


def _partitions(cluster: Cluster, client: SlurmClient) -> Iterator[Finding]:
    what = f"cluster {cluster.name}: partitions"
    there = {row.name: row for row in client.partitions()}
    names = [partition.name for partition in cluster.partitions] or list(there)
    wanted = [*names, *([cluster.default_partition] if cluster.default_partition else [])]
    missing = sorted({name for name in wanted if name not in there})
    down = [name for name in names if name in there and there[name].state != "UP"]
    if missing:
        hint = f"correct them in the site file; the scheduler has {', '.join(there) or 'none that you may see'}"
        yield Finding(what, "error", f"the scheduler has no {', '.join(missing)}", hint)
    if down:
        yield Finding(what, "warning", f"not up: {', '.join(down)}", "bring them up, or take them out of the site file")
    if not missing and not down:
        yield Finding(what, "ok", f"{', '.join(names)}{'' if cluster.partitions else ' (all that the scheduler names)'}")


def _gpus(cluster: Cluster, client: SlurmClient) -> Iterator[Finding]:
    if not any(partition.gpu_types for partition in cluster.partitions):
        return
    what = f"cluster {cluster.name}: GPU types"
    there: dict[str, set[str]] = {}
    for group in client.nodes():
        there.setdefault(group.partition, set()).update(group.gpus)
    wrong = [
        f"{gpu.name} in {partition.name}"
        for partition in cluster.partitions
        if partition.name in there
        for gpu in partition.gpu_types
        if gpu.name not in there[partition.name]
    ]
    if wrong:
        known = "; ".join(
            f"{partition.name}: {', '.join(sorted(kind or 'untyped' for kind in there.get(partition.name, ()))) or 'none'}"
            for partition in cluster.partitions
            if partition.gpu_types
        )
        yield Finding(what, "error", f"the nodes have no {', '.join(wrong)}", f"correct them in the site file; there is {known}")
    else:
        yield Finding(what, "ok", "all that are offered are there")


def _accounts(cluster: Cluster, client: SlurmClient, configuration: Configuration) -> Iterator[Finding]:
    what = f"cluster {cluster.name}: account"
    policy = cluster.account
    try:
        accounts = sorted({association.account for association in client.associations()}) if configuration.accounting else []
    except InvalidInput as error:
        yield Finding(what, "warning", f"{error.what}{': ' + error.why if error.why else ''}", error.hint)
        return
    if not accounts:
        enforced = "associations" in configuration.enforced
        detail = "you may charge no account" if enforced else "the scheduler keeps none for you"
        bad = enforced or policy.required
        yield Finding(what, "warning" if bad else "ok", detail, "ask for an account before submitting" if bad else "")
        return
    fitting = [name for name in accounts if not policy.pattern or re.fullmatch(policy.pattern, name)]
    if not fitting:
        hint = f"correct `pattern` in the site file (it is {policy.pattern}), or ask for an account of that form"
        yield Finding(what, "warning", f"none of yours ({', '.join(accounts)}) has the form that the site asks for", hint)
    elif policy.default and policy.default not in accounts:
        yield Finding(
            what, "warning", f"the site's default {policy.default} is none of yours", f"name one of {', '.join(fitting)}"
        )
    else:
        needed = "one must be named; " if policy.required and not policy.default else ""
        yield Finding(what, "ok", f"{needed}you may charge {', '.join(fitting)}")

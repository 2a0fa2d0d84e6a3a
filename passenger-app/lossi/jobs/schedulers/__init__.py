"""The schedulers by name. Each adapter is imported when it is first asked for.

``local`` is this machine; the others are doors to Slurm, each to the clusters that `lossi.clusters` knows.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from lossi import settings
from lossi.errors import InvalidInput, did_you_mean
from lossi.jobs.schedulers.base import (
    FORGOTTEN,
    Capabilities,
    Handle,
    JobView,
    NotSubmitted,
    Scheduler,
    SessionOptions,
    TaskView,
)

if TYPE_CHECKING:
    from lossi.clusters import Cluster, Clusters
    from lossi.jobs.schedulers.slurm.client import SlurmClient

LOCAL = "local"
SLURM = ("slurm_cli", "slurm_rest", "slurm_pyslurm")


def _local() -> Scheduler:
    return _local_of(settings.state_dir())


@functools.lru_cache(maxsize=4)
def _local_of(state: Path) -> Scheduler:
    """Return one adapter per state folder: it remembers how far it has read each job's journal."""
    from lossi.jobs.schedulers.local import LocalScheduler

    return LocalScheduler(state / "local")


_FACTORIES: dict[str, Callable[[], Scheduler]] = {LOCAL: _local}
_DOORS: dict[tuple[str, Path], Scheduler] = {}


def get(name: str | None = None, cluster: str | None = None) -> Scheduler:
    """Return a scheduler.

    Parameters
    ----------
    name
        Which one; None: the cluster's own, or without a cluster the default of this machine (its default cluster where it
        has one, unless jobs may run here and no cluster was configured).
    cluster
        Which cluster; None: the default one.

    Raises
    ------
    InvalidInput, NotFound
        When there is none of that name.
    """
    if name in _FACTORIES:
        if cluster is not None and name == LOCAL and cluster in {found.name for found in _clusters().clusters}:
            raise InvalidInput(
                f"the scheduler {LOCAL!r} is this machine, not the cluster {cluster!r}", hint="name one of the two"
            )
        return _FACTORIES[name]()
    if name is not None and name not in SLURM:
        known = names()
        raise InvalidInput(f"there is no scheduler {name!r}", hint=did_you_mean(name, known) or f"known: {', '.join(known)}")
    if name is None and cluster is None and default() == LOCAL:
        return _FACTORIES[LOCAL]()
    found = _clusters().get(cluster) if cluster is not None else _clusters().default
    if found is None:
        raise InvalidInput(
            f"there is no cluster for the scheduler {name!r}",
            why="none is configured and sbatch is not on PATH",
            hint="describe the cluster in the site file, or use the scheduler 'local'",
        )
    return of_cluster(found if name is None else found.model_copy(update={"scheduler": name}))


def default() -> str:
    """Return the name of the scheduler that is meant where none is named.

    Raises
    ------
    InvalidInput
        When what the site says of its clusters is not valid.
    """
    found = _clusters()
    chosen = found.default
    if chosen is not None and (found.configured or not settings.load().allow_local_scheduler):
        return chosen.scheduler
    fault = next((problem for problem in found.problems if problem.level == "error"), None)
    if chosen is None and fault is not None and not settings.load().allow_local_scheduler:
        raise InvalidInput(
            "the default cluster is not in use", why=str(fault), hint=f"correct {fault.file}, or name another cluster"
        )
    return LOCAL


def of_cluster(cluster: Cluster) -> Scheduler:
    """Return the scheduler of a cluster; the same one as long as cluster and cache folder are, because doors remember tokens."""
    key = (cluster.model_dump_json(), settings.cache_dir())
    if key not in _DOORS:
        from lossi.jobs.schedulers.slurm.adapter import SlurmScheduler

        _DOORS[key] = SlurmScheduler(cluster, client_of(cluster))
    return _DOORS[key]


def client_of(cluster: Cluster) -> SlurmClient:
    """Return the door that a cluster names."""
    if cluster.scheduler == "slurm_rest":
        from lossi.jobs.schedulers.slurm.rest import RestClient

        return RestClient(cluster)
    if cluster.scheduler == "slurm_pyslurm":
        from lossi.jobs.schedulers.slurm.pyslurm import PySlurmClient

        return PySlurmClient(cluster)
    from lossi.jobs.schedulers.slurm.cli import CliClient

    return CliClient(cluster)


def names() -> tuple[str, ...]:
    """Return the names of all schedulers, this machine's first."""
    return tuple(sorted({*_FACTORIES, *SLURM}, key=lambda name: (name != LOCAL, name)))


def register(name: str, factory: Callable[[], Scheduler]) -> None:
    """Add a scheduler (or replace one of the same name): how further adapters and the contract tests come in."""
    _FACTORIES[name] = factory


def _clusters() -> Clusters:
    from lossi import clusters

    return clusters.load()


__all__ = [
    "FORGOTTEN",
    "LOCAL",
    "SLURM",
    "Capabilities",
    "Handle",
    "JobView",
    "NotSubmitted",
    "Scheduler",
    "SessionOptions",
    "TaskView",
    "client_of",
    "default",
    "get",
    "names",
    "of_cluster",
    "register",
]

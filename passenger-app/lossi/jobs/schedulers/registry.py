"""The schedulers by name. An adapter is imported when it is first used."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lossi import settings
from lossi.errors import InvalidInput, did_you_mean
from lossi.jobs.schedulers.base import Scheduler
from lossi.jobs.schedulers.system import BatchSystem, ClusterCheck

if TYPE_CHECKING:
    from lossi.clusters import Cluster, Clusters

LOCAL = "local"
"""The scheduler of this machine."""

_registered: dict[str, BatchSystem] = {}
_of_clusters: dict[tuple[str, Path], Scheduler] = {}


def get(name: str | None = None, cluster: str | None = None) -> Scheduler:
    """Return a scheduler.

    Parameters
    ----------
    name
        Which one; None: the cluster's own, or without a cluster the default of this machine (its default cluster if it
        has one, unless jobs may run here and no cluster was configured).
    cluster
        Which cluster; None: the default one.

    Raises
    ------
    InvalidInput, NotFound
        If there is none of that name.
    """
    if name is None and cluster is None:
        name = default()
    system = None if name is None else _system(name)
    if name is not None and system is not None and not system.has_clusters:
        if cluster is not None and cluster in {known.name for known in _clusters().clusters}:
            raise InvalidInput(f"the scheduler {name!r} is this machine, not the cluster {cluster!r}", hint="name one of the two")
        return system.scheduler(name, None)
    target = _clusters().get(cluster) if cluster is not None else _clusters().default
    if target is None:
        raise InvalidInput(
            f"there is no cluster for the scheduler {name!r}",
            why="none is configured and sbatch is not on PATH",
            hint="describe the cluster in the site file, or use the scheduler 'local'",
        )
    return of_cluster(target if name is None else target.model_copy(update={"scheduler": name}))


def default() -> str:
    """Return the name of the scheduler of jobs that name none.

    Raises
    ------
    InvalidInput
        If the site's configuration of its clusters is not valid.
    """
    clusters = _clusters()
    cluster = clusters.default
    local_allowed = settings.load().allow_local_scheduler
    if cluster is not None and (clusters.configured or not local_allowed):
        return cluster.scheduler
    problem = next((problem for problem in clusters.problems if problem.level == "error"), None)
    if cluster is None and problem is not None and not local_allowed:
        raise InvalidInput(
            "the default cluster is not in use", why=str(problem), hint=f"correct {problem.file}, or name another cluster"
        )
    return LOCAL


def of_cluster(cluster: Cluster) -> Scheduler:
    """Return the scheduler of a cluster; the same one as long as cluster and cache folder are, because clients keep tokens."""
    key = (cluster.model_dump_json(), settings.cache_dir())
    if key not in _of_clusters:
        _of_clusters[key] = _system(cluster.scheduler).scheduler(cluster.scheduler, cluster)
    return _of_clusters[key]


def check_cluster(cluster: Cluster) -> Iterator[ClusterCheck]:
    """Yield the doctor's checks of a cluster.

    Raises
    ------
    LossiError
        If it does not answer.
    """
    return _system(cluster.scheduler).check_cluster(cluster)


def of_record(name: str | None, cluster: str | None) -> Scheduler:
    """Return the scheduler of a job by what its records say. On a cluster, the cluster's present one is asked.

    Raises
    ------
    LossiError
        If it is not known here.
    """
    on_cluster = name is not None and _system(name).has_clusters
    return get(None if on_cluster else name, cluster if on_cluster else None)


def names() -> tuple[str, ...]:
    """Return the names of all schedulers, this machine's first."""
    return tuple(sorted(_by_name(), key=lambda name: name != LOCAL))


def systems(name: str | None = None) -> list[BatchSystem]:
    """Return the batch system of a scheduler; all of them if it is not known."""
    by_name = _by_name()
    return [by_name[name]] if name in by_name else list(dict.fromkeys(by_name.values()))


def register(system: BatchSystem) -> None:
    """Add a batch system that is not a folder here, or replace the one of the same name: for tests."""
    _registered.update(dict.fromkeys(system.schedulers, system))


def _system(name: str) -> BatchSystem:
    by_name = _by_name()
    if name not in by_name:
        known = names()
        raise InvalidInput(f"there is no scheduler {name!r}", hint=did_you_mean(name, known) or f"known: {', '.join(known)}")
    return by_name[name]


def _by_name() -> dict[str, BatchSystem]:
    return _folders() | _registered


@functools.cache
def _folders() -> dict[str, BatchSystem]:
    """Return the batch systems by the names of their schedulers: one for each folder here."""
    import lossi.jobs.schedulers as room

    folders = [module.name for module in pkgutil.iter_modules(room.__path__) if module.ispkg]
    batch_systems = [importlib.import_module(f"{room.__name__}.{folder}").SYSTEM for folder in folders]
    return {name: system for system in batch_systems for name in system.schedulers}


def _clusters() -> Clusters:
    from lossi import clusters

    return clusters.load()

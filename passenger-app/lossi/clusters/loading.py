"""The clusters that this user can choose: OOD's ``clusters.d``, overlaid with section ``clusters`` of the site file.

If neither has a cluster and ``sbatch`` is on PATH, there is one cluster named ``slurm``. An invalid entry becomes a problem and
disables its cluster until it is corrected, because using the cluster without the site's settings would be worse. A site file that
cannot be read or trusted disables all clusters. Reads files, starts nothing.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lossi import settings
from lossi.clusters import messages, ondemand, slurm, trust
from lossi.clusters.models import Cluster, Problem
from lossi.errors import Forbidden, InvalidInput, NotFound, did_you_mean
from lossi.files import document
from lossi.files.document import Document

IMPLICIT = "slurm"
"""Name of the cluster that exists without any configuration."""


@dataclass(frozen=True)
class Clusters:
    """The clusters, and the problems in their files.

    Attributes
    ----------
    clusters
        Sorted by name, including hidden ones.
    problems
        Each with file, line and key; errors first, then notes.
    default_name
        As the site file has it.
    configured
        Whether OOD or the site configures clusters, validly or not; otherwise the only one is this machine's own Slurm.
    """

    clusters: tuple[Cluster, ...] = ()
    problems: tuple[Problem, ...] = ()
    default_name: str | None = None
    configured: bool = False

    @property
    def default(self) -> Cluster | None:
        """The cluster of jobs that name none: the site's choice, or the first that is not hidden.

        None if there is no cluster, or the site file names one that does not exist.
        """
        if self.default_name is not None:
            return next((cluster for cluster in self.clusters if cluster.name == self.default_name), None)
        return next((cluster for cluster in self.clusters if not cluster.hidden), None)

    def get(self, name: str) -> Cluster:
        """Return the cluster ``name``.

        Raises
        ------
        NotFound
            When it does not exist, or the user may not use it.
        InvalidInput
            When its entry, or the site file, is not valid.
        """
        for cluster in self.clusters:
            if cluster.name == name:
                return cluster
        errors = [problem for problem in self.problems if problem.level == "error"]
        for problem in errors:
            if problem.cluster == name:
                raise InvalidInput(f"cluster {name!r} is disabled", why=str(problem), hint=f"correct {problem.file}")
        names = [cluster.name for cluster in self.clusters if not cluster.hidden]
        if not self.clusters and errors:
            raise InvalidInput("all clusters are disabled", why=str(errors[0]), hint=f"correct {errors[0].file}")
        known = f"choose one of {', '.join(names)}" if names else "no cluster is configured here"
        raise NotFound(
            f"there is no cluster {name[:80]!r}",
            hint=f"{did_you_mean(name, names) or known}; `lossi clusters list` shows them",
            known=names,
        )


def load(*, for_all: bool = False) -> Clusters:
    """Return the clusters of this user, cached until a file changes. Never raises for a file's content.

    Parameters
    ----------
    for_all
        Include clusters whose access lists exclude this user: for files that are written once for everybody.
    """
    site, place = settings.site_file(), ondemand.place()
    stamp = tuple((str(path), _stamp(path)) for path in (site, place, *ondemand.files(place)))
    return _load(site, place, stamp, slurm.on_this_machine(), os.geteuid(), for_all)


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino


@functools.lru_cache(maxsize=4)
def _load(site: Path, place: Path, stamp: tuple[Any, ...], has_slurm: bool, user: int, for_all: bool) -> Clusters:
    portal = ondemand.read(place, for_all=for_all)
    problems = list(portal.problems)
    try:
        section = _site(site)
    except _Unusable as error:
        return Clusters((), (error.problem, *problems), configured=True)
    clusters = []
    for name in sorted({*portal.entries, *section.entries} - portal.denied):
        cluster = _merged(name, portal.entries.get(name), section, problems)
        if cluster is not None:
            clusters.append(cluster)
    configured = bool(section.entries or ondemand.files(place))
    if not configured and has_slurm:
        clusters.append(Cluster(name=IMPLICIT, title="Slurm"))
    default = section.default
    if default is not None and default not in {*portal.denied, *(cluster.name for cluster in clusters)}:
        problems.append(
            Problem(
                file=str(site),
                line=section.document.line(("default_cluster",)),
                key="default_cluster",
                message=f"there is no cluster {default[:80]!r}",
                hint=did_you_mean(default, [cluster.name for cluster in clusters]) or "name one of the clusters",
            )
        )
    errors_first = sorted(problems, key=lambda problem: problem.level == "note")
    return Clusters(tuple(clusters), tuple(errors_first), default, configured)


@dataclass(frozen=True)
class _Section:
    """The site file's settings of clusters."""

    file: Path
    entries: Mapping[str, Mapping[str, Any]]
    default: str | None
    document: Document


class _Unusable(Exception):
    """The site file cannot be read or trusted."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(str(problem))
        self.problem = problem


def _site(file: Path) -> _Section:
    try:
        trust.refuse_open_to_all(file)
        content = document.read(file) or Document(None)
    except Forbidden as error:
        raise _Unusable(Problem(file=str(file), message=error.what, hint=error.hint)) from None
    except document.Unreadable as error:
        problem = Problem(file=str(file), line=error.line, key=error.key, message=error.message, hint=error.hint)
        raise _Unusable(problem) from None

    def unusable(path: tuple[str, ...], message: str, hint: str = "") -> _Unusable:
        problem = Problem(file=str(file), line=content.line(path), key=".".join(path), message=message, hint=hint)
        return _Unusable(problem)

    data = {} if content.data is None else content.data
    if not isinstance(data, dict):
        raise unusable((), "is not a mapping", "write `key: value` lines")
    entries, default = data.get("clusters"), data.get("default_cluster")
    entries = {} if entries is None else entries
    hint = "below `clusters:` write a cluster's name, and below that its keys"
    if not isinstance(entries, dict):
        raise unusable(("clusters",), "is not a mapping", hint)
    for name, value in entries.items():
        if value is not None and not isinstance(value, dict):
            raise unusable(("clusters", name), "is not a mapping", hint)
    if default is not None and not isinstance(default, str):
        raise unusable(("default_cluster",), "is not a name")
    return _Section(file, {name: value or {} for name, value in entries.items()}, default, content)


def _merged(name: str, entry: ondemand.Entry | None, section: _Section, problems: list[Problem]) -> Cluster | None:
    """Return the site's settings over OOD's, or None after adding to ``problems``."""
    base = dict(entry.members) if entry is not None else {}
    own = section.entries.get(name, {})
    merged = {**base, **own, "name": name}
    if isinstance(base.get("bin_overrides"), dict) and isinstance(own.get("bin_overrides"), dict):
        merged["bin_overrides"] = {**base["bin_overrides"], **own["bin_overrides"]}
    if "name" in own:
        problems.append(
            Problem(
                file=str(section.file),
                line=section.document.line(("clusters", name, "name")),
                key=f"clusters.{name}.name",
                message="is not a known key",
                hint="the section's key is the name",
                cluster=name,
            )
        )
        return None
    try:
        return Cluster.model_validate(merged)
    except ValidationError as error:
        problems.extend(_problem(item, name, entry, section) for item in error.errors(include_url=False))
        return None


def _problem(item: Any, name: str, entry: ondemand.Entry | None, section: _Section) -> Problem:
    message, hint = messages.explained(item)
    location = tuple(part for part in item["loc"] if part != "[key]")
    member = str(location[0]) if location else ""
    own = section.entries.get(name, {})
    if entry is not None and (not own or (member in entry.members and member not in own)):
        file, content, path = entry.file, entry.document, (*entry.base, *ondemand.KEYS.get(member, ()), *location[1:])
    else:
        # A bad name is in the section's key.
        inside = () if member == "name" else location
        file, content, path = section.file, section.document, ("clusters", name, *inside)
    key = ".".join(str(part)[:80] for part in path)
    return Problem(
        file=str(file),
        line=content.line(path),
        key=key if key.isprintable() else repr(key),
        message=message,
        hint=hint,
        cluster=name,
    )

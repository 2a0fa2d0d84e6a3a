"""The clusters that this user can choose: OOD's ``clusters.d``, then the site file's section ``clusters`` over it.

Where neither names one and ``sbatch`` is on PATH, that is one cluster called ``slurm``. An entry that is not right is listed
as a problem and its cluster is out of use until it is corrected, because silently using it without what the site asks for
would be worse; a site file that cannot be read or trusted puts all of them out of use. Reads files, starts nothing.
"""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lossi import settings
from lossi.clusters import messages, ondemand, trust
from lossi.clusters.models import Cluster, Problem
from lossi.errors import Forbidden, InvalidInput, NotFound, did_you_mean
from lossi.files import document
from lossi.files.document import Document

IMPLICIT = "slurm"
"""Name of the cluster that is there without any configuration."""


@dataclass(frozen=True)
class Clusters:
    """Which clusters there are, and what in their files is not right.

    Attributes
    ----------
    clusters
        In the order of their names; those that are hidden are among them.
    problems
        What is left out, each with file, line and key; first the faults, then the notes.
    default_name
        What the site file says.
    configured
        Whether OOD or the site named a cluster, or tried to; otherwise the only one is Slurm's own of this machine.
    """

    clusters: tuple[Cluster, ...] = ()
    problems: tuple[Problem, ...] = ()
    default_name: str | None = None
    configured: bool = False

    @property
    def default(self) -> Cluster | None:
        """The cluster that is meant where none is named: the site's word, or the first that is not hidden.

        None where there is none, or where the site file names one that is not there.
        """
        if self.default_name is not None:
            return next((cluster for cluster in self.clusters if cluster.name == self.default_name), None)
        return next((cluster for cluster in self.clusters if not cluster.hidden), None)

    def get(self, name: str) -> Cluster:
        """Return the cluster ``name``.

        Raises
        ------
        NotFound
            When there is none; names the nearest one. One that the user may not use is not there.
        InvalidInput
            When its entry, or the site file, is not valid.
        """
        for cluster in self.clusters:
            if cluster.name == name:
                return cluster
        faults = [problem for problem in self.problems if problem.level == "error"]
        for problem in faults:
            if problem.cluster == name:
                raise InvalidInput(f"cluster {name!r} is out of use", why=str(problem), hint=f"correct {problem.file}")
        names = [cluster.name for cluster in self.clusters if not cluster.hidden]
        if not self.clusters and faults:
            raise InvalidInput("no cluster is in use", why=str(faults[0]), hint=f"correct {faults[0].file}")
        known = f"choose one of {', '.join(names)}" if names else "no cluster is configured here"
        raise NotFound(
            f"there is no cluster {name[:80]!r}",
            hint=f"{did_you_mean(name, names) or known}; `lossi clusters list` shows them",
            known=names,
        )


def load(*, for_all: bool = False) -> Clusters:
    """Return the clusters of this user; read again only when a file has changed. Never raises for what a file says.

    Parameters
    ----------
    for_all
        Also those whose access lists do not let this user in: for what is written once for everybody.
    """
    site, place = settings.site_file(), ondemand.place()
    stamp = tuple((str(path), _stamp(path)) for path in (site, place, *ondemand.files(place)))
    return _load(site, place, stamp, shutil.which("sbatch"), os.geteuid(), for_all)


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        status = path.stat()
    except OSError:
        return ()
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino


@functools.lru_cache(maxsize=4)
def _load(site: Path, place: Path, stamp: tuple[Any, ...], sbatch: str | None, user: int, for_all: bool) -> Clusters:
    found = ondemand.read(place, for_all=for_all)
    problems = list(found.problems)
    try:
        section = _site(site)
    except _Unusable as error:
        return Clusters((), (error.problem, *problems), configured=True)
    clusters = []
    for name in sorted({*found.entries, *section.entries} - found.denied):
        cluster = _merged(name, found.entries.get(name), section, problems)
        if cluster is not None:
            clusters.append(cluster)
    configured = bool(section.entries or ondemand.files(place))
    if not configured and sbatch is not None:
        clusters.append(Cluster(name=IMPLICIT, title="Slurm"))
    default = section.default
    if default is not None and default not in {*found.denied, *(cluster.name for cluster in clusters)}:
        problems.append(
            Problem(
                file=str(site),
                line=section.document.line(("default_cluster",)),
                key="default_cluster",
                message=f"there is no cluster {default[:80]!r}",
                hint=did_you_mean(default, [cluster.name for cluster in clusters]) or "name one of the clusters",
            )
        )
    faults_first = sorted(problems, key=lambda problem: problem.level == "note")
    return Clusters(tuple(clusters), tuple(faults_first), default, configured)


@dataclass(frozen=True)
class _Section:
    """What the site file says of clusters."""

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
    data = {} if content.data is None else content.data
    if not isinstance(data, dict):
        raise _Unusable(Problem(file=str(file), line=1, message="is not a mapping", hint="write `key: value` lines"))
    entries, default = data.get("clusters"), data.get("default_cluster")
    entries = {} if entries is None else entries
    if not isinstance(entries, dict) or not all(value is None or isinstance(value, dict) for value in entries.values()):
        bad = (
            next((name for name, value in entries.items() if not isinstance(value, dict)), None)
            if isinstance(entries, dict)
            else None
        )
        path = ("clusters",) if bad is None else ("clusters", bad)
        raise _Unusable(
            Problem(
                file=str(file),
                line=content.line(path),
                key=".".join(path),
                message="is not a mapping",
                hint="below `clusters:` write a cluster's name, and below that its keys",
            )
        )
    if default is not None and not isinstance(default, str):
        raise _Unusable(
            Problem(file=str(file), line=content.line(("default_cluster",)), key="default_cluster", message="is not a name")
        )
    return _Section(file, {name: value or {} for name, value in entries.items()}, default, content)


def _merged(name: str, entry: ondemand.Entry | None, section: _Section, problems: list[Problem]) -> Cluster | None:
    """Return the site's word over OOD's, or None and say in ``problems`` what is wrong."""
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
                hint="the name is the key of the section",
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
        file, found, path = entry.file, entry.document, (*entry.base, *ondemand.KEYS.get(member, ()), *location[1:])
    else:
        # The section's own key is what is wrong where its name is.
        inside = () if member == "name" else location
        file, found, path = section.file, section.document, ("clusters", name, *inside)
    key = ".".join(str(part)[:80] for part in path)
    return Problem(
        file=str(file),
        line=found.line(path),
        key=key if key.isprintable() else repr(key),
        message=message,
        hint=hint,
        cluster=name,
    )

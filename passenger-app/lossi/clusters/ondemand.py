"""OOD's ``clusters.d``: which Slurm clusters the portal offers to this user, and how their commands are reached.

Read as ood_core reads it (``OodCore::Clusters``): ``*.yml`` of a folder, each named by its file, or one file with all of them;
what the user may not read is not there for him. Its access lists are honoured as ``OodCore::Acl::Adapters::Group`` does.
The part ``batch_connect`` belongs to OOD alone.
"""

from __future__ import annotations

import grp
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lossi.clusters import trust
from lossi.clusters.models import Problem
from lossi.errors import Forbidden
from lossi.files import document
from lossi.files.document import Document, KeyPath

DEFAULT = Path("/etc/ood/config/clusters.d")

KEYS: Mapping[str, KeyPath] = {
    "title": ("metadata", "title"),
    "hidden": ("metadata", "hidden"),
    "login_host": ("login", "host"),
    "slurm_name": ("job", "cluster"),
    "bin": ("job", "bin"),
    "bin_overrides": ("job", "bin_overrides"),
    "conf": ("job", "conf"),
    "submit_host": ("job", "submit_host"),
    "strict_host_checking": ("job", "strict_host_checking"),
}
"""Member of `Cluster` to where it stands in a cluster's part of the file."""


@dataclass(frozen=True)
class Entry:
    """One cluster of ``clusters.d``: members of `Cluster`, and where they were read."""

    members: Mapping[str, Any]
    file: Path
    document: Document
    base: KeyPath
    """Path of the cluster's part in its file."""


@dataclass
class Found:
    """What ``clusters.d`` says.

    Attributes
    ----------
    denied
        Names that the user may not use: the site file cannot bring them back.
    for_all
        Access lists have to be understood, but let everybody in.
    """

    entries: dict[str, Entry] = field(default_factory=dict)
    denied: set[str] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)
    for_all: bool = False


def place() -> Path:
    """Return the folder or file of OOD's clusters, whether or not it exists."""
    return Path(os.environ.get("OOD_CLUSTERS") or DEFAULT)


def files(path: Path) -> list[Path]:
    """Return the files to read: those of the folder in the order of their names, or the one file; none where neither is."""
    try:
        if path.is_dir():
            return sorted(entry for entry in path.glob("*.yml") if entry.is_file())
        return [path] if path.is_file() else []
    except OSError:
        return []


def read(path: Path, *, for_all: bool = False) -> Found:
    """Return the clusters in OOD's folder or file.

    Parameters
    ----------
    path
        As `place` returns it.
    for_all
        Without regard to who asks: also those whose access lists do not let this user in.
    """
    found = Found(for_all=for_all)
    folder = path.is_dir()
    for file in files(path):
        name = file.stem if folder else None
        # Who may not read a file, or whose access list cannot be read, is not let in.
        if not os.access(file, os.R_OK):
            found.denied.update({name} if name else ())
            continue
        try:
            _take(found, file, name)
        except Forbidden as error:
            problem = Problem(file=str(file), message=error.what, hint=error.hint, cluster=name)
        except document.Unreadable as error:
            problem = Problem(
                file=str(file), line=error.line, key=error.key, message=error.message, hint=error.hint, cluster=name
            )
        else:
            continue
        found.problems.append(problem)
        found.denied.update({name} if name else ())
    return found


def _take(found: Found, file: Path, name: str | None) -> None:
    trust.refuse_open_to_all(file)
    content = document.read(file) or Document(None)
    data = content.data if isinstance(content.data, dict) else {}
    part = data.get("v2")
    if not isinstance(part, dict):
        message = "is of the old form v1, which is not read" if "v1" in data else "has no part v2"
        raise document.Unreadable(message, 1, hint="see the page on cluster configuration in Open OnDemand's documentation")
    if name is not None:
        _cluster(found, Entry({}, file, content, ("v2",)), name, part)
        return
    for each, cluster in part.items():
        _cluster(found, Entry({}, file, content, ("v2", each)), each, cluster)


def _cluster(found: Found, place: Entry, name: str, part: Any) -> None:
    """Take in one cluster, or say why it is left out."""

    def problem(path: KeyPath, message: str, hint: str = "", *, note: bool = False) -> None:
        whole = (*place.base, *path)
        found.problems.append(
            Problem(
                file=str(place.file),
                line=place.document.line(whole),
                key=".".join(str(key) for key in whole),
                message=message,
                hint=hint,
                cluster=None if note else name,
                level="note" if note else "error",
            )
        )

    sections = part if isinstance(part, dict) else {}
    for section, form in (("metadata", dict), ("login", dict), ("job", dict), ("acls", list)):
        if sections.get(section) is not None and not isinstance(sections[section], form):
            problem((section,), "is not a mapping" if form is dict else "is not a list")
            found.denied.add(name)
            return
    job = sections.get("job") or {}
    try:
        allowed = _allowed(sections.get("acls") or []) and _allowed(job.get("acls") or [])
    except ValueError as error:
        # As in OOD, an access list that cannot be understood lets nobody in.
        problem(("acls",), str(error), "adapter: group, groups: […], type: whitelist or blacklist")
        found.denied.add(name)
        return
    if not allowed and not found.for_all:
        found.denied.add(name)
    elif job.get("adapter") != "slurm":
        what = f"adapter {job.get('adapter')!r}" if job else "no part job"
        problem(("job", "adapter") if job else (), f"{what}: not a Slurm cluster, left out", note=True)
    else:
        found.entries[name] = Entry(_members(sections), place.file, place.document, place.base)


def _members(sections: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members of `Cluster` that OOD's sections stand for; empty texts are unset, as in OOD."""
    members = {}
    for member, (section, key) in KEYS.items():
        value = (sections.get(str(section)) or {}).get(key)
        if value not in (None, "", {}):
            members[member] = value
    return members


def _allowed(acls: Any) -> bool:
    """Return whether all access lists let this user in: a whitelist some of his groups, a blacklist none of them.

    Raises
    ------
    ValueError
        When one is not understood.
    """
    if not isinstance(acls, list):
        raise ValueError("is not a list")
    admitted = [_admits(acl) for acl in acls]  # each is looked at, so that none that is not understood is passed over
    return all(admitted)


def _admits(acl: Any) -> bool:
    if not isinstance(acl, dict) or acl.get("adapter") != "group":
        raise ValueError("holds something that is not an access list of groups")
    groups, kind = acl.get("groups"), acl.get("type", "whitelist")
    if not isinstance(groups, list) or kind not in ("whitelist", "blacklist"):
        raise ValueError("holds an access list without groups, or of an unknown type")
    member = any(str(group) in groups_of_user() for group in groups)
    return member is (kind == "whitelist")


def groups_of_user() -> frozenset[str]:
    """Return the names of the groups of this process; the number of one without a name."""
    names = set()
    for gid in {os.getegid(), *os.getgroups()}:
        try:
            names.add(grp.getgrgid(gid).gr_name)
        except KeyError:
            names.add(str(gid))
    return frozenset(names)

"""OOD's ``clusters.d``: the Slurm clusters that the portal offers to this user, and how to reach their commands.

Read as ood_core reads it (``OodCore::Clusters``): one ``NAME.yml`` per cluster in a folder, or one file with all clusters; a file
that the user cannot read does not exist for the user. Access lists work as in ``OodCore::Acl::Adapters::Group``. The section
``batch_connect`` is OOD's alone and ignored.
"""

from __future__ import annotations

import grp
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lossi.clusters import slurm, trust
from lossi.clusters.models import Problem
from lossi.errors import Forbidden
from lossi.files import document
from lossi.files.document import Document, KeyPath

DEFAULT = Path("/etc/ood/config/clusters.d")

KEYS: Mapping[str, KeyPath] = {
    "title": ("metadata", "title"),
    "hidden": ("metadata", "hidden"),
    "login_host": ("login", "host"),
    **slurm.OOD_KEYS,
}
"""Member of `Cluster` → its path in a cluster's section of the file."""


@dataclass(frozen=True)
class Entry:
    """One cluster of ``clusters.d``: members of `Cluster`, and where they are in the file."""

    members: Mapping[str, Any]
    file: Path
    document: Document
    base: KeyPath
    """Path of the cluster's section in the file."""


@dataclass
class Portal:
    """The content of ``clusters.d``.

    Attributes
    ----------
    denied
        Clusters that the user may not use; the site file cannot add them back.
    for_all
        Access lists must be valid but admit everybody.
    """

    entries: dict[str, Entry] = field(default_factory=dict)
    denied: set[str] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)
    for_all: bool = False


def place() -> Path:
    """Return the folder or file of OOD's clusters, whether or not it exists."""
    return Path(os.environ.get("OOD_CLUSTERS") or DEFAULT)


def files(path: Path) -> list[Path]:
    """Return the files to read: those in the folder sorted by name, or the one file; none if it does not exist."""
    try:
        if path.is_dir():
            return sorted(entry for entry in path.glob("*.yml") if entry.is_file())
        return [path] if path.is_file() else []
    except OSError:
        return []


def read(path: Path, *, for_all: bool = False) -> Portal:
    """Return the clusters in OOD's folder or file.

    Parameters
    ----------
    path
        As `place` returns it.
    for_all
        Include clusters whose access lists exclude this user.
    """
    portal = Portal(for_all=for_all)
    folder = path.is_dir()
    for file in files(path):
        name = file.stem if folder else None
        # A user who cannot read a file or its access list is denied.
        if not os.access(file, os.R_OK):
            portal.denied.update({name} if name else ())
            continue
        try:
            _read_file(portal, file, name)
        except Forbidden as error:
            problem = Problem(file=str(file), message=error.what, hint=error.hint, cluster=name)
        except document.Unreadable as error:
            problem = Problem(
                file=str(file), line=error.line, key=error.key, message=error.message, hint=error.hint, cluster=name
            )
        else:
            continue
        portal.problems.append(problem)
        portal.denied.update({name} if name else ())
    return portal


def _read_file(portal: Portal, file: Path, name: str | None) -> None:
    trust.refuse_open_to_all(file)
    content = document.read(file) or Document(None)
    data = content.data if isinstance(content.data, dict) else {}
    section = data.get("v2")
    if not isinstance(section, dict):
        message = "uses the old format v1, which is not supported" if "v1" in data else "has no section v2"
        raise document.Unreadable(message, 1, hint='see "Cluster Configuration" in Open OnDemand\'s documentation')
    if name is not None:
        _add_cluster(portal, Entry({}, file, content, ("v2",)), name, section)
        return
    for each, cluster in section.items():
        _add_cluster(portal, Entry({}, file, content, ("v2", each)), each, cluster)


def _add_cluster(portal: Portal, place: Entry, name: str, section: Any) -> None:
    """Add a cluster, or the problem that keeps it out."""

    def problem(path: KeyPath, message: str, hint: str = "", *, note: bool = False) -> None:
        whole = (*place.base, *path)
        portal.problems.append(
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

    parts = section if isinstance(section, dict) else {}
    for key, kind in (("metadata", dict), ("login", dict), ("job", dict), ("acls", list)):
        if parts.get(key) is not None and not isinstance(parts[key], kind):
            problem((key,), "is not a mapping" if kind is dict else "is not a list")
            portal.denied.add(name)
            return
    job = parts.get("job") or {}
    try:
        allowed = _allowed(parts.get("acls") or []) and _allowed(job.get("acls") or [])
    except ValueError as error:
        # As in OOD, an invalid access list admits nobody.
        problem(("acls",), str(error), "adapter: group, groups: […], type: whitelist or blacklist")
        portal.denied.add(name)
        return
    if not allowed and not portal.for_all:
        portal.denied.add(name)
    elif job.get("adapter") != slurm.OOD_ADAPTER:
        what = f"adapter {job.get('adapter')!r}" if job else "no section job"
        problem(("job", "adapter") if job else (), f"{what}: not a Slurm cluster, ignored", note=True)
    else:
        portal.entries[name] = Entry(_members(parts), place.file, place.document, place.base)


def _members(parts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the members of `Cluster` for OOD's sections; empty strings are unset, as in OOD."""
    members = {}
    for member, (section, key) in KEYS.items():
        value = (parts.get(str(section)) or {}).get(key)
        if value not in (None, "", {}):
            members[member] = value
    return members


def _allowed(acls: Any) -> bool:
    """Return whether all access lists admit this user: a whitelist has one of the user's groups, a blacklist none.

    Raises
    ------
    ValueError
        When an access list is not valid.
    """
    if not isinstance(acls, list):
        raise ValueError("is not a list")
    admitted = [_admits(acl) for acl in acls]  # a list, so that an invalid one is never skipped
    return all(admitted)


def _admits(acl: Any) -> bool:
    if not isinstance(acl, dict) or acl.get("adapter") != "group":
        raise ValueError("contains something other than an access list of groups")
    groups, kind = acl.get("groups"), acl.get("type", "whitelist")
    if not isinstance(groups, list) or kind not in ("whitelist", "blacklist"):
        raise ValueError("contains an access list without groups or of an unknown type")
    member = any(str(group) in groups_of_user() for group in groups)
    return member is (kind == "whitelist")


def groups_of_user() -> frozenset[str]:
    """Return the names of this process's groups; the number of a group without a name."""
    names = set()
    for gid in {os.getegid(), *os.getgroups()}:
        try:
            names.add(grp.getgrgid(gid).gr_name)
        except KeyError:
            names.add(str(gid))
    return frozenset(names)

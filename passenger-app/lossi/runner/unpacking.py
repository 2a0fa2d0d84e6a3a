"""Copies a prepared job to the node: digests, one line of parameters, the code, links to data.

Reads the job directory and writes only to the task's node-local folder. ``code.tar`` is unpacked by hand, because many
releases of Python 3.9 to 3.11 lack the extraction filters of `tarfile`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
from pathlib import Path
from typing import List, Optional, Sequence

from ..contract.records import DataLink
from .errors import TaskFailure
from .writing import BLOCK, sha256, stream_sha256


def check_digest(path: Path, expected: Optional[str]) -> None:
    """Refuse a prepared file that changed since submission; ``expected`` None: no digest was recorded.

    Raises
    ------
    TaskFailure
        When the content differs.
    OSError
        When the file cannot be read.
    """
    if expected and sha256(path) != expected:
        raise TaskFailure(_changed(path))


def parameters_line(path: Path, number: int, expected: Optional[str]) -> bytes:
    """Return line ``number`` (0-based) of ``tasks.jsonl``; the other lines are hashed, not parsed.

    Raises
    ------
    TaskFailure
        When the file changed since submission or has no such line.
    OSError
        When it cannot be read.
    """
    digest = hashlib.sha256()
    parameters: Optional[bytes] = None
    with open(path, "rb") as stream:
        for index, line in enumerate(stream):  # as bytes: only \n ends a line
            if expected:
                digest.update(line)
            if index == number:
                parameters = line
                if not expected:
                    break
    if expected and digest.hexdigest() != expected:
        raise TaskFailure(_changed(path))
    if parameters is None:
        raise TaskFailure(f"{path} has no line for task {number}")
    return parameters


def unpack(archive: Path, destination: Path, expected: Optional[str]) -> List[str]:
    """Unpack ``code.tar`` into an empty folder and return notes about members that were left out.

    Files are created exclusively, and links after all files, so nothing is written through a link. A link out of the folder
    is left out with a note; a name out of it, a device or a second member of the same name is refused. Set-id bits are
    dropped.

    Raises
    ------
    TaskFailure
        When the archive changed since submission, or was not made by Lossi.
    OSError
        When something cannot be read or written.
    """
    links: List[tarfile.TarInfo] = []
    with open(archive, "rb") as stream:
        if expected:
            # The same descriptor is unpacked afterwards.
            if stream_sha256(stream) != expected:
                raise TaskFailure(_changed(archive))
            stream.seek(0)
        try:
            with tarfile.open(fileobj=stream, mode="r:") as tar:
                for member in tar:
                    path = destination / _inside(member.name)
                    if member.isdir():
                        path.mkdir(parents=True, exist_ok=True)
                    elif member.issym():
                        links.append(member)
                    elif member.isreg():
                        _write_member(tar, member, path)
                    else:
                        raise TaskFailure(f"{archive}: member {member.name!r} is not a file, folder or symbolic link")
        except tarfile.TarError as error:
            raise TaskFailure(f"{archive} is damaged: {error}") from error
        except FileExistsError as error:
            raise TaskFailure(f"{archive}: two members have the name {error.filename}") from error
    return _make_links(destination, links)


def link_data(destination: Path, links: Sequence[DataLink]) -> List[str]:
    """Link folders of the live project that are not in the archive; return a note for each that cannot be linked.

    Raises
    ------
    OSError
        When a link cannot be created.
    """
    notes = []
    root = os.path.realpath(destination)
    for link in links:
        path = destination / _inside(link.path)
        parent = os.path.realpath(path.parent)
        if not os.path.isabs(link.target) or not _below(parent, root):
            notes.append(f"data {link.path}: not linked, its path is outside the project")
            continue
        if not os.path.exists(link.target):
            notes.append(f"data {link.path}: not linked, {link.target} does not exist here")
            continue
        if os.path.lexists(path):
            continue
        os.makedirs(parent, exist_ok=True)
        os.symlink(link.target, path)
    return notes


def _changed(path: Path) -> str:
    return f"{path} changed since submission (its SHA-256 differs): submit the job again"


def _inside(name: str) -> str:
    """Return a member's name; refuse one that leads out of the folder."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts or "\0" in name:
        raise TaskFailure(f"code.tar: the name {name!r} leads out of the project")
    return "/".join(parts)


def _write_member(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    source = tar.extractfile(member)
    if source is None:
        raise TaskFailure(f"code.tar: {member.name!r} has no content")
    if not path.parent.is_dir():
        path.parent.mkdir(parents=True)
    mode = (member.mode & 0o777) | 0o600
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with os.fdopen(descriptor, "wb") as target:
        shutil.copyfileobj(source, target, BLOCK)
        target.flush()
        os.utime(target.fileno(), (member.mtime, member.mtime))


def _make_links(destination: Path, members: Sequence[tarfile.TarInfo]) -> List[str]:
    """Create the links, then remove those that lead out, judged by their resolved target."""
    created = {}
    root = os.path.realpath(destination)
    for member in members:
        name = _inside(member.name)
        path = destination / name
        if os.path.realpath(path.parent) != os.path.dirname(os.path.join(root, name)) or os.path.lexists(path):
            raise TaskFailure(f"code.tar: {member.name!r} is below a link or in the archive twice")
        path.parent.mkdir(parents=True, exist_ok=True)
        os.symlink(member.linkname, path)
        created[path] = member
    notes = []
    offending = list(created)
    while offending:
        offending = [
            path for path in created if os.path.isabs(created[path].linkname) or not _below(os.path.realpath(path), root)
        ]
        for path in offending:
            path.unlink()
            member = created.pop(path)
            notes.append(f"the link {member.name} was left out: {member.linkname} is outside the project")
    return notes


def _below(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip("/") + "/")

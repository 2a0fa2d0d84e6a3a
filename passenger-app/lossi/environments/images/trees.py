"""The files of an image as a tree, read from a SIF, and whether two trees are the same.

Two images are the same if path, type, content, link target and execute permission of every file are equal. Owners and times
are not compared, since an unprivileged conversion cannot keep them; nor is what Apptainer adds or the machine replaces at
start (`/.singularity.d`, its compatibility links, `/etc/hosts`, `/etc/resolv.conf`, empty mount points). Nothing of an image
is run: a changed one could answer anything.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Literal, TypeAlias

from lossi.environments.images import programs, sif
from lossi.errors import InvalidInput, Unavailable

Kind = Literal["file", "link", "device"]

UNSQUASHFS = "unsquashfs"
ADDED_BY_APPTAINER = frozenset([".singularity.d", ".exec", ".run", ".shell", ".test", "environment", "singularity"])
"""In the root of every SIF (github.com/apptainer/apptainer, internal/pkg/build/files)."""
OF_THE_MACHINE = frozenset(["etc/hosts", "etc/resolv.conf"])
MOUNT_POINTS = frozenset(["dev", "etc", "home", "proc", "root", "sys", "tmp", "var", "var/tmp"])
"""Folders that Apptainer creates if an image lacks them; their content is compared."""

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Leaf:
    """A file with the SHA-256 of its content, a link with its target, or a device or pipe."""

    kind: Kind
    content: str = ""
    executable: bool = False


@dataclass
class Folder:
    """A folder; ``implied`` if only something below it has an entry."""

    children: dict[str, Node] = field(default_factory=dict)
    implied: bool = False


Node: TypeAlias = Leaf | Folder
_EMPTY = Leaf("file", hashlib.sha256().hexdigest())


def content_digest(stream: IO[bytes]) -> str:
    """Return the SHA-256 of a stream's content, in hexadecimal."""
    digest = hashlib.sha256()
    while chunk := stream.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def lines(root: Folder) -> Iterator[tuple[str, str]]:
    """Yield path and description of everything that is compared, sorted by the bytes of the path."""
    compared = [(path, _describe(node)) for path, node in _walk(root, "") if not _left_out(path, node)]
    yield from sorted(compared, key=lambda line: line[0].encode("utf-8", "surrogateescape"))


def tree_hash(root: Folder) -> str:
    """Return ``sha256:…`` of a tree: equal for equal trees."""
    digest = hashlib.sha256()
    for path, description in lines(root):
        digest.update(f"{path}\0{description}\0".encode("utf-8", "surrogateescape"))
    return f"sha256:{digest.hexdigest()}"


def differences(image: Folder, other: Folder, most: int = 10) -> list[str]:
    """Return the first ``most`` differences between image and SIF in words; none if the trees are the same."""
    return list(islice(_differences(dict(lines(image)), dict(lines(other))), most))


def _differences(image: dict[str, str], other: dict[str, str]) -> Iterator[str]:
    for path in sorted(image.keys() | other.keys(), key=lambda path: path.encode("utf-8", "surrogateescape")):
        in_image, in_sif = image.get(path), other.get(path)
        if in_image == in_sif:
            continue
        if in_sif is None:
            yield f"/{path} is in the image only"
        elif in_image is None:
            yield f"/{path} is in the SIF only"
        else:
            yield f"/{path}: {_shown(in_image)} in the image, {_shown(in_sif)} in the SIF"


def _shown(description: str) -> str:
    kind, content, executable = description.split("\0")
    return " ".join(filter(None, (kind, f"to {content}" if kind == "link" else content[:12], executable)))


def _walk(folder: Folder, prefix: str) -> Iterator[tuple[str, Node]]:
    for name, node in folder.children.items():
        path = f"{prefix}{name}"
        yield path, node
        if isinstance(node, Folder):
            yield from _walk(node, f"{path}/")


def _left_out(path: str, node: Node) -> bool:
    if path.partition("/")[0] in ADDED_BY_APPTAINER or path in OF_THE_MACHINE:
        return True
    if isinstance(node, Folder):
        return path in MOUNT_POINTS
    # An unprivileged conversion cannot make devices and puts empty files in their place; /dev is the machine's anyway.
    return node.kind == "device" or (path.startswith("dev/") and node == _EMPTY)


def _describe(node: Node) -> str:
    if isinstance(node, Folder):
        return "folder\0\0"
    return f"{node.kind}\0{node.content}\0{'executable' if node.executable else ''}"


def sif_tree(path: Path, work: Path) -> Folder:
    """Return the tree of a SIF, unpacked with squashfs-tools while it is read.

    Parameters
    ----------
    path
        The SIF file.
    work
        Folder with room for the unpacked image.

    Raises
    ------
    Unavailable
        When there is no such file, no squashfs-tools, or no room.
    InvalidInput
        When it is not a SIF with a squashfs file system.
    """
    sif.check_image_file(str(path))
    offset = sif.file_system_offset(path)
    program = shutil.which(UNSQUASHFS)
    if program is None:
        raise Unavailable(
            f"there is no {UNSQUASHFS} on this machine", hint="install squashfs-tools, or use a machine that has it"
        )
    folder = work / "sif"
    argv = [program, "-no-progress", "-no-xattrs", "-offset", str(offset), "-dest", str(folder), str(path)]
    try:
        # It exits with 2 because an ordinary user cannot make devices; the comparison shows what it left out.
        programs.run(argv, f"cannot read the image {path}", accept=(0, 2))
        if not folder.is_dir():
            raise InvalidInput(f"cannot read the file system of {str(path)!r}", hint="build or pull the image again")
        return read_folder(folder)
    finally:
        remove(folder)


def read_folder(folder: Path) -> Folder:
    """Return the tree of an unpacked folder, making unreadable files and folders readable."""
    tree = Folder()
    folder.chmod(0o700)
    with os.scandir(folder) as entries:
        for entry in entries:
            tree.children[entry.name] = _node(Path(entry.path), entry.stat(follow_symlinks=False).st_mode)
    return tree


def _node(path: Path, mode: int) -> Node:
    if stat.S_ISDIR(mode):
        return read_folder(path)
    if stat.S_ISLNK(mode):
        return Leaf("link", str(path.readlink()))
    if not stat.S_ISREG(mode):
        return Leaf("device")
    if not mode & stat.S_IRUSR:
        path.chmod(0o600)
    with path.open("rb") as stream:
        return Leaf("file", content_digest(stream), bool(mode & 0o111))


def remove(folder: Path) -> None:
    """Remove a folder, even if folders in it are read-only."""
    if not folder.exists():
        return
    for path, _, _ in os.walk(folder):
        with contextlib.suppress(OSError):
            Path(path).chmod(0o700)
    shutil.rmtree(folder, ignore_errors=True)

"""The tree of files of an image, and whether two images hold the same.

Two images are the same when path, type, content, target of links and the right to execute are equal for every file. Owners and
times are not compared, since an unprivileged conversion cannot keep them; nor is what Apptainer adds or the machine replaces at
start (`/.singularity.d`, its compatibility links, `/etc/hosts`, `/etc/resolv.conf`, empty mount points). Pure: what reads layers
and SIF files is beside it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import IO, Literal, TypeAlias

Kind = Literal["file", "link", "device"]

ADDED_BY_APPTAINER = frozenset([".singularity.d", ".exec", ".run", ".shell", ".test", "environment", "singularity"])
"""In the root of every SIF (github.com/apptainer/apptainer, internal/pkg/build/files)."""
OF_THE_MACHINE = frozenset(["etc/hosts", "etc/resolv.conf"])
MOUNT_POINTS = frozenset(["dev", "etc", "home", "proc", "root", "sys", "tmp", "var", "var/tmp"])
"""Apptainer makes these folders where an image lacks them; what they hold is compared."""

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Leaf:
    """What is no folder: a file by the SHA-256 of its content, a link by its target, a device or pipe by its name alone."""

    kind: Kind
    content: str = ""
    executable: bool = False


@dataclass
class Folder:
    """A folder; ``implied`` where only something below it was named."""

    children: dict[str, Node] = field(default_factory=dict)
    implied: bool = False


Node: TypeAlias = Leaf | Folder
_EMPTY = Leaf("file", hashlib.sha256().hexdigest())


def content_digest(stream: IO[bytes]) -> str:
    """Return the SHA-256 of what a stream holds, in hexadecimal."""
    digest = hashlib.sha256()
    while chunk := stream.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def lines(root: Folder) -> Iterator[tuple[str, str]]:
    """Yield path and description of everything that is compared, in the order of the paths' bytes."""
    found = [(path, _described(node)) for path, node in _walk(root, "") if not _left_out(path, node)]
    yield from sorted(found, key=lambda line: line[0].encode("utf-8", "surrogateescape"))


def tree_hash(root: Folder) -> str:
    """Return ``sha256:…`` of a tree: equal for equal trees."""
    digest = hashlib.sha256()
    for path, described in lines(root):
        digest.update(f"{path}\0{described}\0".encode("utf-8", "surrogateescape"))
    return f"sha256:{digest.hexdigest()}"


def differences(image: Folder, sif: Folder, most: int = 10) -> list[str]:
    """Return the first ``most`` differences in words; empty when the trees are the same."""
    return list(islice(_differences(dict(lines(image)), dict(lines(sif))), most))


def _differences(image: dict[str, str], sif: dict[str, str]) -> Iterator[str]:
    for path in sorted(image.keys() | sif.keys(), key=lambda path: path.encode("utf-8", "surrogateescape")):
        here, there = image.get(path), sif.get(path)
        if here == there:
            continue
        if there is None:
            yield f"/{path} is in the image only"
        elif here is None:
            yield f"/{path} is in the SIF only"
        else:
            yield f"/{path}: {_shown(here)} in the image, {_shown(there)} in the SIF"


def _shown(described: str) -> str:
    kind, content, executable = described.split("\0")
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
    # An unprivileged conversion cannot make devices, and puts empty files in their place; no image needs its own, since /dev is the
    # machine's.
    return node.kind == "device" or (path.startswith("dev/") and node == _EMPTY)


def _described(node: Node) -> str:
    if isinstance(node, Folder):
        return "folder\0\0"
    return f"{node.kind}\0{node.content}\0{'executable' if node.executable else ''}"

"""Reads an OCI layout on disk (github.com/opencontainers/image-spec): manifest, configuration and tree of files of an image.

Nothing is unpacked: the layers are read in order and merged by the specification's rules (whiteouts, opaque folders, hard
links). Every digest is checked on the way.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from lossi import processes
from lossi.environments.images.trees import Folder, Leaf, Node, content_digest
from lossi.errors import InvalidInput, NotSupported

ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}
"""An image's name of an architecture → ours."""

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_MOST_LINKS = 40
"""Links followed for one path, as in Linux."""


@dataclass(frozen=True)
class Layout:
    """One image in an OCI layout.

    Attributes
    ----------
    digest
        Of the manifest.
    architecture
        By Lossi's name.
    size
        Bytes of the packed layers.
    """

    folder: Path
    digest: str
    architecture: str
    labels: dict[str, str]
    layers: tuple[str, ...]
    media_types: tuple[str, ...]
    size: int


def read(folder: Path) -> Layout:
    """Read a layout with one image.

    Raises
    ------
    InvalidInput
        When it is not a layout, or a digest does not match.
    """
    try:
        index = json.loads((folder / "index.json").read_bytes())
        digest = str(index["manifests"][0]["digest"])
        manifest = json.loads(_checked(folder, digest).read_bytes())
        config = json.loads(_checked(folder, str(manifest["config"]["digest"])).read_bytes())
        layers = [(str(layer["digest"]), str(layer["mediaType"]), int(layer["size"])) for layer in manifest["layers"]]
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise _broken(folder, f"{type(error).__name__}: {error}") from None
    architecture = str(config.get("architecture", ""))
    labels = (config.get("config") or {}).get("Labels") or {}
    return Layout(
        folder,
        digest,
        ARCHITECTURES.get(architecture, architecture),
        {str(key): str(value) for key, value in labels.items()},
        tuple(layer[0] for layer in layers),
        tuple(layer[1] for layer in layers),
        sum(layer[2] for layer in layers),
    )


def image_tree(layout: Layout) -> Folder:
    """Return the tree of files of an image.

    Raises
    ------
    InvalidInput
        When a layer is damaged or its digest does not match.
    NotSupported
        When the compression of a layer is not supported.
    """
    root = Folder()
    for digest, media_type in zip(layout.layers, layout.media_types, strict=True):
        path = _checked(layout.folder, digest)
        try:
            with _unpacked(path, media_type) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
                apply(root, archive)
        except (OSError, EOFError, tarfile.TarError) as error:
            raise _broken(layout.folder, f"layer {digest}: {error}") from None
    return root


def apply(root: Folder, archive: tarfile.TarFile) -> None:
    """Apply one layer to a tree."""
    layer = _Layer()
    for member in archive:
        layer.add(member, archive)
    _merge(root, root, layer.root, layer, "")


@dataclass
class _Layer:
    """One layer: what it adds, and what it removes from the layers below."""

    root: Folder = field(default_factory=lambda: Folder(implied=True))
    removed: dict[str, set[str]] = field(default_factory=dict)
    """Folder → names removed."""
    opaque: set[str] = field(default_factory=set)
    """Folders whose content of the layers below is removed."""
    hard_links: dict[str, str] = field(default_factory=dict)
    """Path → the path that it links to, in this layer or below."""

    def add(self, member: tarfile.TarInfo, archive: tarfile.TarFile) -> None:
        """Add one entry."""
        parts = _parts(member.name)
        if not parts:
            return
        parent, name = "/".join(parts[:-1]), parts[-1]
        if name == _OPAQUE:
            self.opaque.add(parent)
            self._folder(parts[:-1])
        elif name.startswith(_WHITEOUT):
            self.removed.setdefault(parent, set()).add(name.removeprefix(_WHITEOUT))
            self._folder(parts[:-1])
        elif member.isdir():
            self._folder(parts).implied = False
        else:
            path = "/".join(parts)
            self.hard_links.pop(path, None)
            if member.islnk():
                self.hard_links[path] = "/".join(_parts(member.linkname))
            self._folder(parts[:-1]).children[name] = _leaf(member, archive)

    def _folder(self, parts: list[str]) -> Folder:
        """Return a folder of this layer; create an implied one if only something below it has an entry."""
        folder = self.root
        for part in parts:
            child = folder.children.get(part)
            if not isinstance(child, Folder):
                child = folder.children[part] = Folder(implied=True)
            folder = child
        return folder


def _leaf(member: tarfile.TarInfo, archive: tarfile.TarFile) -> Leaf:
    if member.issym():
        return Leaf("link", member.linkname)
    if member.islnk():
        return Leaf("file")  # its content is looked up when the layers are merged
    if not member.isreg():
        return Leaf("device")
    stream = archive.extractfile(member)
    assert stream is not None
    return Leaf("file", content_digest(stream), bool(member.mode & 0o111))


def _merge(root: Folder, below: Folder, above: Folder, layer: _Layer, path: str) -> None:
    """Merge a folder of a layer into the one of the layers below."""
    # Looked up first: a hard link may lead to a file that the same layer removes.
    linked = {
        name: _linked(root, layer, layer.hard_links[whole])
        for name in above.children
        if (whole := f"{path}/{name}".lstrip("/")) in layer.hard_links
    }
    if path in layer.opaque:
        below.children.clear()
    for name in layer.removed.get(path, ()):
        below.children.pop(name, None)
    for name, node in above.children.items():
        whole = f"{path}/{name}".lstrip("/")
        if not isinstance(node, Folder):
            below.children[name] = linked.get(name, node)
            continue
        target = below.children.get(name)
        if node.implied and isinstance(target, Leaf) and target.kind == "link":
            target = _resolve(root, whole)
        if not isinstance(target, Folder):
            target = below.children[name] = Folder(implied=node.implied)
        _merge(root, target, node, layer, whole)


def _linked(root: Folder, layer: _Layer, target: str) -> Node:
    """Return the file that a hard link leads to, in its own layer or below."""
    for _ in range(_MOST_LINKS):
        if target not in layer.hard_links:
            break
        target = layer.hard_links[target]
    node = _at(layer.root, target) or _resolve(root, target)
    return node if isinstance(node, Leaf) else Leaf("file")


def _at(root: Folder, path: str) -> Node | None:
    node: Node | None = root
    for part in path.split("/"):
        node = node.children.get(part) if isinstance(node, Folder) else None
    return node


def _resolve(root: Folder, path: str) -> Node | None:
    """Return what is at a path, following links within the image."""
    left = _parts(path)[::-1]
    walked: list[tuple[str, Folder]] = []
    here = root
    links = 0
    while left:
        part = left.pop()
        if part == "..":
            if walked:
                walked.pop()
            here = walked[-1][1] if walked else root
            continue
        node = here.children.get(part)
        if isinstance(node, Leaf) and node.kind == "link":
            links += 1
            if links > _MOST_LINKS:
                return None
            if node.content.startswith("/"):
                walked, here = [], root
            left += [part for part in node.content.split("/") if part not in ("", ".")][::-1]
        elif isinstance(node, Folder):
            walked.append((part, node))
            here = node
        else:
            return None if left else node
    return here


def _parts(name: str) -> list[str]:
    """Return the parts of a path in an archive; ``..`` at the root stays at the root."""
    parts: list[str] = []
    for part in name.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return parts


@contextlib.contextmanager
def _unpacked(path: Path, media_type: str) -> Iterator[IO[bytes]]:
    """Open a layer as plain tar."""
    if media_type.endswith(("+gzip", ".gzip")):
        with gzip.open(path, "rb") as stream:
            yield stream  # type: ignore[misc]
    elif media_type.endswith("+zstd"):
        program = shutil.which("zstd")
        if program is None:
            raise NotSupported(
                "a layer of the image is compressed with zstd", hint="install zstd, or build the image with gzip layers"
            )
        argv = [program, "-dcq", str(path)]
        with processes.running(argv, environment=processes.basic_environment(), cwd=None, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            yield child.stdout
    else:
        with path.open("rb") as stream:
            yield stream


def _checked(folder: Path, digest: str) -> Path:
    """Return the file of a digest after checking its content."""
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
        raise _broken(folder, f"{digest[:80]!r} is not a digest")
    path = folder / "blobs" / "sha256" / digest.removeprefix("sha256:")
    with path.open("rb") as stream:
        if hashlib.file_digest(stream, "sha256").hexdigest() != path.name:
            raise _broken(folder, f"the content of {digest} does not match")
    return path


def _broken(folder: Path, why: str) -> InvalidInput:
    return InvalidInput("the image is damaged", why=why, hint="fetch or build it again", layout=str(folder))


def manifest_of(index: Any, architecture: str) -> str | None:
    """Return the digest of an architecture's image in an index of several, if there is one."""
    for entry in index.get("manifests", ()):
        platform = entry.get("platform") or {}
        if platform.get("os") == "linux" and ARCHITECTURES.get(str(platform.get("architecture"))) == architecture:
            return str(entry["digest"])
    return None

"""An image as an OCI layout on disk (github.com/opencontainers/image-spec): its manifest, its settings, and its tree of files.

Nothing is unpacked: the layers are read in their order and put together as their rules say (whiteouts, opaque folders, hard
links). The digest of everything that is read is checked on the way.
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
from lossi.environments.images.image_tree import Folder, Leaf, Node, content_digest
from lossi.errors import InvalidInput, NotSupported

ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}
"""The names that images have for ours."""

_WHITEOUT = ".wh."
_OPAQUE = ".wh..wh..opq"
_MOST_LINKS = 40
"""Links that are followed for one path, as Linux does."""


@dataclass(frozen=True)
class Layout:
    """One image in an OCI layout.

    Attributes
    ----------
    digest
        Of its manifest.
    architecture
        As Lossi calls it.
    labels
        What the image says of itself.
    size
        Bytes of its layers, packed.
    """

    folder: Path
    digest: str
    architecture: str
    labels: dict[str, str]
    layers: tuple[str, ...]
    media_types: tuple[str, ...]
    size: int


def read(folder: Path) -> Layout:
    """Return what a layout with one image holds.

    Raises
    ------
    InvalidInput
        When it is none, or a digest is not that of its content.
    """
    try:
        index = json.loads((folder / "index.json").read_bytes())
        digest = str(index["manifests"][0]["digest"])
        manifest = json.loads(_checked(folder, digest).read_bytes())
        settings = json.loads(_checked(folder, str(manifest["config"]["digest"])).read_bytes())
        layers = [(str(layer["digest"]), str(layer["mediaType"]), int(layer["size"])) for layer in manifest["layers"]]
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise _broken(folder, f"{type(error).__name__}: {error}") from None
    architecture = str(settings.get("architecture", ""))
    labels = (settings.get("config") or {}).get("Labels") or {}
    return Layout(
        folder,
        digest,
        ARCHITECTURES.get(architecture, architecture),
        {str(key): str(value) for key, value in labels.items()},
        tuple(layer[0] for layer in layers),
        tuple(layer[1] for layer in layers),
        sum(layer[2] for layer in layers),
    )


def tree(layout: Layout) -> Folder:
    """Return the tree of files that the layers make.

    Raises
    ------
    InvalidInput
        When a layer is broken or its digest is not that of its content.
    NotSupported
        When a layer is packed in a way that cannot be read here.
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
    """Change a tree as one layer says."""
    layer = _Layer()
    for member in archive:
        layer.take(member, archive)
    _merge(root, root, layer.root, layer, "")


@dataclass
class _Layer:
    """One layer by itself: what it adds, and what it takes away from those below."""

    root: Folder = field(default_factory=lambda: Folder(implied=True))
    removed: dict[str, set[str]] = field(default_factory=dict)
    """Folder → names that go."""
    opaque: set[str] = field(default_factory=set)
    """Folders of which nothing of the layers below is left."""
    hard_links: dict[str, str] = field(default_factory=dict)
    """Path → the path whose content it has, in this layer or below."""

    def take(self, member: tarfile.TarInfo, archive: tarfile.TarFile) -> None:
        """Take one entry in."""
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
        """Return the folder of this layer, made where only something below it was named."""
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
        return Leaf("file")  # its content is found when the layers are put together
    if not member.isreg():
        return Leaf("device")
    stream = archive.extractfile(member)
    assert stream is not None
    return Leaf("file", content_digest(stream), bool(member.mode & 0o111))


def _merge(root: Folder, below: Folder, above: Folder, layer: _Layer, path: str) -> None:
    """Put a folder of a layer over the one that the layers below it made."""
    # A hard link may lead to a file that the same layer takes away from those below: it is looked up before.
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
        there = below.children.get(name)
        if node.implied and isinstance(there, Leaf) and there.kind == "link":
            there = _followed(root, whole)
        if not isinstance(there, Folder):
            there = below.children[name] = Folder(implied=node.implied)
        _merge(root, there, node, layer, whole)


def _linked(root: Folder, layer: _Layer, target: str) -> Node:
    """Return what a hard link stands for: in its own layer, or in those below."""
    for _ in range(_MOST_LINKS):
        if target not in layer.hard_links:
            break
        target = layer.hard_links[target]
    found = _at(layer.root, target) or _followed(root, target)
    return found if isinstance(found, Leaf) else Leaf("file")


def _at(root: Folder, path: str) -> Node | None:
    node: Node | None = root
    for part in path.split("/"):
        node = node.children.get(part) if isinstance(node, Folder) else None
    return node


def _followed(root: Folder, path: str) -> Node | None:
    """Return what is at a path once links on the way are followed, all within the image."""
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
    """Return the parts of a path in an archive; ``..`` at the root stays there."""
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
            raise NotSupported("a layer of the image is packed with zstd", hint="install the program zstd, or pack it with gzip")
        argv = [program, "-dcq", str(path)]
        with processes.running(argv, environment=processes.basic_environment(), cwd=None, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            yield child.stdout
    else:
        with path.open("rb") as stream:
            yield stream


def _checked(folder: Path, digest: str) -> Path:
    """Return the file of a digest once its content is found to have it."""
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
        raise _broken(folder, f"{digest[:80]!r} is no digest")
    path = folder / "blobs" / "sha256" / digest.removeprefix("sha256:")
    with path.open("rb") as stream:
        if hashlib.file_digest(stream, "sha256").hexdigest() != path.name:
            raise _broken(folder, f"the content of {digest} is another one")
    return path


def _broken(folder: Path, why: str) -> InvalidInput:
    return InvalidInput("the image is not whole", why=why, hint="fetch or build it again", layout=str(folder))


def manifest_of(index: Any, architecture: str) -> str | None:
    """Return the digest of the image for an architecture in an index of several, as the registry keeps it."""
    for entry in index.get("manifests", ()):
        platform = entry.get("platform") or {}
        if platform.get("os") == "linux" and ARCHITECTURES.get(str(platform.get("architecture"))) == architecture:
            return str(entry["digest"])
    return None

"""Small images as OCI layouts, written with the standard library: any layers, whiteouts and labels, no builder needed."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lossi.environments.images import oci_layout

MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@dataclass(frozen=True)
class Entry:
    """One entry of a layer; ``kind`` is a type of `tarfile`."""

    path: str
    content: str = ""
    kind: bytes = tarfile.REGTYPE
    mode: int = 0o644


def file(path: str, content: str = "", mode: int = 0o644) -> Entry:
    return Entry(path, content, tarfile.REGTYPE, mode)


def folder(path: str, mode: int = 0o755) -> Entry:
    return Entry(path, "", tarfile.DIRTYPE, mode)


def link(path: str, target: str) -> Entry:
    return Entry(path, target, tarfile.SYMTYPE, 0o777)


def hard_link(path: str, target: str) -> Entry:
    return Entry(path, target, tarfile.LNKTYPE)


@dataclass
class Image:
    """An image to be written."""

    layers: Sequence[Sequence[Entry]]
    architecture: str = "amd64"
    labels: Mapping[str, str] = field(default_factory=dict)

    def write(self, place: Path) -> oci_layout.Layout:
        """Write it as a layout and return that."""
        (place / "blobs" / "sha256").mkdir(parents=True)
        packed = [archive(layer) for layer in self.layers]
        layers = [_blob(place, gzip.compress(plain, mtime=0), "application/vnd.oci.image.layer.v1.tar+gzip") for plain in packed]
        settings = {
            "architecture": self.architecture,
            "os": "linux",
            "config": {"Labels": dict(self.labels), "Env": ["PATH=/usr/bin:/bin"]},
            "history": [{"created_by": "tests"} for _ in packed],
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(plain).hexdigest()}" for plain in packed]},
        }
        config = _blob(place, json.dumps(settings).encode(), "application/vnd.oci.image.config.v1+json")
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers}
        named = _blob(place, json.dumps(manifest).encode(), MANIFEST)
        named["annotations"] = {"org.opencontainers.image.ref.name": "image"}
        (place / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [named]}))
        (place / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        return oci_layout.read(place)


def archive(entries: Sequence[Entry]) -> bytes:
    """Return a layer as plain tar."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for entry in entries:
            member = tarfile.TarInfo(entry.path)
            member.type, member.mode = entry.kind, entry.mode
            data = entry.content.encode() if entry.kind == tarfile.REGTYPE else b""
            if entry.kind in (tarfile.SYMTYPE, tarfile.LNKTYPE):
                member.linkname = entry.content
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return stream.getvalue()


def _blob(place: Path, data: bytes, media_type: str) -> dict[str, object]:
    digest = hashlib.sha256(data).hexdigest()
    (place / "blobs" / "sha256" / digest).write_bytes(data)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

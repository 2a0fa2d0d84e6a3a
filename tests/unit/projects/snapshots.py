"""Snapshots for tests."""

from __future__ import annotations

import io
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

from lossi import projects
from lossi.contract.records import CodeSnapshot
from lossi.projects import snapshot

MIB = 1 << 20


class Taken:
    """A snapshot and its files."""

    def __init__(self, root: Path, out: Path, limit: int = 50 * MIB, include: tuple[str, ...] = ()) -> None:
        folder = Path(tempfile.mkdtemp(dir=out))
        self.archive, self.diff_file = folder / "code.tar", folder / "code.diff"
        self.record: CodeSnapshot = snapshot.take(
            projects.Project(root), self.archive, self.diff_file, untracked_limit_bytes=limit, include=include
        )
        self.raw = self.archive.read_bytes()
        with tarfile.open(fileobj=io.BytesIO(self.raw), errors="surrogateescape") as tar:
            self.members = {member.name: member for member in tar}
        self.diff = self.diff_file.read_bytes() if self.diff_file.exists() else b""

    def content(self, name: str) -> bytes:
        """Return a member's content."""
        with tarfile.open(fileobj=io.BytesIO(self.raw), errors="surrogateescape") as tar:
            stream = tar.extractfile(name)
            assert stream is not None
            return stream.read()

    @property
    def links(self) -> dict[str, str]:
        """Return path → target."""
        return {link.path: link.target for link in self.record.links}

    def left(self, path: str) -> str:
        """Return why a path was left out."""
        return next((note for note in self.record.left_out if note.startswith(f"{path} (")), "")


Take = Callable[..., Taken]

"""A filesystem without room at a user's folder, and what must not be left there by whoever wrote into it."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def small(folder: Path, options: str) -> Iterator[None]:
    """Mount a small filesystem at a user's folder."""
    owner = folder.stat()
    where = f"uid={owner.st_uid},gid={owner.st_gid},mode=755,{options}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", where, "lossi-test", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Take all space that is left."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as stream, contextlib.suppress(OSError):
        while True:
            stream.write(bytes(2**16))
    with filler.open("ab", buffering=0) as stream, contextlib.suppress(OSError):
        while True:
            stream.write(b"x")
    return filler


def half_written(folder: Path) -> list[str]:
    """Return files that are left of unfinished writing, and JSON files that cannot be read."""
    wrong = [path.name for path in folder.rglob("*") if path.name.endswith((".part", ".tmp"))]
    for path in folder.rglob("*.json"):
        try:
            json.loads(path.read_text())
        except ValueError:
            wrong.append(path.name)
    return wrong

"""Packs `contract` and `runner` into ``runner.pyz``. Runs in the web process."""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from pathlib import Path
from typing import Dict

from .writing import write

EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest time that a zip file can hold: the archive must not depend on when it was made."""
ROOMS = ("contract", "runner")
LEFT_OUT = frozenset(("archive.py", "__main__.py"))

PACKAGE = b'"""The part of Lossi that runs on the compute node."""\n'


def build(destination: Path) -> str:
    """Write the runner as a zip application and return its SHA-256 in hex.

    The same sources give the same bytes: fixed order, times and permissions, no compression (zlib's output differs between
    versions, and a file of this size reads faster uncompressed).

    Raises
    ------
    OSError
        When it cannot be written; an existing file stays.
    """
    data = pack()
    write(destination, data)
    return hashlib.sha256(data).hexdigest()


def pack() -> bytes:
    """Return the bytes of the archive."""
    package = Path(__file__).parent.parent
    files: Dict[str, bytes] = {
        "__main__.py": (package / "runner" / "__main__.py").read_bytes(),
        "lossi/__init__.py": PACKAGE,
    }
    for room in ROOMS:
        for name in sorted(os.listdir(package / room)):
            if name.endswith(".py") and name not in LEFT_OUT:
                files[f"lossi/{room}/{name}"] = (package / room / name).read_bytes()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, data in sorted(files.items()):
            info = zipfile.ZipInfo(name, EPOCH)
            info.create_system = 3  # Unix, on every system
            info.external_attr = 0o100644 << 16
            archive.writestr(info, data)
    return buffer.getvalue()

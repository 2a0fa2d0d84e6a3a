"""Image files on disk: is it one, for which architecture, which one is it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from lossi.errors import InvalidInput, Unavailable

# Header of a SIF file (github.com/apptainer/sif, pkg/sif/sif.go and arch.go): 32 bytes launch script, 10 magic, 3 version, 3 architecture.
_MAGIC = slice(32, 42)
_ARCHITECTURE = slice(45, 47)
_ARCHITECTURES = {b"02": "x86_64", b"04": "aarch64"}


def check_image_file(path: str) -> str | None:
    """Return the architecture of an image file, or None for a sandbox folder.

    Raises
    ------
    Unavailable
        When there is no such file, or it may not be read.
    InvalidInput
        When it is neither a SIF file nor a sandbox folder.
    """
    if Path(path).is_dir():
        if not any(os.path.lexists(Path(path) / name) for name in (".singularity.d", "bin", "usr")):
            raise InvalidInput(
                f"{path!r} is not an image", why="the folder holds no root filesystem", hint="name a SIF file or a sandbox folder"
            )
        return None
    try:
        with Path(path).open("rb") as stream:
            header = stream.read(48)
    except FileNotFoundError:
        hint = "it was moved or removed, or a filesystem is not mounted here: `lossi env pull` or copy it again, or correct the catalogue entry"
        raise Unavailable(f"there is no image at {path!r}", hint=hint) from None
    except OSError as error:
        raise Unavailable(
            f"cannot read the image {path!r}", why=error.strerror or str(error), hint="check its permissions"
        ) from None
    if header[_MAGIC] != b"SIF_MAGIC\0":
        hint = "make one with `lossi env pull` or `apptainer build NAME.sif docker://IMAGE`: see containers/README.md"
        raise InvalidInput(f"{path!r} is not a SIF image", hint=hint)
    return _ARCHITECTURES.get(header[_ARCHITECTURE], "another architecture")


def identity(path: str) -> str:
    """Return a text that changes when the image file is replaced (hashing gigabytes for each job would take too long)."""
    try:
        status = Path(path).stat()
    except OSError:
        return f"{path}|missing"
    return f"{path}|{status.st_size}|{status.st_mtime_ns}"


def short_hash(*parts: str) -> str:
    """Return 32 hexadecimal digits that stand for ``parts``."""
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:32]

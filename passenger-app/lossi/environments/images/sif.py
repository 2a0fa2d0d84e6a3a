"""SIF files: whether a file is one, for which architecture, and where its file system begins.

The header's format is that of github.com/apptainer/sif (pkg/sif/sif.go and arch.go).
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

from lossi.errors import InvalidInput, Unavailable

_HEADER = struct.Struct("<32s10s3s3s16s8q")
"""Launch script, magic, version, architecture, id; created, modified, free and total descriptors, offsets and sizes."""
_DESCRIPTOR = struct.Struct("<i?3I7q128s384s")
_PARTITION = 0x4004
_PARTITION_KIND = struct.Struct("<2i3s")
_SQUASHFS, _PRIMARY = 1, 2
_MOST_DESCRIPTORS = 4096
_MAGIC = b"SIF_MAGIC\0"
_ARCHITECTURES = {b"02": "x86_64", b"04": "aarch64"}


def check_image_file(path: str) -> str | None:
    """Return the architecture of an image file, or None for a sandbox folder.

    Raises
    ------
    Unavailable
        When there is no such file, or it cannot be read.
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
        raise Unavailable(
            f"there is no image at {path!r}",
            hint="it was moved or removed, or its filesystem is not mounted here: run `lossi env pull`, copy it again, "
            "or correct the catalogue entry",
        ) from None
    except OSError as error:
        raise Unavailable(
            f"cannot read the image {path!r}", why=error.strerror or str(error), hint="check its permissions"
        ) from None
    if header[32:42] != _MAGIC:
        hint = "make one with `lossi env pull` or `apptainer build NAME.sif docker://IMAGE`: see containers/README.md"
        raise InvalidInput(f"{path!r} is not a SIF image", hint=hint)
    return _ARCHITECTURES.get(header[45:47], "another architecture")


def file_system_offset(path: Path) -> int:
    """Return where the main file system of a SIF begins, in bytes.

    Raises
    ------
    InvalidInput
        When it has none, or one that is not squashfs.
    """
    try:
        with path.open("rb") as stream:
            header = _HEADER.unpack(stream.read(_HEADER.size))
            total, start = header[8], header[9]
            stream.seek(start)
            for _ in range(min(total, _MOST_DESCRIPTORS)):
                fields = _DESCRIPTOR.unpack(stream.read(_DESCRIPTOR.size))
                kind, used, offset, extra = fields[0], fields[1], fields[5], fields[-1]
                if used and kind == _PARTITION:
                    form, role, _architecture = _PARTITION_KIND.unpack_from(extra)
                    if (form, role) == (_SQUASHFS, _PRIMARY):
                        return int(offset)
    except (OSError, struct.error, ValueError, OverflowError) as error:
        raise InvalidInput(f"{str(path)!r} is not a complete SIF image", why=str(error), hint="build or pull it again") from None
    raise InvalidInput(
        f"{str(path)!r} holds no squashfs file system",
        why="encrypted and writable images cannot be compared",
        hint="build it again",
    )


def identity(path: str) -> str:
    """Return a text that changes when the file is replaced; hashing gigabytes for each job would take too long."""
    try:
        status = Path(path).stat()
    except OSError:
        return f"{path}|missing"
    return f"{path}|{status.st_size}|{status.st_mtime_ns}"

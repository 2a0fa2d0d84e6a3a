"""The tree of files of a SIF image, read with squashfs-tools: nothing of the image is run, since a changed one could say anything.

Its file system is unpacked into a folder for the time of the reading. The header's form is that of github.com/apptainer/sif
(pkg/sif/sif.go); it tells where in the file the file system begins.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import struct
from pathlib import Path

from lossi.environments.images import image_file, programs
from lossi.environments.images.image_tree import Folder, Leaf, Node, content_digest
from lossi.errors import InvalidInput, Unavailable

PROGRAM = "unsquashfs"

_HEADER = struct.Struct("<32s10s3s3s16s8q")
_DESCRIPTOR = struct.Struct("<i?3I7q128s384s")
_PARTITION = 0x4004
_PARTITION_KIND = struct.Struct("<2i3s")
_SQUASHFS, _PRIMARY = 1, 2
_MOST_DESCRIPTORS = 4096


def tree(path: Path, work: Path) -> Folder:
    """Return the tree of files of a SIF.

    Parameters
    ----------
    path
        The SIF file.
    work
        Folder with room for what the image holds.

    Raises
    ------
    Unavailable
        When there is no such file, no squashfs-tools, or no room.
    InvalidInput
        When it is no SIF with a squashfs file system.
    """
    image_file.check_image_file(str(path))
    offset = file_system(path)
    program = shutil.which(PROGRAM)
    if program is None:
        raise Unavailable(
            f"there is no {PROGRAM} on this machine", hint="install squashfs-tools, or do this where Apptainer builds images"
        )
    folder = work / "sif"
    argv = [program, "-no-progress", "-no-xattrs", "-offset", str(offset), "-dest", str(folder), str(path)]
    try:
        # It may end with an error because an ordinary user can make no devices; what it left out shows in the comparison.
        programs.run(argv, f"cannot read the image {path}", accept=(0, 2))
        if not folder.is_dir():
            raise InvalidInput(f"cannot read the file system of {str(path)!r}", hint="build or pull the image again")
        return _read(folder)
    finally:
        remove(folder)


def file_system(path: Path) -> int:
    """Return where in a SIF its main file system begins, in bytes.

    Raises
    ------
    InvalidInput
        When it has none, or one that is no squashfs.
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
        raise InvalidInput(f"{str(path)!r} is not a whole SIF image", why=str(error), hint="build or pull it again") from None
    raise InvalidInput(
        f"{str(path)!r} holds no squashfs file system",
        why="encrypted and writable images cannot be compared",
        hint="build it again",
    )


def _read(folder: Path) -> Folder:
    """Return the tree below a folder of ours; what its owner may not read is made readable."""
    found = Folder()
    folder.chmod(0o700)
    with os.scandir(folder) as entries:
        for entry in entries:
            found.children[entry.name] = _node(Path(entry.path), entry.stat(follow_symlinks=False).st_mode)
    return found


def _node(path: Path, mode: int) -> Node:
    if stat.S_ISDIR(mode):
        return _read(path)
    if stat.S_ISLNK(mode):
        return Leaf("link", str(path.readlink()))
    if not stat.S_ISREG(mode):
        return Leaf("device")
    if not mode & stat.S_IRUSR:
        path.chmod(0o600)
    with path.open("rb") as stream:
        return Leaf("file", content_digest(stream), bool(mode & 0o111))


def remove(folder: Path) -> None:
    """Remove a tree, also where its folders do not allow it."""
    if not folder.exists():
        return
    for place, _, _ in os.walk(folder):
        with contextlib.suppress(OSError):
            Path(place).chmod(0o700)
    shutil.rmtree(folder, ignore_errors=True)

"""Converts an OCI image to a SIF with Apptainer: under a temporary name, compared with the image, then put in place."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from lossi import units
from lossi.environments.command import runtime
from lossi.environments.images import oci_layout, programs, sif, trees
from lossi.errors import Conflict, Forbidden, InvalidInput, NotSupported, Unavailable
from lossi.files import atomic, space

_UNPACKED = 4
"""Temporary bytes per byte of the packed image (measured with `sklearn`: three for the files, one for the file system)."""


def sif_name(name: str, variant: str, digest: str) -> str:
    """Return the file name of an image's SIF; each image has its own, so jobs with the old one are not disturbed."""
    return f"{name}-{variant}-{digest.removeprefix('sha256:')[:12]}.sif"


def check_folder(folder: Path) -> None:
    """Create the folder of SIF files, before anything that takes minutes.

    Raises
    ------
    Forbidden, Unavailable
        When it cannot be created or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise atomic.explained(error, folder) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise Forbidden(
            f"no permission to write to {folder}",
            hint="pass a folder of yours with --sif-folder, or ask an administrator to build the image there",
        )


def check_room(folder: Path, needed: int, what: str) -> None:
    """Refuse if ``needed`` bytes are not free.

    Raises
    ------
    Unavailable
    """
    free = space.space(folder).bytes_free
    if free < needed:
        raise Unavailable(
            f"there is no room in {folder} for {what}",
            why=f"{units.humanize_size(needed)} are needed, {units.humanize_size(free)} are free",
            hint="free some, or choose another folder (--sif-folder; TMPDIR for temporary files)",
        )


def check_architecture(layout: oci_layout.Layout, architecture: str) -> None:
    """Refuse an image for another architecture than the variant's.

    Raises
    ------
    NotSupported
    """
    if layout.architecture != architecture:
        raise NotSupported(
            f"the image is for {layout.architecture or 'no architecture'}, not for {architecture}",
            hint="choose the variant it is for, or build it on a machine of that architecture",
        )


def convert(layout: oci_layout.Layout, target: Path, architecture: str, work: Path, *, say: programs.Say | None) -> str:
    """Convert an image to a SIF, compare both and put the SIF in place; return the hash of their tree.

    Parameters
    ----------
    layout
        The image.
    target
        The SIF's path.
    architecture
        Of the variant.
    work
        Private folder; the image is unpacked there, by Apptainer and then for the comparison.
    say
        Called with each line of Apptainer.

    Raises
    ------
    NotSupported
        When image or SIF is for another architecture.
    Conflict
        When SIF and image differ.
    Unavailable
        When there is no Apptainer, no room, or Apptainer fails.
    """
    check_architecture(layout, architecture)
    check_room(work, _UNPACKED * layout.size, "unpacking the image")
    check_room(target.parent, layout.size, "the SIF")
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(6)}.part")
    try:
        build(f"oci:{layout.folder}", temporary, work, f"cannot make {target}", say=say)
        actual = sif.check_image_file(str(temporary))
        if actual != architecture:
            raise NotSupported(f"the SIF is for {actual}, not for {architecture}", hint="build or pull it on such a machine")
        if say:
            say("comparing the files of image and SIF")
        image, converted = oci_layout.image_tree(layout), trees.sif_tree(temporary, work)
        if different := trees.differences(image, converted):
            raise Conflict(
                "the SIF differs from the image",
                why="; ".join(different[:3]),
                hint="try again",
                differences=different,
            )
        put_in_place(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    return trees.tree_hash(image)


def build(source: str, target: Path, work: Path, what: str, *, say: programs.Say | None, insecure: bool = False) -> None:
    """Build a SIF with Apptainer; its cache and temporary files are in ``work``, never in the home folder.

    Raises
    ------
    LossiError
        By Apptainer's last lines.
    """
    private = {f"APPTAINER_{name}": str(work / name.lower()) for name in ("CACHEDIR", "TMPDIR", "CONFIGDIR")}
    for folder in private.values():
        Path(folder).mkdir(exist_ok=True, mode=0o700)
    # Binds that the caller set for running containers are not meant for building one.
    plain = {name: "" for name in os.environ if name.startswith(("APPTAINER_BIND", "SINGULARITY_BIND"))}
    # Without --fix-perms, an ordinary user's SIF has empty files for those that their owner cannot read (some /etc/shadow).
    argv = [runtime(), "build", "--force", "--fix-perms", *(["--no-https"] if insecure else []), str(target), source]
    programs.run(argv, what, say=say, environment={**plain, **private, "TMPDIR": str(work)})
    if not target.is_file():
        raise InvalidInput(what, why="Apptainer wrote no file", hint="run it again and read its output")


def put_in_place(temporary: Path, target: Path) -> None:
    """Rename a complete SIF to its final name, readable by everybody, since jobs of all users start from it."""
    try:
        temporary.chmod(0o755)
        descriptor = os.open(temporary, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.replace(target)
        atomic.sync_folder(target.parent)
    except OSError as error:
        raise atomic.explained(error, target) from error

"""From an OCI image to a SIF with Apptainer: made beside, looked at, compared with the image, and only then put in its place."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from lossi import units
from lossi.environments.command import runtime
from lossi.environments.images import image_file, image_tree, oci_layers, programs, sif_tree
from lossi.errors import Conflict, Forbidden, InvalidInput, NotSupported, Unavailable
from lossi.files import atomic, space

_UNPACKED = 4
"""Bytes that are needed in between for one of the packed image (measured with `sklearn`: files three, file system one)."""


def sif_name(name: str, variant: str, digest: str) -> str:
    """Return the file name of an image's SIF: another image has another, so that jobs that use the old one are not disturbed."""
    return f"{name}-{variant}-{digest.removeprefix('sha256:')[:12]}.sif"


def check_folder(folder: Path) -> None:
    """Make the folder of SIF files, before anything that takes minutes.

    Raises
    ------
    Forbidden, Unavailable
        When it cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise atomic.explained(error, folder) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise Forbidden(
            f"you may not write to {folder}",
            hint="name a folder of your own with --sif-folder, or ask for the image to be built there",
        )


def check_room(place: Path, needed: int, what: str) -> None:
    """Refuse when there is not the room for ``needed`` bytes.

    Raises
    ------
    Unavailable
    """
    free = space.space(place).bytes_free
    if free < needed:
        raise Unavailable(
            f"there is no room in {place} for {what}",
            why=f"{units.humanize_size(needed)} are needed, {units.humanize_size(free)} are free",
            hint="free some, or name another place (--sif-folder; TMPDIR for work in between)",
        )


def check_architecture(layout: oci_layers.Layout, architecture: str) -> None:
    """Refuse an image that is for another architecture than the variant.

    Raises
    ------
    NotSupported
    """
    if layout.architecture != architecture:
        raise NotSupported(
            f"the image is for {layout.architecture or 'no architecture'}, not for {architecture}",
            hint="name the variant that it is for, or build it on a machine of that architecture",
        )


def convert(layout: oci_layers.Layout, target: Path, architecture: str, work: Path, *, say: programs.Say | None) -> str:
    """Make a SIF of an image and return the hash of their files, which is the same; only then it takes its place.

    Parameters
    ----------
    layout
        The image.
    target
        The SIF's path.
    architecture
        Of the variant.
    work
        Private folder; what the image holds is unpacked there, once by Apptainer and then to be compared.
    say
        Told each line of Apptainer.

    Raises
    ------
    NotSupported
        When image or SIF are for another architecture.
    Conflict
        When the SIF does not hold what the image holds.
    Unavailable
        When there is no Apptainer, no room, or Apptainer fails.
    """
    check_architecture(layout, architecture)
    check_room(work, _UNPACKED * layout.size, "unpacking the image")
    check_room(target.parent, layout.size, "the SIF")
    beside = target.with_name(f".{target.name}.{secrets.token_hex(6)}.part")
    try:
        build(f"oci:{layout.folder}", beside, work, f"cannot make {target}", say=say)
        found = image_file.check_image_file(str(beside))
        if found != architecture:
            raise NotSupported(f"the SIF is for {found}, not for {architecture}", hint="build or pull it on such a machine")
        if say:
            say("comparing the files of image and SIF")
        image, sif = oci_layers.tree(layout), sif_tree.tree(beside, work)
        if different := image_tree.differences(image, sif):
            raise Conflict(
                "the SIF does not hold what the image holds",
                why="; ".join(different[:3]),
                hint="try again",
                differences=different,
            )
        put_in_place(beside, target)
    finally:
        beside.unlink(missing_ok=True)
    return image_tree.tree_hash(image)


def build(source: str, target: Path, work: Path, what: str, *, say: programs.Say | None, insecure: bool = False) -> None:
    """Let Apptainer build a SIF, with its cache and temporary files in ``work``, never in the home folder.

    Raises
    ------
    LossiError
        What Apptainer's last lines mean.
    """
    private = {f"APPTAINER_{name}": str(work / name.lower()) for name in ("CACHEDIR", "TMPDIR", "CONFIGDIR")}
    for folder in private.values():
        Path(folder).mkdir(exist_ok=True, mode=0o700)
    # What the caller has set for running containers is not meant for building one.
    plain = {name: "" for name in os.environ if name.startswith(("APPTAINER_BIND", "SINGULARITY_BIND"))}
    # Without --fix-perms, an ordinary user's SIF has nothing in files that their owner may not read (/etc/shadow of some images).
    argv = [runtime(), "build", "--force", "--fix-perms", *(["--no-https"] if insecure else []), str(target), source]
    programs.run(argv, what, say=say, environment={**plain, **private, "TMPDIR": str(work)})
    if not target.is_file():
        raise InvalidInput(what, why="Apptainer made no file", hint="run it again and look at its output")


def put_in_place(beside: Path, target: Path) -> None:
    """Give a whole file its name; everybody may read it, since jobs of all users start from it."""
    try:
        beside.chmod(0o755)
        descriptor = os.open(beside, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        beside.replace(target)
        atomic.sync_folder(target.parent)
    except OSError as error:
        raise atomic.explained(error, target) from error

"""What building and pulling an image have in common: where the results go, conversion and recording."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lossi import settings
from lossi.environments.command import runtime
from lossi.environments.images import convert, oci_layout, programs, record, trees
from lossi.environments.models import Environment, Frozen
from lossi.errors import InvalidInput


@dataclass(frozen=True)
class Target:
    """Where the results go.

    Attributes
    ----------
    sif_folder
        Folder of SIF files; None: the site's setting ``sif_folder``.
    catalog
        Catalogue file to record in; None: see `record.place`.
    own
        Whether to record in the user's own catalogue.
    insecure
        Whether plain HTTP to registries is allowed.
    sif
        Whether to make a SIF; without one the image is for other machines to pull.
    """

    sif_folder: Path | None = None
    catalog: Path | None = None
    own: bool = False
    insecure: bool = False
    sif: bool = True


class Ready(Frozen):
    """An image that is ready to run, and where it was recorded."""

    environment: str
    variant: str
    image: str
    digest: str | None
    """In the registry; None: it is in none."""
    sif: str | None
    tree: str | None
    """Hash of the files of image and SIF; None: no SIF was made."""
    catalog: str
    listed: bool
    """Whether this Lossi reads that catalogue."""


def prepare(environment: Environment, target: Target) -> tuple[Path | None, record.Place]:
    """Return the SIF folder and where to record; find what would make the end impossible before anything slow starts."""
    place = record.place(environment, file=target.catalog, own=target.own)
    if not target.sif:
        return None, place
    folder = target.sif_folder or settings.load().sif_folder
    if folder is None:
        raise InvalidInput(
            "no folder for SIF files is set",
            hint="pass one with --sif-folder (images are large: not your home), or set `sif_folder` in the site file",
        )
    folder = folder.absolute()
    convert.check_folder(folder)
    runtime()
    return folder, place


def finish(
    environment: Environment,
    image: record.Image,
    layout: oci_layout.Layout,
    folder: Path | None,
    place: record.Place,
    work: Path,
    say: programs.Say | None,
    step: programs.Say | None,
) -> Ready:
    """Convert the image, compare, and record both."""
    variant = f"{image.architecture}-{image.accelerator}"
    convert.check_architecture(layout, image.architecture)
    tree = None
    if folder is not None:
        sif = folder / convert.sif_name(place.name, variant, image.digest or layout.digest)
        say_step(step, f"converting to {sif}")
        tree = convert.convert(layout, sif, image.architecture, work, say=say)
        image = dataclasses.replace(image, sif=sif)
    say_step(step, f"recording it in {place.file}")
    listed = record.record(place, environment, image)
    return Ready(
        environment=place.name,
        variant=variant,
        image=image.image,
        digest=image.digest,
        sif=str(image.sif) if image.sif else None,
        tree=tree,
        catalog=str(place.file),
        listed=listed is not None,
    )


def say_step(step: programs.Say | None, text: str) -> None:
    """Announce a step to the caller's ``step``, if any."""
    if step:
        step(text)


@contextlib.contextmanager
def work_folder() -> Iterator[Path]:
    """Create a private folder on local disk for the duration of the block."""
    folder = Path(tempfile.mkdtemp(prefix="lossi-image-", dir=settings.temporary_dir()))
    try:
        yield folder
    finally:
        trees.remove(folder)

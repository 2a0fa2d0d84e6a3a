"""Whether a SIF is still the image that its digest names: both are read and compared file by file, nothing of either is run."""

from __future__ import annotations

from pathlib import Path

from lossi.environments.images import build, image_tree, oci_layers, programs, registry, sif_tree
from lossi.environments.images.pipeline import say_step, work_folder
from lossi.environments.models import Environment, Frozen
from lossi.errors import NotFound


class Verified(Frozen):
    """What a comparison found."""

    environment: str
    variant: str
    image: str
    digest: str | None
    sif: str
    image_tree: str
    sif_tree: str
    same: bool
    differences: list[str]
    """The first ones, in words."""


def verify_image(
    environment: Environment,
    variant: str | None = None,
    *,
    insecure: bool = False,
    say: programs.Say | None = None,
    step: programs.Say | None = None,
) -> Verified:
    """Compare the SIF of an environment with the image that its digest names, file by file; nothing of either is run.

    An image that is in no registry is compared with what the builder of this machine has under its name.

    Raises
    ------
    NotFound
        When the catalogue names no SIF, or the image is not there.
    LossiError
        When one of both cannot be read.
    """
    architecture, accelerator, entry = build.variant_of(environment, variant)
    name = f"{architecture}-{accelerator}"
    if not entry.sif or not entry.image:
        missing = "SIF" if not entry.sif else "image"
        raise NotFound(
            f"there is nothing to compare: {environment.name} {name} has no {missing} in the catalogue",
            hint=f"lossi env pull {environment.name} --variant {name}, or lossi env build",
        )
    with work_folder() as work:
        say_step(step, f"fetching {entry.image}")
        if entry.digest:
            layout = registry.fetch(entry.image, entry.digest, architecture, work / "layout", say=say, insecure=insecure)
        else:
            layout = build.export(entry.image, work, say=say)
        say_step(step, f"comparing with {entry.sif}")
        image, sif = oci_layers.tree(layout), sif_tree.tree(Path(entry.sif), work)
        return Verified(
            environment=environment.name,
            variant=name,
            image=entry.image,
            digest=entry.digest,
            sif=entry.sif,
            image_tree=image_tree.tree_hash(image),
            sif_tree=image_tree.tree_hash(sif),
            same=image_tree.tree_hash(image) == image_tree.tree_hash(sif),
            differences=image_tree.differences(image, sif),
        )

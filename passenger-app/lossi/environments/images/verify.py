"""Compares a SIF with the image of its digest, file by file; nothing of either is run."""

from __future__ import annotations

from pathlib import Path

from lossi.environments.images import build, oci_layout, pipeline, programs, registry, trees
from lossi.environments.models import Environment, Frozen
from lossi.errors import NotFound


class Verified(Frozen):
    """The result of a comparison."""

    environment: str
    variant: str
    image: str
    digest: str | None
    sif: str
    image_tree: str
    sif_tree: str
    same: bool
    differences: list[str]
    """The first differences, in words."""


def verify_image(
    environment: Environment,
    variant: str | None = None,
    *,
    insecure: bool = False,
    say: programs.Say | None = None,
    step: programs.Say | None = None,
) -> Verified:
    """Compare the SIF of an environment with the image of its digest, file by file.

    For an image in no registry, the one of that name in this machine's builder is used.

    Raises
    ------
    NotFound
        When the catalogue names no SIF, or the image is not there.
    LossiError
        When SIF or image cannot be read.
    """
    architecture, accelerator, entry = build.variant_of(environment, variant)
    name = f"{architecture}-{accelerator}"
    if not entry.sif or not entry.image:
        missing = "SIF" if not entry.sif else "image"
        raise NotFound(
            f"nothing to compare: {environment.name} {name} has no {missing} in the catalogue",
            hint=f"lossi env pull {environment.name} --variant {name}, or lossi env build",
        )
    with pipeline.work_folder() as work:
        pipeline.say_step(step, f"fetching {entry.image}")
        if entry.digest:
            layout = registry.fetch(entry.image, entry.digest, architecture, work / "layout", say=say, insecure=insecure)
        else:
            layout = build.export(entry.image, work, say=say)
        pipeline.say_step(step, f"comparing with {entry.sif}")
        image, sif = oci_layout.image_tree(layout), trees.sif_tree(Path(entry.sif), work)
        return Verified(
            environment=environment.name,
            variant=name,
            image=entry.image,
            digest=entry.digest,
            sif=entry.sif,
            image_tree=trees.tree_hash(image),
            sif_tree=trees.tree_hash(sif),
            same=trees.tree_hash(image) == trees.tree_hash(sif),
            differences=trees.differences(image, sif),
        )

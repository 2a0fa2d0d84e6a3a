"""Pulls an environment's image from a registry by its digest, converts it and records it."""

from __future__ import annotations

import json

from lossi.environments.images import build, oci_layout, pipeline, programs, record, registry
from lossi.environments.images.pipeline import Ready, Target
from lossi.environments.models import Environment, Variant
from lossi.errors import InvalidInput, NotFound


def pull_image(
    environment: Environment,
    variant: str | None = None,
    *,
    target: Target | None = None,
    image: str | None = None,
    say: programs.Say | None = None,
    step: programs.Say | None = None,
) -> Ready:
    """Pull an environment's image by its digest, make the SIF, and record both.

    Parameters
    ----------
    environment, variant
        What to pull; without a variant, the CPU image of this machine.
    target
        Where the results go.
    image
        Reference, with or without ``@sha256:…``; None: image and digest of the catalogue. A tag is pinned to the registry's
        current digest.
    say, step
        Called with each line of the programs, and with each step.

    Raises
    ------
    NotFound
        When neither catalogue nor caller names a registry, or the registry has no such image.
    LossiError
        Of the failed step; the catalogue and the old SIF stay as they were.
    """
    architecture, accelerator, entry = build.variant_of(environment, variant)
    name, digest = registry.parse_reference(image) if image else (entry.image, entry.digest)
    if not name or (image is None and not digest) or not registry.is_remote(name):
        raise NotFound(
            f"no registry is known for {environment.name} {architecture}-{accelerator}",
            why=f"the catalogue names {name or 'no image'}" + ("" if digest else " without a digest"),
            hint=f"lossi env pull {environment.name} --image REGISTRY/NAME:TAG, or build it: lossi env build {environment.name}",
        )
    target = target or Target()
    folder, place = pipeline.prepare(environment, target)
    with pipeline.work_folder() as work:
        pipeline.say_step(step, f"fetching {name}")
        digest = digest or registry.resolve_digest(name, None, insecure=target.insecure)
        layout = registry.fetch(name, digest, architecture, work / "layout", say=say, insecure=target.insecure)
        _check_labels(layout, environment, f"{architecture}-{accelerator}")
        frameworks = _frameworks(layout) or {**environment.frameworks, **entry.frameworks}
        pulled = record.Image(architecture, accelerator, name, digest, None, frameworks)
        return pipeline.finish(environment, pulled, layout, folder, place, work, say, step)


def _check_labels(layout: oci_layout.Layout, environment: Environment, variant: str) -> None:
    """Refuse an image whose labels name another environment or variant; one without our labels is accepted."""
    labelled, labelled_variant = layout.labels.get(f"{build.LABEL}environment"), layout.labels.get(f"{build.LABEL}variant")
    name = environment.name.removeprefix("my-")
    if labelled not in (None, name, environment.name) or labelled_variant not in (None, variant):
        raise InvalidInput(
            f"the image is {labelled} {labelled_variant}, not {environment.name} {variant}",
            why="its labels say so",
            hint="choose that environment and variant, or another image",
        )


def _frameworks(layout: oci_layout.Layout) -> dict[str, str]:
    """Return the packages that the labels of one of our images name."""
    try:
        frameworks = json.loads(layout.labels.get(f"{build.LABEL}frameworks", "{}"))
        return dict(Variant.model_validate({"image": "image", "frameworks": frameworks}).frameworks)
    except ValueError:
        return {}

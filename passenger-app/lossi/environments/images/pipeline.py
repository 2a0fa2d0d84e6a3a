"""The whole way of an image: built or fetched, pushed, converted, compared, recorded. Minutes each, never in the web process."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from lossi import settings
from lossi.environments.command import runtime
from lossi.environments.images import build as builder, convert, oci_layers, programs, recording, registry, sif_tree
from lossi.environments.models import Environment, Frozen, Variant
from lossi.errors import InvalidInput, NotFound


@dataclass(frozen=True)
class Target:
    """Where results go.

    Attributes
    ----------
    sif_folder
        Folder of SIF files; None: that of the site's setting ``sif_folder``.
    catalog
        Catalogue file to record in; None: see `recording.place`.
    own
        The user's own catalogue.
    insecure
        Whether registries may be spoken to by plain HTTP.
    sif
        Whether a SIF is made; without one the image is for other machines to pull.
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
    """As the registry has it; None: it is in no registry."""
    sif: str | None
    tree: str | None
    """Hash of its files, the same in the image and in the SIF; None: no SIF was made."""
    catalog: str
    listed: bool
    """Whether the catalogue is one of those that are read here."""


def build_image(
    environment: Environment,
    variant: str | None = None,
    *,
    target: Target = Target(),
    push: str | None = None,
    base: str | None = None,
    arguments: Sequence[str] = (),
    mounts: Sequence[str] = (),
    host_network: bool = False,
    say: programs.Say | None = None,
    step: programs.Say | None = None,
) -> Ready:
    """Build an environment's image from its recipe, push it where asked, make the SIF, and record both.

    Parameters
    ----------
    environment, variant
        What to build; without a variant, the CPU image of this machine.
    target
        Where results go.
    push
        Reference to push to; without a tag it gets that of the local image.
    base, arguments, mounts, host_network
        See `builder.build`.
    say, step
        Told each line of the programs, and in words what is begun.

    Raises
    ------
    LossiError
        Of the step that fails; the catalogue and the old SIF are as they were.
    """
    made = builder.recipe(environment, variant)
    folder, where = _prepared(environment, target)
    reference = _with_tag(push, made.image) if push else None
    if reference:
        registry.program()
    with work_folder() as work:
        say_step(step, f"building {made.image} from {made.file}")
        layout = builder.build(made, work, base=base, arguments=arguments, mounts=mounts, host_network=host_network, say=say)
        digest = None
        if reference:
            say_step(step, f"pushing {reference}")
            digest = registry.push(layout, reference, say=say, insecure=target.insecure)
        image = recording.Image(made.architecture, made.accelerator, reference or made.image, digest, None, made.frameworks)
        return _finished(environment, image, layout, folder, where, work, say, step)


def pull_image(
    environment: Environment,
    variant: str | None = None,
    *,
    target: Target = Target(),
    image: str | None = None,
    say: programs.Say | None = None,
    step: programs.Say | None = None,
) -> Ready:
    """Fetch an environment's image by its digest, make the SIF, and record both.

    Parameters
    ----------
    environment, variant
        What to fetch; without a variant, the CPU image of this machine.
    target
        Where results go.
    image
        Reference, with or without ``@sha256:…``; None: image and digest of the catalogue. A tag is pinned by the digest that the
        registry has for it now.
    say, step
        Told each line of the programs, and in words what is begun.

    Raises
    ------
    NotFound
        When nothing says where the image is, or the registry has none.
    LossiError
        Of the step that fails; the catalogue and the old SIF are as they were.
    """
    architecture, accelerator, entry = builder.variant_of(environment, variant)
    name, digest = registry.checked_reference(image) if image else (entry.image, entry.digest)
    if not name or (image is None and not digest) or not registry.is_remote(name):
        raise NotFound(
            f"nothing says in which registry {environment.name} {architecture}-{accelerator} is",
            why=f"the catalogue names {name or 'no image'}" + ("" if digest else " without a digest"),
            hint=f"lossi env pull {environment.name} --image REGISTRY/NAME:TAG, or build it: lossi env build {environment.name}",
        )
    folder, where = _prepared(environment, target)
    with work_folder() as work:
        say_step(step, f"fetching {name}")
        digest = digest or registry.resolve_digest(name, None, insecure=target.insecure)
        layout = registry.fetch(name, digest, architecture, work / "layout", say=say, insecure=target.insecure)
        _check_labels(layout, environment, f"{architecture}-{accelerator}")
        frameworks = _frameworks(layout) or {**environment.frameworks, **entry.frameworks}
        found = recording.Image(architecture, accelerator, name, digest, None, frameworks)
        return _finished(environment, found, layout, folder, where, work, say, step)


def _prepared(environment: Environment, target: Target) -> tuple[Path | None, recording.Place]:
    """Return where SIF and record go; what would make the end impossible is found before the first minute is spent."""
    where = recording.place(environment, file=target.catalog, own=target.own)
    if not target.sif:
        return None, where
    folder = target.sif_folder or settings.load().sif_folder
    if folder is None:
        raise InvalidInput(
            "nothing says where SIF files belong",
            hint="name a folder with --sif-folder (images are large: not your home), or set `sif_folder` in the site file",
        )
    folder = folder.absolute()
    convert.check_folder(folder)
    runtime()
    return folder, where


def _finished(
    environment: Environment,
    image: recording.Image,
    layout: oci_layers.Layout,
    folder: Path | None,
    where: recording.Place,
    work: Path,
    say: programs.Say | None,
    step: programs.Say | None,
) -> Ready:
    """Convert, compare and record."""
    variant = f"{image.architecture}-{image.accelerator}"
    convert.check_architecture(layout, image.architecture)
    tree = None
    if folder is not None:
        sif = folder / convert.sif_name(where.name, variant, image.digest or layout.digest)
        say_step(step, f"converting to {sif}")
        tree = convert.convert(layout, sif, image.architecture, work, say=say)
        image = dataclasses.replace(image, sif=sif)
    say_step(step, f"recording it in {where.file}")
    listed = recording.record(where, environment, image)
    return Ready(
        environment=where.name,
        variant=variant,
        image=image.image,
        digest=image.digest,
        sif=str(image.sif) if image.sif else None,
        tree=tree,
        catalog=str(where.file),
        listed=listed is not None,
    )


def _check_labels(layout: oci_layers.Layout, environment: Environment, variant: str) -> None:
    """Refuse an image that says itself that it is another environment or variant; one without our labels is taken."""
    said = layout.labels.get(f"{builder.LABEL}environment"), layout.labels.get(f"{builder.LABEL}variant")
    name = environment.name.removeprefix("my-")
    if said[0] not in (None, name, environment.name) or said[1] not in (None, variant):
        raise InvalidInput(
            f"the image is {said[0]} {said[1]}, not {environment.name} {variant}",
            why="its labels say so",
            hint="name that environment and variant, or another image",
        )


def _frameworks(layout: oci_layers.Layout) -> dict[str, str]:
    """Return what an image of ours says of its packages."""
    try:
        said = json.loads(layout.labels.get(f"{builder.LABEL}frameworks", "{}"))
        return dict(Variant.model_validate({"image": "image", "frameworks": said}).frameworks)
    except ValueError:
        return {}


def _with_tag(push: str, local: str) -> str:
    """Return the reference to push to."""
    name, digest = registry.checked_reference(push)
    if digest or not registry.is_remote(name):
        raise InvalidInput(
            f"{push[:200]!r} is nothing to push to", hint="name a registry, for example registry.example/ml/sklearn"
        )
    return name if ":" in name.rpartition("/")[2] else f"{name}:{local.rpartition(':')[2]}"


def say_step(step: programs.Say | None, text: str) -> None:
    """Tell what is begun, where somebody listens."""
    if step:
        step(text)


@contextlib.contextmanager
def work_folder() -> Iterator[Path]:
    """Make a private folder on this machine's disk for the time of the block."""
    folder = Path(tempfile.mkdtemp(prefix="lossi-image-", dir=settings.temporary_dir()))
    try:
        yield folder
    finally:
        sif_tree.remove(folder)

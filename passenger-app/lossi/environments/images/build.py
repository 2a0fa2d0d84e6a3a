"""Builds an environment's image from its recipe with podman or buildah, pushes it, converts it and records it."""

from __future__ import annotations

import hashlib
import json
import platform
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import lossi
from lossi.environments import catalog
from lossi.environments.images import convert, oci_layout, pipeline, programs, record, registry
from lossi.environments.images.pipeline import Ready, Target
from lossi.environments.models import ACCELERATORS, ARCHITECTURES, Environment, Variant
from lossi.errors import InvalidInput, NotFound, NotSupported, Unavailable, did_you_mean

ENGINES = ("podman", "buildah")
"""Builders in order of preference; the options used here are the same for both."""

LABEL = "org.lossi."
_ROOM = 2 << 30
"""Bytes that must be free before a build; how much it takes is known only at its end."""
_ARGUMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=.*", re.DOTALL)


@dataclass(frozen=True)
class Recipe:
    """What an image is built from.

    Attributes
    ----------
    file
        The Containerfile; its folder is the build context.
    lock
        SHA-256 of the locked requirements that it copies, in hexadecimal.
    frameworks
        The packages that matter to users, with their versions.
    """

    environment: str
    architecture: str
    accelerator: str
    file: Path
    image: str
    lock: str
    frameworks: dict[str, str]

    @property
    def variant(self) -> str:
        """Its name on the command line."""
        return f"{self.architecture}-{self.accelerator}"


def variant_of(environment: Environment, name: str | None) -> tuple[str, str, Variant]:
    """Return architecture, accelerator and catalogue entry of a variant; without a name, the CPU image of this machine.

    Raises
    ------
    InvalidInput
        When the name is not valid.
    NotFound
        When the environment has none of that name.
    """
    name = name or f"{platform.machine()}-none"
    architecture, _, accelerator = name.partition("-")
    if architecture not in ARCHITECTURES or accelerator not in ACCELERATORS:
        raise InvalidInput(f"{name[:80]!r} is not a variant", hint="write architecture and accelerator, for example x86_64-cuda")
    variant = environment.variant(architecture, accelerator)
    if variant is None:
        known = environment.variant_names()
        hint = did_you_mean(name, known) or (
            f"choose --variant {', '.join(known)}" if known else "it is a Python of this machine only"
        )
        raise NotFound(f"environment {environment.name!r} has no variant {name}", hint=hint, known=known)
    return architecture, accelerator, variant


def recipe(environment: Environment, variant: str | None = None) -> Recipe:
    """Return the recipe of a variant: the catalogue's own, or the shipped one of the same name.

    Raises
    ------
    NotFound, InvalidInput
        When there is no such variant, or no recipe for it.
    """
    architecture, accelerator, entry = variant_of(environment, variant)
    source, shipped = environment, entry
    if not entry.recipe:
        source, shipped = _shipped(environment, architecture, accelerator) or (environment, entry)
    if not shipped.recipe:
        raise NotFound(
            f"there is no recipe for {environment.name} {architecture}-{accelerator}",
            hint=f"pull the image instead: lossi env pull {environment.name} --image REGISTRY/NAME:TAG",
        )
    file = Path(shipped.recipe)
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise NotFound(f"cannot read the recipe {file}", why=str(error), hint="correct `recipe` in the catalogue") from None
    frameworks = {**source.frameworks, **shipped.frameworks}
    image = shipped.image or f"localhost/lossi/{environment.name}:{lossi.__version__}-{architecture}-{accelerator}"
    return Recipe(environment.name, architecture, accelerator, file, image, _lock(file.parent, text), frameworks)


def _shipped(environment: Environment, architecture: str, accelerator: str) -> tuple[Environment, Variant] | None:
    """Return the shipped entry and variant of an environment that is in the site's own catalogue."""
    folder = catalog.shipped_file().parent
    for name, entry, _line in catalog.load_file(catalog.shipped_file()).entries:
        variant = entry.variant(architecture, accelerator)
        if name == environment.name and variant and variant.recipe:
            shipped = variant.model_copy(update={"recipe": str(folder / variant.recipe)})
            return environment.model_copy(update={"frameworks": entry.frameworks}), shipped
    return None


def _lock(folder: Path, text: str) -> str:
    """Return the SHA-256 of the locked requirements that a recipe names."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("requirements*.txt")):
        if re.search(rf"(?<![\w-]){re.escape(path.name)}", text):
            digest.update(f"{path.name}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def labels(recipe: Recipe, base: str | None = None) -> dict[str, str]:
    """Return the labels of an image (keys of github.com/opencontainers/image-spec, annotations.md, and ours)."""
    values = {
        "org.opencontainers.image.created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "org.opencontainers.image.version": lossi.__version__,
        f"{LABEL}environment": recipe.environment,
        f"{LABEL}variant": recipe.variant,
        f"{LABEL}recipe-sha256": hashlib.sha256(recipe.file.read_bytes()).hexdigest(),
        f"{LABEL}lock-sha256": recipe.lock,
        f"{LABEL}frameworks": json.dumps(recipe.frameworks, sort_keys=True),
    }
    return {**values, **({"org.opencontainers.image.base.name": base} if base else {})}


def engine() -> str:
    """Return the path of podman or buildah.

    Raises
    ------
    Unavailable
        When there is none on PATH.
    """
    for name in ENGINES:
        if path := shutil.which(name):
            return path
    raise Unavailable(
        "this machine cannot build images",
        why="neither podman nor buildah is on PATH",
        hint="install one of them, or build on another machine, push, and run `lossi env pull` here",
    )


def build_image(
    environment: Environment,
    variant: str | None = None,
    *,
    target: Target | None = None,
    push: str | None = None,
    base: str | None = None,
    arguments: Sequence[str] = (),
    mounts: Sequence[str] = (),
    host_network: bool = False,
    say: programs.Say | None = None,
    step: programs.Say | None = None,
) -> Ready:
    """Build an environment's image from its recipe, push it if requested, make the SIF, and record both.

    Parameters
    ----------
    environment, variant
        What to build; without a variant, the CPU image of this machine.
    target
        Where the results go.
    push
        Reference to push to; without a tag, the local image's is added.
    base, arguments, mounts, host_network
        See `run_builder`.
    say, step
        Called with each line of the programs, and with each step.

    Raises
    ------
    LossiError
        Of the failed step; the catalogue and the old SIF stay as they were.
    """
    source = recipe(environment, variant)
    target = target or Target()
    folder, place = pipeline.prepare(environment, target)
    reference = _with_tag(push, source.image) if push else None
    if reference:
        registry.program()
    with pipeline.work_folder() as work:
        pipeline.say_step(step, f"building {source.image} from {source.file}")
        layout = run_builder(source, work, base=base, arguments=arguments, mounts=mounts, host_network=host_network, say=say)
        digest = None
        if reference:
            pipeline.say_step(step, f"pushing {reference}")
            digest = registry.push(layout, reference, say=say, insecure=target.insecure)
        image = record.Image(source.architecture, source.accelerator, reference or source.image, digest, None, source.frameworks)
        return pipeline.finish(environment, image, layout, folder, place, work, say, step)


def run_builder(
    recipe: Recipe,
    work: Path,
    *,
    base: str | None = None,
    arguments: Sequence[str] = (),
    mounts: Sequence[str] = (),
    host_network: bool = False,
    say: programs.Say | None = None,
) -> oci_layout.Layout:
    """Build an image and return it as an OCI layout in ``work``; it also stays in the builder's own store.

    Parameters
    ----------
    recipe
        The recipe.
    work
        Private folder with room for the packed image.
    base
        Base image instead of the recipe's.
    arguments
        Build arguments of the recipe, each ``NAME=VALUE``. They are visible in the image's history: no secrets.
    mounts
        Files or folders ``SOURCE[:TARGET]`` that the build sees read-only and the image does not contain: pip.conf, certificates.
    host_network
        Whether the build uses the machine's own network (a proxy on 127.0.0.1).
    say
        Called with each line of the builder.

    Raises
    ------
    NotSupported
        When the variant is for another architecture than this machine's.
    Unavailable
        When there is no builder, no room, no subordinate ids, or a step fails.
    """
    if recipe.architecture != platform.machine():
        raise NotSupported(
            f"{recipe.environment} {recipe.variant} cannot be built on this machine",
            why=f"it is {platform.machine()}, the variant is {recipe.architecture}",
            hint="build it on a machine of that architecture, push it, and pull it here",
        )
    arguments = [*([f"BASE={base}"] if base else []), *arguments]
    for argument in arguments:
        if not _ARGUMENT.fullmatch(argument):
            raise InvalidInput(f"{argument[:80]!r} is not a build argument", hint="write NAME=VALUE")
    volumes = [word for mount in mounts for word in ("--volume", _volume(mount))]
    program = engine()
    convert.check_room(work, _ROOM, "building an image")
    argv = [program, "build", "--format", "oci", "--file", str(recipe.file), "--tag", recipe.image]
    if host_network:
        argv += ["--network", "host"]
    for key, value in labels(recipe, base).items():
        argv += ["--label", f"{key}={value}"]
    for argument in arguments:
        argv += ["--build-arg", argument]
    programs.run([*argv, *volumes, str(recipe.file.parent)], f"cannot build {recipe.image}", say=say, cwd=work)
    return export(recipe.image, work, say=say)


def export(image: str, work: Path, *, say: programs.Say | None = None) -> oci_layout.Layout:
    """Export an image from the builder's own store into an OCI layout in ``work``.

    Raises
    ------
    NotFound, Unavailable
        When the builder has no such image, or there is no builder.
    """
    folder = work / "layout"
    argv = [engine(), "push", "--format", "oci", image, f"oci:{folder}:image"]
    programs.run(argv, f"cannot export {image} from the builder's store", say=say, cwd=work, environment={"TMPDIR": str(work)})
    return oci_layout.read(folder)


def _volume(text: str) -> str:
    source, _, target = text.partition(":")
    path = Path(source).absolute()
    if not path.exists() or ":" in target:
        raise InvalidInput(
            f"{text[:200]!r} cannot be mounted in the build", hint="write SOURCE or SOURCE:TARGET; SOURCE must exist"
        )
    return f"{path}:{target or path}:ro"


def _with_tag(push: str, local: str) -> str:
    """Return the reference to push to."""
    name, digest = registry.parse_reference(push)
    if digest or not registry.is_remote(name):
        raise InvalidInput(f"{push[:200]!r} is not a registry to push to", hint="for example registry.example/ml/sklearn")
    return name if ":" in name.rpartition("/")[2] else f"{name}:{local.rpartition(':')[2]}"

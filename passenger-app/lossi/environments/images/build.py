"""Building an environment's image from its recipe with podman or buildah, with labels that say what is inside."""

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
from lossi.environments.images import convert, oci_layers, programs
from lossi.environments.models import ACCELERATORS, ARCHITECTURES, Environment, Variant
from lossi.errors import InvalidInput, NotFound, NotSupported, Unavailable, did_you_mean

ENGINES = ("podman", "buildah")
"""Those that build, in the order in which they are looked for; their options are the same as far as they are used here."""

LABEL = "org.lossi."
_ROOM = 2 << 30
"""Bytes that must be free before a build begins; how much it takes is known only at its end."""
_ARGUMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=.*", re.DOTALL)


@dataclass(frozen=True)
class Recipe:
    """What an image is built from.

    Attributes
    ----------
    file
        The Containerfile; its folder is what the build sees.
    lock
        SHA-256 of the locked requirements that it copies, in hexadecimal.
    frameworks
        Packages that it is chosen for, with their versions.
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
        """As it is called on the command line."""
        return f"{self.architecture}-{self.accelerator}"


def variant_of(environment: Environment, name: str | None) -> tuple[str, str, Variant]:
    """Return architecture, accelerator and catalogue entry of a variant; without a name, the CPU image of this machine.

    Raises
    ------
    InvalidInput
        When it is no variant's name.
    NotFound
        When the environment has none of that name.
    """
    asked = name or f"{platform.machine()}-none"
    architecture, _, accelerator = asked.partition("-")
    if architecture not in ARCHITECTURES or accelerator not in ACCELERATORS:
        raise InvalidInput(
            f"{asked[:80]!r} is no variant", hint="a variant is architecture and accelerator, for example x86_64-cuda"
        )
    found = environment.variant(architecture, accelerator)
    if found is None:
        known = environment.variant_names()
        hint = did_you_mean(asked, known) or (
            f"choose --variant {', '.join(known)}" if known else "it is a Python of this machine only"
        )
        raise NotFound(f"environment {environment.name!r} has no variant {asked}", hint=hint, known=known)
    return architecture, accelerator, found


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
            hint=f"fetch the image instead: lossi env pull {environment.name} --image REGISTRY/NAME:TAG",
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
    """Return the shipped entry of an environment that a site has taken into its own catalogue."""
    folder = catalog.shipped_file().parent
    for name, entry, _line in catalog.load_file(catalog.shipped_file()).entries:
        variant = entry.variant(architecture, accelerator)
        if name == environment.name and variant and variant.recipe:
            found = variant.model_copy(update={"recipe": str(folder / variant.recipe)})
            return environment.model_copy(update={"frameworks": entry.frameworks}), found
    return None


def _lock(folder: Path, text: str) -> str:
    """Return the SHA-256 of the locked requirements that a recipe names."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("requirements*.txt")):
        if re.search(rf"(?<![\w-]){re.escape(path.name)}", text):
            digest.update(f"{path.name}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def labels(made: Recipe, base: str | None = None) -> dict[str, str]:
    """Return the labels that say what is in an image (keys of github.com/opencontainers/image-spec, annotations.md, and ours)."""
    found = {
        "org.opencontainers.image.created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "org.opencontainers.image.version": lossi.__version__,
        f"{LABEL}environment": made.environment,
        f"{LABEL}variant": made.variant,
        f"{LABEL}recipe-sha256": hashlib.sha256(made.file.read_bytes()).hexdigest(),
        f"{LABEL}lock-sha256": made.lock,
        f"{LABEL}frameworks": json.dumps(made.frameworks, sort_keys=True),
    }
    return {**found, **({"org.opencontainers.image.base.name": base} if base else {})}


def engine() -> str:
    """Return the path of podman or buildah.

    Raises
    ------
    Unavailable
        When there is none on PATH.
    """
    for name in ENGINES:
        if found := shutil.which(name):
            return found
    raise Unavailable(
        "there is nothing to build images with on this machine",
        why="neither podman nor buildah is on PATH",
        hint="install one of them, build on another machine and `lossi env pull` the image here, or convert one that is in a registry",
    )


def build(
    made: Recipe,
    work: Path,
    *,
    base: str | None = None,
    arguments: Sequence[str] = (),
    mounts: Sequence[str] = (),
    host_network: bool = False,
    say: programs.Say | None = None,
) -> oci_layers.Layout:
    """Build an image and return it as an OCI layout in ``work``; it stays in the builder's own store too.

    Parameters
    ----------
    made
        The recipe.
    work
        Private folder with room for the packed image.
    base
        Image to build on, instead of the recipe's own.
    arguments
        Build arguments of the recipe, each ``NAME=VALUE``. They are seen in the image's history: no secrets.
    mounts
        Files or folders ``SOURCE[:TARGET]`` that the build sees read-only and the image does not hold: pip.conf, certificates.
    host_network
        Whether the build uses the machine's own network (a proxy on 127.0.0.1).
    say
        Told each line of the builder.

    Raises
    ------
    NotSupported
        When the variant is for another architecture than this machine's.
    Unavailable
        When there is no builder, no room, no subordinate ids, or a step fails.
    """
    if made.architecture != platform.machine():
        raise NotSupported(
            f"{made.environment} {made.variant} cannot be built on this machine",
            why=f"it is {platform.machine()}, the variant is {made.architecture}",
            hint="build it on a machine of that architecture, push it, and pull it here",
        )
    given = [*([f"BASE={base}"] if base else []), *arguments]
    for argument in given:
        if not _ARGUMENT.fullmatch(argument):
            raise InvalidInput(f"{argument[:80]!r} is no build argument", hint="write NAME=VALUE")
    shown = [word for mount in mounts for word in ("--volume", _volume(mount))]
    program = engine()
    convert.check_room(work, _ROOM, "building an image")
    argv = [program, "build", "--format", "oci", "--file", str(made.file), "--tag", made.image]
    if host_network:
        argv += ["--network", "host"]
    for key, value in labels(made, base).items():
        argv += ["--label", f"{key}={value}"]
    for argument in given:
        argv += ["--build-arg", argument]
    programs.run([*argv, *shown, str(made.file.parent)], f"cannot build {made.image}", say=say, cwd=work)
    return export(made.image, work, say=say)


def export(image: str, work: Path, *, say: programs.Say | None = None) -> oci_layers.Layout:
    """Copy an image of the builder's own store into an OCI layout in ``work``.

    Raises
    ------
    NotFound, Unavailable
        When the builder has no such image, or there is no builder.
    """
    folder = work / "layout"
    argv = [engine(), "push", "--format", "oci", image, f"oci:{folder}:image"]
    programs.run(argv, f"cannot take {image} out of the builder's store", say=say, cwd=work, environment={"TMPDIR": str(work)})
    return oci_layers.read(folder)


def _volume(text: str) -> str:
    source, _, target = text.partition(":")
    path = Path(source).absolute()
    if not path.exists() or ":" in target:
        raise InvalidInput(
            f"{text[:200]!r} cannot be shown to the build", hint="write SOURCE or SOURCE:TARGET, where SOURCE exists"
        )
    return f"{path}:{target or path}:ro"

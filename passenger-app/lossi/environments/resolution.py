"""Resolves an environment to what is started: variant, image or interpreter, prefix. Decided once, before submission.

Checks this machine (does the SIF exist, does the Python answer) but starts no container. An image without a SIF runs by
reference only if it is pinned by a digest: a tag may have moved by the time the job starts.
"""

from __future__ import annotations

import hashlib
import platform
from pathlib import Path

from lossi.contract.records import ResolvedEnvironment
from lossi.environments import interpreter
from lossi.environments.command import RUNTIME, container_prefix, reference, runtime
from lossi.environments.images import sif
from lossi.environments.models import ACCELERATORS, ARCHITECTURES, Environment, Variant, Way
from lossi.errors import InvalidInput, LossiError, NotSupported, Unavailable, did_you_mean

TARGETS = ("auto", "local", "apptainer")
CONTRACT = ("ipykernel", "mlflow", "papermill")
"""Distributions that every environment must have, besides Python ≥ 3.9."""


def resolve(
    environment: Environment, *, target: str = "auto", accelerator: str = "none", architecture: str | None = None
) -> ResolvedEnvironment:
    """Resolve an environment.

    Parameters
    ----------
    environment
        From the catalogue.
    target
        ``local`` (a Python of this machine), ``apptainer``, or ``auto``: the SIF if it and Apptainer exist here; otherwise the
        local Python; otherwise the pinned image.
    accelerator
        ``none``, ``cuda`` or ``rocm``; a local Python is the same for all.
    architecture
        Of the machine that will run it (default: this one).

    Raises
    ------
    InvalidInput
        When ``target``, ``accelerator`` or ``architecture`` is unknown.
    NotSupported
        When the environment does not offer that.
    Unavailable
        When the interpreter or image is not on this machine.
    """
    _check_known("target", target, TARGETS)
    _check_known("accelerator", accelerator, ACCELERATORS)
    machine = platform.machine()
    architecture = architecture or machine
    if architecture != machine:
        _check_known("architecture", architecture, ARCHITECTURES)
    if target == "local":
        return _local(environment, architecture)
    if target == "apptainer":
        return _container(environment, architecture, accelerator)
    return _automatic(environment, architecture, accelerator)


def _automatic(environment: Environment, architecture: str, accelerator: str) -> ResolvedEnvironment:
    variant = environment.variant(architecture, accelerator)
    has_image = variant is not None and _sif_exists(variant) and _has_runtime()
    if environment.local is None or has_image:
        return _container(environment, architecture, accelerator)
    try:
        return _local(environment, architecture)
    except LossiError as local_error:
        if variant is None:
            raise
        try:
            return _container(environment, architecture, accelerator)
        except LossiError as container_error:
            local_error.why = "; ".join(filter(None, (local_error.why, f"and {container_error.what}")))
            raise local_error from None


def _local(environment: Environment, architecture: str) -> ResolvedEnvironment:
    if environment.local is None:
        raise NotSupported(
            f"environment {environment.name!r} has no local Python",
            hint=f"use its image, or add your own: lossi env add my-{environment.name} --python /path/to/venv",
        )
    python = interpreter.describe(interpreter.locate(environment.local.python), environment.variables)
    if architecture != python.machine:
        raise NotSupported(
            f"the local Python of {environment.name!r} runs on {python.machine}, not on {architecture}",
            hint=f"use a {python.machine} machine, or an environment with an image for {architecture}",
        )
    return ResolvedEnvironment(
        name=environment.name,
        kind="local",
        python=python.python,
        variant="local",
        mlflow_version=python.packages.get("mlflow"),
        packages_sha256=python.packages_sha256,
        variables=dict(environment.variables),
    )


def _container(environment: Environment, architecture: str, accelerator: str) -> ResolvedEnvironment:
    variant = environment.variant(architecture, accelerator)
    if variant is None:
        raise _no_variant(environment, architecture, accelerator)
    image = _image(environment, variant, architecture, accelerator)
    return ResolvedEnvironment(
        name=environment.name,
        kind="apptainer",
        python="python3",
        prefix=container_prefix(image, accelerator=accelerator, mounts=environment.mounts, variables=environment.variables),
        variant=f"{architecture}-{accelerator}",
        image=variant.image,
        digest=variant.digest,
        sif=variant.sif,
        mlflow_version={**environment.frameworks, **variant.frameworks}.get("mlflow"),
        variables=dict(environment.variables),
    )


def _image(environment: Environment, variant: Variant, architecture: str, accelerator: str) -> str:
    """Return the path of the SIF, or the pinned reference."""
    if variant.sif:
        actual = sif.check_image_file(variant.sif)
        if actual not in (None, architecture):
            raise InvalidInput(
                f"the image {variant.sif} is for {actual}, not for {architecture}",
                hint=f"correct the entry of {environment.name!r} in {environment.file}, line {environment.line}",
            )
        return variant.sif
    if variant.image and variant.digest:
        return reference(variant.image, variant.digest)
    raise NotSupported(
        f"environment {environment.name!r} has no image for {architecture}-{accelerator} on this machine",
        why=f"its catalogue entry has {variant.image or 'a recipe'}, but neither a SIF nor the digest of a built image",
        hint=_how_to_get(environment, variant, f"{architecture}-{accelerator}"),
    )


def _how_to_get(environment: Environment, variant: Variant, name: str) -> str:
    own = f"use your own Python: lossi env add my-{environment.name} --title … --python /path/to/venv"
    if variant.recipe:
        return f"build it: lossi env build {environment.name} --variant {name}; or {own}"
    return f"pull it: lossi env pull {environment.name} --variant {name} --image {variant.image}; or {own}"


def _no_variant(environment: Environment, architecture: str, accelerator: str) -> LossiError:
    known = environment.variant_names()
    what = f"environment {environment.name!r} has no image for {architecture}-{accelerator}"
    if known:
        return NotSupported(what, hint=f"it has {', '.join(known)}; choose one of these, or another environment", known=known)
    return NotSupported(what, why="it is a Python of this machine only", hint="use --target local, or another environment")


def _check_known(what: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise InvalidInput(
            f"{what} {value[:80]!r} is not known", hint=did_you_mean(value, known) or f"choose one of {', '.join(known)}"
        )


def _sif_exists(variant: Variant) -> bool:
    return bool(variant.sif) and Path(str(variant.sif)).exists()


def _has_runtime() -> bool:
    try:
        return bool(runtime())
    except Unavailable:
        return False


def ways(environment: Environment) -> tuple[Way, ...]:
    """Return every way to start an environment; checks whether files exist, starts nothing."""
    result: list[Way] = []
    if environment.local is not None:
        try:
            result.append(Way(target="local", variant="local", usable=True, detail=interpreter.locate(environment.local.python)))
        except LossiError as error:
            result.append(Way(target="local", variant="local", usable=False, detail=str(error)))
    runtime_here, machine = _has_runtime(), platform.machine()
    for architecture, by_accelerator in environment.variants.items():
        for accelerator, variant in by_accelerator.items():
            result.append(_way(environment, variant, architecture, accelerator, here=runtime_here and architecture == machine))
    return tuple(result)


def _way(environment: Environment, variant: Variant, architecture: str, accelerator: str, *, here: bool) -> Way:
    name = f"{architecture}-{accelerator}"
    try:
        image = _image(environment, variant, architecture, accelerator)
    except LossiError as error:
        return Way(target="apptainer", variant=name, usable=False, detail=f"{error.why or error.what}")
    if not here:
        why = f"no {RUNTIME} on this machine" if architecture == platform.machine() else f"this machine is {platform.machine()}"
        return Way(target="apptainer", variant=name, usable=False, detail=f"{image} ({why})")
    return Way(target="apptainer", variant=name, usable=True, detail=image)


def cache_key(resolved: ResolvedEnvironment) -> str:
    """Return a file-name-safe key of the software, equal for equal software; template stores are cached by it."""
    if resolved.kind == "local":
        return _short_hash("local", resolved.python, resolved.mlflow_version or "", resolved.packages_sha256 or "")
    if resolved.digest:
        return _short_hash("digest", resolved.digest)
    return _short_hash("sif", sif.identity(resolved.sif or ""))


def lacking(resolved: ResolvedEnvironment) -> tuple[str, ...]:
    """Return the packages of the image contract that a local Python lacks (cheap: reads folder names); none for an image."""
    if resolved.kind != "local":
        return ()
    packages = interpreter.describe(resolved.python, resolved.variables).packages
    return tuple(name for name in CONTRACT if name not in packages)


def _short_hash(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:32]

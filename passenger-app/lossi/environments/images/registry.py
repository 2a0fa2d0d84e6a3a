"""Copies images between registries and an OCI layout on disk with skopeo, pinned by digest.

skopeo checks each blob against its digest. HTTPS is required, except for registries on this machine or if the caller allows
plain HTTP. Logins are those of `skopeo login` (or podman, docker); no password passes through here.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from pathlib import Path

from lossi.environments.command import reference
from lossi.environments.images import oci_layout, programs
from lossi.environments.models import IMAGE
from lossi.errors import Conflict, InvalidInput, NotFound, Unavailable

PROGRAM = "skopeo"

_LOOPBACK = re.compile(r"(?:127\.\d{1,3}\.\d{1,3}\.\d{1,3}|localhost)(?::\d+)?")


def parse_reference(text: str) -> tuple[str, str | None]:
    """Return image and digest of a reference.

    Raises
    ------
    InvalidInput
        When it is not an image reference.
    """
    bare, _, digest = text.removeprefix("docker://").partition("@")
    if not IMAGE.fullmatch(bare) or (digest and not re.fullmatch(r"sha256:[0-9a-f]{64}", digest)):
        raise InvalidInput(f"{text[:200]!r} is not an image reference", hint="for example registry.example/group/name:tag")
    return bare, digest or None


def is_remote(image: str) -> bool:
    """Return whether an image is in a registry; ``localhost/NAME`` is in the builder's own store."""
    return image.partition("/")[0] != "localhost"


def speaks_http(image: str) -> bool:
    """Return whether the image's registry is on this machine."""
    return bool(_LOOPBACK.fullmatch(image.partition("/")[0]))


def program() -> str:
    """Return the path of skopeo.

    Raises
    ------
    Unavailable
        When there is none on PATH.
    """
    path = shutil.which(PROGRAM)
    if path:
        return path
    raise Unavailable(f"there is no {PROGRAM} on this machine", hint="install the package skopeo, or use a machine that has it")


def resolve_digest(image: str, digest: str | None, *, insecure: bool = False) -> str:
    """Return the registry's current digest of a reference, computed from the manifest that it sends.

    Raises
    ------
    Conflict
        When the manifest does not match ``digest``.
    NotFound, Forbidden, Unavailable
        Depending on the registry's answer.
    """
    actual = f"sha256:{hashlib.sha256(_manifest(image, digest, insecure=insecure)).hexdigest()}"
    if digest and actual != digest:
        raise Conflict(
            f"the registry sent another image than {digest}",
            why=f"its digest is {actual}",
            hint="do not use it; ask the registry's administrator",
        )
    return actual


def fetch(
    image: str, digest: str, architecture: str, folder: Path, *, say: programs.Say | None, insecure: bool = False
) -> oci_layout.Layout:
    """Fetch a pinned image into an OCI layout.

    Parameters
    ----------
    image, digest
        Reference without digest, and the digest of an image or of an index of several architectures.
    architecture
        By Lossi's name.
    folder
        Created here.
    say
        Called with each line of skopeo.
    insecure
        Whether plain HTTP and any certificate are allowed.

    Raises
    ------
    Conflict
        When what arrives does not match the digest.
    NotFound, NotSupported, Forbidden, Unavailable
        Depending on the registry's answer, or when the index has no image for the architecture.
    """
    resolve_digest(image, digest, insecure=insecure)
    manifest = json.loads(_manifest(image, digest, insecure=insecure))
    if "manifests" in manifest:
        in_index = oci_layout.manifest_of(manifest, architecture)
        if not in_index:
            raise NotFound(f"{image} has no image for {architecture}", hint="choose another variant, or build it there")
        digest = in_index
    pinned = reference(image, digest)
    argv = [program(), "copy", "--preserve-digests", f"--src-tls-verify={_tls(image, insecure)}", pinned, f"oci:{folder}:image"]
    programs.run(argv, f"cannot fetch {image}", say=say, environment={**_logins(), "TMPDIR": str(folder.parent)})
    layout = oci_layout.read(folder)
    if layout.digest != digest:
        raise Conflict(
            f"the fetched image is {layout.digest}, not {digest}", hint="do not use it; ask the registry's administrator"
        )
    return layout


def push(layout: oci_layout.Layout, image: str, *, say: programs.Say | None, insecure: bool = False) -> str:
    """Push an image to a registry and return its digest there.

    Raises
    ------
    Conflict
        When the digest there is another one.
    NotFound, Forbidden, Unavailable
        Depending on the registry's answer.
    """
    argv = [program(), "copy", "--preserve-digests", f"--dest-tls-verify={_tls(image, insecure)}"]
    argv += [f"oci:{layout.folder}:image", f"docker://{image}"]
    programs.run(argv, f"cannot push {image}", say=say, environment={**_logins(), "TMPDIR": str(layout.folder.parent)})
    digest = resolve_digest(image, None, insecure=insecure)
    if digest != layout.digest:
        raise Conflict(
            f"the registry has {image} as {digest}",
            why=f"the built image is {layout.digest}",
            hint="the tag may have moved meanwhile: push again",
        )
    return digest


def _manifest(image: str, digest: str | None, *, insecure: bool) -> bytes:
    """Return the manifest as the registry sends it."""
    name = reference(image, digest) if digest else f"docker://{image}"
    argv = [program(), "inspect", "--raw", f"--tls-verify={_tls(image, insecure)}", name]
    return programs.answer(argv, f"cannot find {image}{'@' + digest if digest else ''}", environment=_logins())


def _logins() -> dict[str, str]:
    """Return the variables that keep skopeo from a login file that it cannot read.

    Without ``XDG_RUNTIME_DIR`` (su, cron) it looks in ``/run/containers``, which root's podman creates for root only, and
    fails there instead of trying the user's own file.
    """
    shared = Path("/run/containers")
    named = os.environ.get("REGISTRY_AUTH_FILE") or os.environ.get("XDG_RUNTIME_DIR")
    if named or not shared.exists() or os.access(shared, os.X_OK):
        return {}
    own = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return {"REGISTRY_AUTH_FILE": str(own / "containers" / "auth.json")}


def _tls(image: str, insecure: bool) -> str:
    return "false" if insecure or speaks_http(image) else "true"

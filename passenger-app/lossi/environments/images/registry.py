"""Images between registries, the builder's own store and an OCI layout on disk, carried by skopeo and pinned by digest.

skopeo checks each blob against its digest. Registries are spoken to by HTTPS; by plain HTTP only on this machine, or where the
caller says so. Logins are those of `skopeo login` (or podman, docker); no password passes through here.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from pathlib import Path

from lossi.environments.command import reference
from lossi.environments.images import oci_layers, programs
from lossi.environments.models import IMAGE
from lossi.errors import Conflict, InvalidInput, NotFound, Unavailable

PROGRAM = "skopeo"

_LOOPBACK = re.compile(r"(?:127\.\d{1,3}\.\d{1,3}\.\d{1,3}|localhost)(?::\d+)?")


def checked_reference(text: str) -> tuple[str, str | None]:
    """Return the image and the digest that a reference names.

    Raises
    ------
    InvalidInput
        When it is none, or names no registry.
    """
    bare, _, digest = text.removeprefix("docker://").partition("@")
    if not IMAGE.fullmatch(bare) or (digest and not re.fullmatch(r"sha256:[0-9a-f]{64}", digest)):
        raise InvalidInput(f"{text[:200]!r} is not an image reference", hint="for example registry.example/group/name:tag")
    return bare, digest or None


def is_remote(image: str) -> bool:
    """Return whether an image's name leads to a registry; ``localhost/NAME`` is how builders call their own."""
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
    found = shutil.which(PROGRAM)
    if found:
        return found
    raise Unavailable(
        f"there is no {PROGRAM} on this machine", hint="install the package skopeo, or do this on a machine that has it"
    )


def resolve_digest(image: str, digest: str | None, *, insecure: bool = False) -> str:
    """Return the digest that the registry has for a reference now, computed from what it sends.

    Raises
    ------
    Conflict
        When the registry sends another content than ``digest`` names.
    NotFound, Forbidden, Unavailable
        As the registry answers.
    """
    found = f"sha256:{hashlib.sha256(_manifest(image, digest, insecure=insecure)).hexdigest()}"
    if digest and found != digest:
        raise Conflict(
            f"the registry sends another image than {digest}",
            why=f"what it sends has {found}",
            hint="do not use it; ask who keeps the registry",
        )
    return found


def fetch(
    image: str, digest: str, architecture: str, folder: Path, *, say: programs.Say | None, insecure: bool = False
) -> oci_layers.Layout:
    """Fetch a pinned image into an OCI layout.

    Parameters
    ----------
    image, digest
        Reference without digest, and the digest: of one image, or of an index of several architectures.
    architecture
        As Lossi calls it.
    folder
        Made here.
    say
        Told each line of skopeo.
    insecure
        Whether plain HTTP and any certificate will do.

    Raises
    ------
    Conflict
        When what arrives is not what the digest names.
    NotFound, NotSupported, Forbidden, Unavailable
        As the registry answers, or when the index has nothing for the architecture.
    """
    resolve_digest(image, digest, insecure=insecure)
    manifest = json.loads(_manifest(image, digest, insecure=insecure))
    wanted = digest
    if "manifests" in manifest:
        wanted = oci_layers.manifest_of(manifest, architecture) or ""
        if not wanted:
            raise NotFound(f"{image} has no image for {architecture}", hint="name another variant, or build it there")
    pinned = reference(image, wanted)
    argv = [program(), "copy", "--preserve-digests", f"--src-tls-verify={_tls(image, insecure)}", pinned, f"oci:{folder}:image"]
    programs.run(argv, f"cannot fetch {image}", say=say, environment={**_logins(), "TMPDIR": str(folder.parent)})
    layout = oci_layers.read(folder)
    if layout.digest != wanted:
        raise Conflict(f"what arrived is {layout.digest}, not {wanted}", hint="do not use it; ask who keeps the registry")
    return layout


def push(layout: oci_layers.Layout, image: str, *, say: programs.Say | None, insecure: bool = False) -> str:
    """Put an image into a registry and return the digest under which the registry has it.

    Raises
    ------
    Conflict
        When the registry has it under another digest than it has here.
    NotFound, Forbidden, Unavailable
        As the registry answers.
    """
    argv = [program(), "copy", "--preserve-digests", f"--dest-tls-verify={_tls(image, insecure)}"]
    argv += [f"oci:{layout.folder}:image", f"docker://{image}"]
    programs.run(argv, f"cannot push {image}", say=say, environment={**_logins(), "TMPDIR": str(layout.folder.parent)})
    digest = resolve_digest(image, None, insecure=insecure)
    if digest != layout.digest:
        raise Conflict(
            f"the registry has {image} as {digest}",
            why=f"what was built is {layout.digest}",
            hint="was the tag moved meanwhile? push again",
        )
    return digest


def _manifest(image: str, digest: str | None, *, insecure: bool) -> bytes:
    """Return the manifest as the registry sends it."""
    name = reference(image, digest) if digest else f"docker://{image}"
    argv = [program(), "inspect", "--raw", f"--tls-verify={_tls(image, insecure)}", name]
    return programs.answer(argv, f"cannot find {image}{'@' + digest if digest else ''}", environment=_logins())


def _logins() -> dict[str, str]:
    """Return what leads skopeo past a place of logins that it may not enter.

    Without a session's ``XDG_RUNTIME_DIR`` (su, cron) it looks below ``/run/containers``, which root's podman makes for root alone,
    and gives up there; the next place that it knows is the user's own.
    """
    shared = Path("/run/containers")
    named = os.environ.get("REGISTRY_AUTH_FILE") or os.environ.get("XDG_RUNTIME_DIR")
    if named or not shared.exists() or os.access(shared, os.X_OK):
        return {}
    own = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return {"REGISTRY_AUTH_FILE": str(own / "containers" / "auth.json")}


def _tls(image: str, insecure: bool) -> str:
    return "false" if insecure or speaks_http(image) else "true"

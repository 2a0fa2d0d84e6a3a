"""The doctor's checks of containers: Apptainer on this machine, and the images of the catalogue."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from lossi.cli.doctor.finding import Finding, failed
from lossi.errors import LossiError


def images() -> Iterator[Finding]:
    """Check for each SIF of the catalogue that it exists, is for the right architecture and has a recorded digest."""
    from lossi import environments

    for environment in environments.load().environments:
        for name in environment.variant_names():
            arch, _, accelerator = name.partition("-")
            variant = environment.variant(arch, accelerator)
            what = f"image {environment.name}: {name}"
            pull = f"lossi env pull {environment.name} --variant {name}"
            if variant is None or not variant.sif:
                continue
            try:
                architecture = environments.images.check_image_file(variant.sif)
            except LossiError as error:
                yield failed(what, error, pull)
                continue
            if architecture not in (None, arch):
                yield Finding(what, "error", f"{variant.sif} is for {architecture}", pull)
            elif variant.image and not variant.digest:
                remedy = f"{pull}: it records the digest"
                yield Finding(what, "warning", f"{variant.sif}: no digest is recorded, so it cannot be verified", remedy)
            else:
                yield Finding(what, "ok", f"{variant.sif}{f' of {variant.digest[:19]}' if variant.digest else ''}")


def apptainer(proc: Path = Path("/proc")) -> Iterator[Finding]:
    """Check whether Apptainer is on this machine, and whether ordinary users can start containers with it."""
    what = "Apptainer"
    program = shutil.which("apptainer") or shutil.which("singularity")
    if program is None:
        yield Finding(what, "ok", "not on this machine; the compute nodes need it for environments with images")
        return
    root = Path(os.path.realpath(program)).parent.parent
    starters = [path for form in ("lib*/*/bin/starter-suid", "lib*/*/*/bin/starter-suid") for path in root.glob(form)]
    if any(starter.stat().st_mode & stat.S_ISUID for starter in starters):
        yield Finding(what, "ok", f"{program}, with its set-uid starter")
        return
    namespaces = _setting(proc, "user/max_user_namespaces", "")
    clone = _setting(proc, "kernel/unprivileged_userns_clone", "1")
    restricted = _setting(proc, "kernel/apparmor_restrict_unprivileged_userns", "0")
    if namespaces == "0" or clone == "0":
        key = "user.max_user_namespaces=15000" if namespaces == "0" else "kernel.unprivileged_userns_clone=1"
        remedy = f"sysctl -w {key}, or install apptainer-suid"
        yield Finding(what, "error", f"{program}: users cannot create user namespaces here", remedy)
    elif restricted == "1":
        remedy = "install Apptainer's AppArmor profile (it is in its packages), or apptainer-suid"
        yield Finding(what, "warning", f"{program}: AppArmor restricts user namespaces here", remedy)
    else:
        yield Finding(what, "ok", f"{program}, with user namespaces")


def _setting(proc: Path, name: str, default: str) -> str:
    """Return a kernel setting, or ``default`` if this kernel does not have it."""
    try:
        return (proc / "sys" / name).read_text("ascii", "replace").strip()
    except OSError:
        return default

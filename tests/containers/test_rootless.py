"""An ordinary user builds an image, makes a SIF of it and compares both: no root, only the subordinate ids that Debian gives."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import pwd
import shutil
import signal
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import installation
import pytest
from built_environment import CACHE, HERE, why_not
from small_image import Entry, Image, file, folder

from lossi.environments.images import registry

USER = "lossi-tester1"
RECIPE = "ARG BASE\nFROM ${BASE}\nCOPY requirements.txt /opt/made/requirements.txt\n"

pytestmark = [
    pytest.mark.skipif(bool(why_not()), reason=why_not()),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the small images are for x86_64"),
]


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder of the user's, outside of what only root may enter."""
    make = f"id {USER} || useradd --create-home --shell /bin/bash {USER}"
    subprocess.run(["flock", "/run/lock/lossi-tests-users", "sh", "-c", make], check=True, capture_output=True)
    folder = Path(tempfile.mkdtemp(prefix="lossi-rootless-", dir="/var/tmp"))
    yield folder
    for process in Path("/proc").glob("[0-9]*"):  # podman keeps one that holds the user's namespaces
        with contextlib.suppress(OSError):
            if str(folder).encode() in (process / "environ").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)
    # Files in the builder's store belong to subordinate ids.
    shutil.rmtree(folder)


def test_ordinary_user_builds_converts_and_verifies(address: str, place: Path) -> None:
    # An image of a whole system has devices, which a conversion without root can only stand in for.
    base = Image([[folder("dev"), Entry("dev/null", kind=tarfile.CHRTYPE, mode=0o666), file("etc/os-release", "ID=small\n")]])
    reference = f"{address}/tests/rootless-base:1"
    registry.push(base.write(place / "base"), reference, say=None)
    python = installation.interpreter(USER)
    lossi = installation.install(python, installation.foundation(python, CACHE), installation.wheel(place), place / "lossi")
    recipe = place / "recipe"
    recipe.mkdir()
    (recipe / "Containerfile.none").write_text(RECIPE)
    (recipe / "requirements.txt").write_text("nothing\n")
    variant = "{image: localhost/mine:1, recipe: recipe/Containerfile.none}"
    (place / "catalog.yml").write_text(f"environments: {{mine: {{title: Mine, variants: {{x86_64: {{none: {variant}}}}}}}}}\n")
    (place / "site.yml").write_text(f"catalogs: [{place}/catalog.yml]\nsif_folder: {place}/sif\n")
    (place / "registries.conf").write_text(f'[[registry]]\nlocation = "{address}"\ninsecure = true\n')
    (place / "containers.conf").write_bytes((HERE / "containers.conf").read_bytes())
    storage = f'[storage]\ndriver = "vfs"\nrunroot = "{place}/run"\ngraphroot = "{place}/store"\n'
    (place / "storage.conf").write_text(storage)
    owner = pwd.getpwnam(USER)
    subprocess.run(["chown", "-R", f"{USER}:", str(place)], check=True)
    environment = {
        "HOME": owner.pw_dir,
        "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
        "LANG": "C.UTF-8",
        "LOSSI_SITE": str(place / "site.yml"),
        "CONTAINERS_CONF": str(place / "containers.conf"),
        "CONTAINERS_REGISTRIES_CONF": str(place / "registries.conf"),
        "CONTAINERS_STORAGE_CONF": str(place / "storage.conf"),
        "TMPDIR": str(place),
    }

    def told(*words: str) -> dict[str, object]:
        done = subprocess.run(
            [str(lossi.command), "env", *words, "--json"],
            capture_output=True,
            text=True,
            cwd=place,
            env=environment,
            user=owner.pw_uid,
            group=owner.pw_gid,
            extra_groups=[],
        )
        assert done.returncode == 0, done.stderr
        answer: dict[str, object] = json.loads(done.stdout)
        return answer

    built = told("build", "mine", "--base", reference)
    assert Path(str(built["sif"])).stat().st_uid == owner.pw_uid
    assert told("verify", "mine")["same"] is True

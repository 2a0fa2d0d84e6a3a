"""The environment ``sklearn``, really built: its recipe on a Debian base, pushed, pulled by digest, converted to a SIF.

No image registry of the world is needed: the base (a Python in ``/usr/local``, as the recipe's own base has) is made from the Debian
archive that this machine's apt uses; the packages come from pip's index. What was made is kept in ``/var/cache/lossi-tests`` under a
name made of recipe, lock and `MADE_AS`, with the registry's content, so that only the first session pays: three to five minutes
on two idle cores, 3.5 GB in between, 0.8 GB kept; later ones a few milliseconds.

In a ``conftest.py`` (``tests/containers`` is on pytest's path)::

    from built_environment import built_environment  # noqa: F401

and in a test, on any cluster of the tests: ``built_environment.catalog(path)`` writes a catalogue of the site with ``sklearn`` for
this machine's architecture; ``built_environment.sif`` is the SIF, which every user may read.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import host
import pytest
import yaml
from local_registry import registry

HERE = Path(__file__).resolve().parent
TREE = HERE.parents[1]
RECIPE = TREE / "containers" / "sklearn"
CACHE = Path(os.environ.get("LOSSI_TEST_CACHE") or "/var/cache/lossi-tests")
PROGRAMS = ("buildah", "podman", "skopeo", "docker-registry", "mmdebstrap", "apptainer", "unsquashfs")
SUITE = "trixie"
"""Its Python (3.13) is one that the lock is for."""
MADE_AS = 1
"""Raised when what is made here changes, so that an older one is not taken."""
NAME = "lossi/sklearn"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
VARIANT = f"{platform.machine()}-none"


@dataclass(frozen=True)
class BuiltEnvironment:
    """What is there after building.

    Attributes
    ----------
    digest
        As the registry answered.
    tree
        Hash of the files, of image and SIF alike.
    images
        Content of the registry: ``local_registry.registry(built.images)`` offers it again.
    """

    folder: Path
    digest: str
    sif: Path
    tree: str

    @property
    def images(self) -> Path:
        return self.folder / "registry"

    def catalog(self, path: Path, *, name: str = "sklearn", address: str = "127.0.0.1:5000", **entry: Any) -> Path:
        """Write a catalogue of a site with this environment; ``entry`` adds to it, such as ``mounts``."""
        variant = {"image": f"{address}/{NAME}", "digest": self.digest, "sif": str(self.sif)}
        environment = {"title": "scikit-learn", "variants": {platform.machine(): {"none": variant}}, **entry}
        path.write_text(yaml.safe_dump({"environments": {name: environment}}))
        path.chmod(0o644)
        return path


@pytest.fixture(scope="session")
def built_environment() -> BuiltEnvironment:
    """The environment ``sklearn`` as a SIF, built in this session or an earlier one."""
    if reason := why_not():
        pytest.skip(reason)
    return build()


def why_not() -> str:
    """Return why nothing can be built here; empty when it can."""
    missing = [name for name in PROGRAMS if not host.which(name)]
    if os.geteuid() == 0 and Path("/etc/debian_version").exists() and not missing:
        return ""
    return "no images: needs root on Debian 12 with the packages of tests/provision.sh"


def build() -> BuiltEnvironment:
    """Return what was built; it is made if it is not there yet."""
    place = CACHE / f"image-{_key()}"
    CACHE.mkdir(parents=True, exist_ok=True)
    CACHE.chmod(0o755)
    with (CACHE / f"{place.name}.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        if not (place / "built.json").exists():
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            _build(place)
    record = json.loads((place / "built.json").read_text())
    return BuiltEnvironment(place, record["digest"], Path(record["sif"]), record["tree"])


def _key() -> str:
    digest = hashlib.sha256(f"{platform.machine()} {SUITE} {MADE_AS}".encode())
    for path in (RECIPE / "Containerfile.none", RECIPE / "requirements.txt"):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _build(place: Path) -> None:
    with builder(place / "work") as run, registry(place / "registry") as address:
        base = _base(run, place / "work")
        site = place / "site.yml"
        catalog = place / "catalog.yml"
        site.write_text(yaml.safe_dump({"catalogs": [str(catalog)], "sif_folder": str(place / "sif")}))
        catalog.write_text("# what was built\nenvironments: {}\n")
        lossi = [sys.executable, "-m", "lossi", "env"]
        shown = ["--mount", str(CERTIFICATES)] if CERTIFICATES.exists() else []
        if index := os.environ.get("PIP_INDEX_URL"):
            (place / "work" / "pip.conf").write_text(f"[global]\nindex-url = {index}\n")
            shown += ["--mount", f"{place / 'work' / 'pip.conf'}:/etc/pip.conf"]
        env = {"LOSSI_SITE": str(site)}
        pushed = ["--push", f"{address}/{NAME}", "--no-sif", "--host-network", "--base", base]
        built = json.loads(run([*lossi, "build", "sklearn", "--json", *pushed, *shown], **env))
        pulled = json.loads(run([*lossi, "pull", "sklearn", "--json", "--image", f"{address}/{NAME}@{built['digest']}"], **env))
        record = {"digest": pulled["digest"], "sif": pulled["sif"], "tree": pulled["tree"]}
    shutil.rmtree(place / "work", ignore_errors=True)
    (place / "built.json").write_text(json.dumps(record))


def _base(run: Any, work: Path) -> str:
    """Make the base image and return its name."""
    archive = work / "base.tar"
    lists = [path for path in (Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*.*")) if path.is_file()]
    release = subprocess.run(
        ["sh", "-c", ". /etc/os-release && echo $VERSION_CODENAME"], capture_output=True, text=True
    ).stdout.strip()
    named = [path for path in lists if path.suffix in (".list", ".sources") and f"{release}-updates" in path.read_text()]
    assert named, "apt of this machine has no Debian archive with updates"
    sources = work / f"debian{named[0].suffix}"
    sources.write_text(named[0].read_text().replace(release, SUITE))
    options = ["--variant=minbase", "--include=python3,python3-venv,ca-certificates", "--quiet"]
    options += ['--aptopt=Acquire::Check-Valid-Until "false"']
    # A Python in /usr/local that pip may install into, as in the base that the recipe names.
    options += ['--customize-hook=chroot "$1" python3 -m venv /usr/local']
    options += ['--customize-hook=rm -rf "$1"/etc/apt/sources.list "$1"/etc/apt/sources.list.d/*']
    run(["mmdebstrap", *options, SUITE, str(archive), str(sources)])
    container = run(["buildah", "from", "scratch"]).strip()
    run(["buildah", "add", "--quiet", container, str(archive), "/"])
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    run(["buildah", "config", "--env", f"PATH={path}", container])
    name = "localhost/lossi-tests/base:1"
    run(["buildah", "commit", "--quiet", "--rm", container, name])
    archive.unlink()
    return name


class builder:  # noqa: N801
    """podman and buildah with a store of their own in a folder, for the time of a block."""

    def __init__(self, work: Path) -> None:
        self.work = work

    def __enter__(self) -> Any:
        self.work.mkdir(parents=True)
        storage = self.work / "storage.conf"
        places = {"runroot": str(self.work / "run"), "graphroot": str(self.work / "store")}
        storage.write_text('[storage]\ndriver = "overlay"\n' + "".join(f'{key} = "{value}"\n' for key, value in places.items()))
        self.environment = {
            **os.environ,
            "PATH": host.PATH,
            "CONTAINERS_CONF": str(HERE / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(storage),
            "TMPDIR": str(self.work),
        }
        return self.run

    def run(self, argv: Sequence[str], **environment: str) -> str:
        done = subprocess.run(argv, capture_output=True, text=True, env={**self.environment, **environment}, cwd=self.work)
        if done.returncode:
            raise RuntimeError(f"{' '.join(argv)} ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
        return done.stdout

    def __exit__(self, *_: object) -> None:
        subprocess.run(["buildah", "rm", "--all"], env=self.environment, capture_output=True)
        subprocess.run(["buildah", "rmi", "--all", "--force"], env=self.environment, capture_output=True)


__all__ = ["BuiltEnvironment", "built_environment", "registry"]

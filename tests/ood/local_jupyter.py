"""JupyterLab in a Python environment that ordinary users may run, as at a site without images.

The packages are those of the environment ``sklearn``, by its lock; what Lossi itself stands on (`installation.foundation`) has most of
them, in the same versions. Kept in the tests' cache: some six seconds once, nothing later.
"""

from __future__ import annotations

import fcntl
import hashlib
import re
import shutil
from pathlib import Path

import installation
from real_cluster import CACHE

LOCK = installation.TREE / "containers" / "sklearn" / "requirements.txt"
PACKAGES = """
    argon2-cffi argon2-cffi-bindings arrow async-lru babel fqdn isoduration json5 jsonpointer jupyter-builder
    jupyter-events jupyter-lsp jupyter-server jupyter-server-terminals jupyterlab jupyterlab-server lark notebook-shim
    prometheus-client python-json-logger rfc3339-validator rfc3986-validator rfc3987-syntax send2trash terminado
    uri-template webcolors websocket-client
"""
"""Further packages that JupyterLab needs."""
OLDER = """overrides==7.7.0 ; python_version < "3.12" \\
    --hash=sha256:c7ed9d062f78b8e4c1a7b70bd8796b35ead4d9f510227ef9c5dc7626c60d7e49
"""
"""Needed on a Python other than the lock's."""


def install(user: str) -> Path:
    """Return the interpreter of the environment, which is made on first use."""
    python = installation.interpreter(user)
    base = installation.foundation(python, CACHE)
    requirements = _locked() + OLDER
    place = CACHE / f"jupyter-{hashlib.sha256((base.name + requirements).encode()).hexdigest()[:16]}"
    with place.with_suffix(".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        if not (place / installation.COMPLETE).exists():
            shutil.rmtree(place, ignore_errors=True)
            _make(python, base, place, requirements)
            (place / installation.COMPLETE).touch()
    return place / "bin" / "python"


def _locked() -> str:
    """Return the packages' entries of the lock, with hashes."""
    entries = {entry[1]: entry[0] for entry in re.finditer(r"^([a-z0-9.-]+)==.*\n(?: .*\n)*", LOCK.read_text(), re.MULTILINE)}
    return "".join(entries[name] for name in PACKAGES.split())


def _make(python: str, base: Path, place: Path, wanted: str) -> None:
    installation.run([python, "-m", "venv", "--without-pip", str(place)])
    packages = next((place / "lib").glob("python3*/site-packages"))
    (packages / "foundation.pth").write_text(f"{next((base / 'lib').glob('python3*/site-packages'))}\n")
    requirements = place / "requirements.txt"
    requirements.write_text(wanted)
    pip = [str(base / "bin" / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input"]
    installation.run(
        [*pip, "--python", str(place / "bin" / "python"), "install", "--no-deps", "--require-hashes", "-r", str(requirements)]
    )

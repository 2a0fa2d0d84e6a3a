"""Lossi as a site installs it: a wheel of this working tree in a place where ordinary users may read and execute it.

The clone and its ``.venv`` may be in root's own folder, and so may the interpreter. What Lossi stands on is therefore installed once
with an interpreter that everybody may run, under a name made of the lock's digest; the wheel goes into a small environment of
its own that sees the large one, so that each test session (or a test that uninstalls it again) has what the tree holds now.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

TREE = Path(__file__).resolve().parents[2]
LOCK = TREE / "requirements" / "run.lock"
COMPLETE = ".complete"
"""In a finished environment: written last, because an environment cannot be renamed (its scripts name their interpreter)."""


class NoInterpreter(Exception):
    """No Python that an ordinary user may run."""


@dataclass(frozen=True)
class Installation:
    """A Lossi that ordinary users may run."""

    root: Path

    @property
    def command(self) -> Path:
        return self.root / "bin" / "lossi"

    @property
    def python(self) -> Path:
        return self.root / "bin" / "python"

    def uninstall(self) -> None:
        """Take Lossi away, as an upgrade or a removal by the site does."""
        shutil.rmtree(self.root)


def interpreter(user: str) -> str:
    """Return the newest Python from 3.11 on that the user may run and that can make environments.

    Raises
    ------
    NoInterpreter
    """
    for name in ("python3.13", "python3.12", "python3.11", "python3"):
        path = shutil.which(name, path="/usr/local/bin:/usr/bin:/bin")
        code = "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))"
        if (
            path
            and subprocess.run(["su", "-s", "/bin/sh", "-c", f"{path} -c '{code}'", user], capture_output=True).returncode == 0
        ):
            return path
    raise NoInterpreter("no Python from 3.11 on with venv that an ordinary user may run: install python3-venv")


def foundation(python: str, folder: Path) -> Path:
    """Return an environment with all that ``requirements/run.lock`` names, made if it is not there yet."""
    version = subprocess.run([python, "-VV"], capture_output=True, text=True, check=True).stdout
    digest = hashlib.sha256(LOCK.read_bytes() + version.encode()).hexdigest()[:16]
    place = folder / f"lock-{digest}"
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    with (folder / f"lock-{digest}.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        if not (place / COMPLETE).exists():
            shutil.rmtree(place, ignore_errors=True)
            run([python, "-m", "venv", str(place)])
            pip = [str(place / "bin" / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input"]
            run([*pip, "install", "-r", str(LOCK)])
            (place / COMPLETE).touch()
    return place


def wheel(folder: Path) -> Path:
    """Build the working tree's wheel; from a copy, because building leaves files behind and would pack those of the last time."""
    copy = folder / "tree"
    copy.mkdir()
    skipped = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(TREE / "passenger-app", copy / "passenger-app", ignore=skipped)
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(TREE / name, copy / name)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input"]
    run([*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(copy)])
    shutil.rmtree(copy)
    return next(folder.glob("lossi-*.whl"))


def install(python: str, base: Path, built: Path, root: Path) -> Installation:
    """Put a wheel into a new environment at ``root`` that sees what ``base`` holds. Takes under two seconds."""
    run([python, "-m", "venv", "--without-pip", str(root)])
    packages = next((root / "lib").glob("python3*/site-packages"))
    (packages / "foundation.pth").write_text(f"{next((base / 'lib').glob('python3*/site-packages'))}\n")
    (root / "share").symlink_to(base / "share")  # kernelspecs
    pip = [str(base / "bin" / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input"]
    run([*pip, "--python", str(root / "bin" / "python"), "install", "--no-deps", "--no-index", str(built)])
    return Installation(root)


def run(argv: Sequence[str]) -> None:
    """Run a command of Python's without what would lead it to another environment; its failure is an error with what it said."""
    done = subprocess.run(argv, capture_output=True, text=True, cwd="/", umask=0o022, env=_environment())
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)} failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")


def _environment() -> dict[str, str]:
    """All but what would lead pip or Python to another environment; the configuration of package clients travels."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV", "PYENV"))}

"""Every script of the bundle is good shell, and can be started where it must be."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TREE = Path(__file__).resolve().parents[3]
SHELLCHECK = Path(sys.executable).with_name("shellcheck")


def shell_of(path: Path) -> str:
    """Return the shell that a script names (one that is sourced names none: bash); none when it is no script of a shell."""
    with path.open("rb") as stream:
        first = stream.readline(80)
    words = first.removeprefix(b"#!").split() if first.startswith(b"#!") else []
    name = Path(words[-1].decode()).name if words else ""
    return name if name in ("sh", "bash") else "bash" if path.suffix == ".sh" else ""


FOLDERS = ("ood-apps", "batch-templates", "containers", "release", "passenger-app/bin")
SCRIPTS = sorted(path for name in FOLDERS for path in (TREE / name).rglob("*") if path.is_file() and shell_of(path))


def test_every_script_is_found() -> None:
    names = {str(path.relative_to(TREE)) for path in SCRIPTS}
    assert {"ood-apps/jupyter/template/before.sh", "ood-apps/mlflow-embedded/bin/python", "passenger-app/bin/python"} <= names


@pytest.mark.parametrize("script", SCRIPTS, ids=[str(path.relative_to(TREE)) for path in SCRIPTS])
def test_its_shell_can_read_it(script: Path) -> None:
    subprocess.run([shell_of(script), "-n", str(script)], check=True)


def test_shellcheck_is_clean() -> None:
    done = subprocess.run([SHELLCHECK, *SCRIPTS], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_session_templates_are_executable() -> None:
    scripts = [path for path in SCRIPTS if path.parent.name == "template" and path.parent.parent.name == "jupyter"]
    assert len(scripts) == 3 and {path.stat().st_mode & 0o777 for path in scripts} == {0o755}

"""What Passenger starts: the interpreter, its environment, and files that old Pythons can read."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from lossi.api import security

PORTAL = Path(__file__).resolve().parents[2] / "passenger-app"
SHOW = "import os, sys; print(os.environ.get('CHOSEN', sys.executable)); print(*sorted(os.environ))"


@pytest.fixture
def app(tmp_path: Path) -> Path:
    folder = tmp_path / "my app"
    (folder / "bin").mkdir(parents=True)
    shutil.copy(PORTAL / "bin" / "python", folder / "bin" / "python")
    return folder


def interpreter(path: Path) -> Path:
    """Make an interpreter that prints the path it was started by."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/sh\nCHOSEN="$0" exec {sys.executable} "$@"\n')
    path.chmod(0o755)
    return path


def start(app: Path, **environment: str) -> tuple[str, set[str]]:
    """Start the app's interpreter as Passenger does, from the app's folder; return its path and its variables."""
    env = {"PATH": os.environ["PATH"], **environment}
    done = subprocess.run(["bin/python", "-c", SHOW], cwd=app, env=env, capture_output=True, text=True, check=True)
    chosen, names = done.stdout.splitlines()
    return chosen, set(names.split())


def test_named_interpreter_wins_over_the_virtual_environment(app: Path, tmp_path: Path) -> None:
    own = interpreter(app / "venv" / "bin" / "python")
    assert start(app)[0] == str(own)
    other = interpreter(tmp_path / "my env" / "bin" / "python")
    (app / "environment").write_text(f"{other}\n# a second line\n")
    assert start(app)[0] == str(other)
    (app / "environment").write_text("../my env/bin/python")
    assert Path(start(app)[0]).resolve() == other


def test_without_an_environment_the_systems_own_python_runs(app: Path, tmp_path: Path) -> None:
    here = start(app)[0]
    assert "my app" not in here
    for named in (f"{tmp_path}/nothing", str(tmp_path), "", "$(touch evil)"):
        (app / "environment").write_text(named)
        assert start(app)[0] == here
    assert not (app / "evil").exists()


def test_only_variables_of_the_portal_and_module_systems_are_removed(app: Path) -> None:
    left = ["PYTHONPATH", "PYTHONHOME", "PYTHONUNBUFFERED", "RUBYOPT", "RUBYLIB", "BUNDLE_GEMFILE", "GEM_HOME", "VIRTUAL_ENV"]
    names = start(app, HOME="/x", ODD="a\nPYTHON=b\n$(c)", **dict.fromkeys(left, "/nowhere"))[1]
    assert not names & set(left)
    assert {"HOME", "ODD", "PATH", "PYTHONNOUSERSITE"} <= names


@pytest.mark.parametrize("app", [PORTAL, PORTAL.parent / "ood-apps" / "mlflow-embedded"])
@pytest.mark.parametrize("name", ["passenger_wsgi.py", "starting.py"])
def test_old_pythons_can_read_what_passenger_loads(app: Path, name: str) -> None:
    text = (app / name).read_text()
    tree = ast.parse(text, feature_version=(3, 6))
    modules = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
    assert modules <= {"html", "json", "os", "re", "sys", "traceback"}
    assert "from __future__" not in text


def test_an_app_without_lossi_says_so(tmp_path: Path) -> None:
    app = shutil.copytree(PORTAL.parent / "ood-apps" / "mlflow-embedded", tmp_path / "app")
    show = """import passenger_wsgi
print(b"".join(passenger_wsgi.application({"PATH_INFO": "/"}, lambda status, headers: print(status))).decode())"""
    done = subprocess.run([sys.executable, "-S", "-c", show], cwd=app, env={}, capture_output=True, text=True)
    assert done.stdout.startswith("503") and "has no lossi and no mlflow" in done.stdout, done.stderr


def test_the_manifest_is_what_the_dashboard_reads() -> None:
    manifest = yaml.safe_load((PORTAL / "manifest.yml").read_text())
    assert manifest["name"] == "Lossi" and manifest["category"] and manifest["description"] and "role" not in manifest
    assert os.access(PORTAL / "bin" / "python", os.X_OK)
    assert (PORTAL / "public" / "static" / "start.css").is_file() and (PORTAL / "icon.svg").read_text().startswith("<svg")


def test_each_mount_signs_its_own_cookie(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY_BASE", "k" * 64)
    modes = []
    for mount in ("/pun/sys/lossi", "/pun/dev/lossi"):
        monkeypatch.setenv("PASSENGER_BASE_URI", mount)
        modes.append(security.portal_mode())
        assert modes[-1] == security.portal_mode(), "a new process must accept the session of the old one"
    assert [mode.cookie for mode in modes] == ["lossi_session_sys_lossi", "lossi_session_dev_lossi"]
    assert modes[0].secret != modes[1].secret and "k" * 64 not in {mode.secret for mode in modes}
    monkeypatch.delenv("SECRET_KEY_BASE")
    stored = security.portal_mode()
    assert stored == security.portal_mode() and stored.secret != modes[1].secret
    (file,) = (home / "state" / "lossi" / "portal").iterdir()
    assert file.stat().st_mode & 0o077 == 0

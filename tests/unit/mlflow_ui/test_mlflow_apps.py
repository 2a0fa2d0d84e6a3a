"""The files of the two MLflow apps: what Open OnDemand reads of them is in its form."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

APPS = Path(__file__).resolve().parents[3] / "ood-apps"
SESSION, EMBEDDED = APPS / "mlflow-session", APPS / "mlflow-embedded"


def test_manifests_say_what_kind_of_app_it_is() -> None:
    session, embedded = (yaml.safe_load((app / "manifest.yml").read_text()) for app in (SESSION, EMBEDDED))
    assert session["role"] == "batch_connect" and "role" not in embedded
    assert session["category"] and embedded["category"]


@pytest.mark.parametrize("name", ["before.sh", "script.sh", "after.sh"])
def test_scripts_are_sound_and_hold_nothing_of_the_form(name: str) -> None:
    script = SESSION / "template" / name
    assert "<%" not in script.read_text()
    assert subprocess.run(["bash", "-n", str(script)], capture_output=True).returncode == 0
    done = subprocess.run([Path(sys.executable).with_name("shellcheck"), script], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")
    assert name != "script.sh" or script.stat().st_mode & 0o111 == 0o111


def test_the_job_looks_for_ports_in_the_sites_range_and_not_for_ever(tmp_path: Path) -> None:
    shutil.copy(SESSION / "template" / "before.sh", tmp_path)
    functions = "find_port() { echo 23456; }; create_passwd() { echo secret; }; export -f find_port; host=node"
    report = 'echo "$ports" | tr "\\n" " "; stat -c %a .'
    argv = ["bash", "-c", f"{functions}; . ./before.sh; {report}"]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "23456 23456 23456 700\n"
    # As `timeout` ends it where no port of the range is free.
    none = f'timeout() {{ return 124; }}; {functions}; . ./before.sh; echo "[$ports] $mode"'
    assert subprocess.run(["bash", "-c", none], cwd=tmp_path, capture_output=True, text=True).stdout == "[] starting\n"

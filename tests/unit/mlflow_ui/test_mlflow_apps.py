"""The files of the two MLflow apps: what Open OnDemand reads of them is in its form."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

APPS = Path(__file__).resolve().parents[3] / "ood-apps"
SESSION, EMBEDDED = APPS / "mlflow-session", APPS / "mlflow-embedded"


def test_manifests_say_what_kind_of_app_it_is() -> None:
    session, embedded = (yaml.safe_load((app / "manifest.yml").read_text()) for app in (SESSION, EMBEDDED))
    assert session["role"] == "batch_connect" and "role" not in embedded
    assert session["category"] and embedded["category"]


def test_every_field_of_the_form_is_known() -> None:
    form = yaml.safe_load((SESSION / "form.yml").read_text())
    assert set(form["attributes"]) <= set(form["form"])
    assert {"store", "bc_num_hours"} <= set(form["form"])


@pytest.mark.parametrize("name", ["before.sh", "script.sh", "after.sh"])
def test_scripts_are_sound_and_hold_nothing_of_the_form(name: str) -> None:
    script = SESSION / "template" / name
    assert "<%" not in script.read_text()
    assert subprocess.run(["bash", "-n", str(script)], capture_output=True).returncode == 0
    if shutil.which("shellcheck"):
        done = subprocess.run(["shellcheck", str(script)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout
    assert name != "script.sh" or script.stat().st_mode & 0o111 == 0o111


def test_no_value_of_the_form_is_rendered_into_the_submission() -> None:
    text = (SESSION / "submit.yml.erb").read_text()
    assert "<%=" not in text and "store" not in text.partition("---")[2]

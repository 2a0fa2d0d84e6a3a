"""The Jupyter app's script.sh alone: what a session's card says after a bad end."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from batch_connect import TREE, has_ruby, render

APP = TREE / "ood-apps" / "jupyter"
SCRIPT = APP / "template" / "script.sh"
FATAL = 'kill -BUS "$$"'
"""The end of a process whose image is gone: on a stop, the container's filesystem may go before the process in it."""


def staged(folder: Path, code: str, state: str) -> list[str]:
    """Prepare a session that runs ``code`` in a folder, and return the argv with which Open OnDemand starts it."""
    shutil.copy(SCRIPT, folder)
    for name in ("setup.sh", "scratch"):
        (folder / name).write_text("")
    (folder / "interpreter").write_text("/nowhere/python\n")
    (folder / "session.json").write_text("{}")
    (folder / "status.json").write_text(json.dumps({"state": state, "why": "", "elapsed_s": 5}))
    (folder / "words").write_bytes(b"\0".join([b"bash", b"-c", code.encode(), b"session", b""]))
    return [str(folder / "script.sh")]


def state(folder: Path) -> tuple[str, str]:
    status = json.loads((folder / "status.json").read_text())
    return status["state"], status["why"]


def test_the_last_report_holds_when_the_session_is_stopped(tmp_path: Path) -> None:
    ready = tmp_path / "listening"
    os.mkfifo(ready)
    argv = staged(tmp_path, f"trap '{FATAL}' TERM; echo >{ready}; while :; do sleep 0.05; done", "ready")
    with subprocess.Popen(argv, env={**os.environ, "LOSSI_HOST": "n1"}, stderr=subprocess.PIPE) as process:
        ready.read_bytes()
        process.terminate()
        assert process.wait(300) == 0
    assert state(tmp_path) == ("ready", "")


@pytest.mark.parametrize(("before", "why"), [("ready", "ended unexpectedly"), ("starting", "could not be started")])
def test_an_unexpected_end_is_a_failure(tmp_path: Path, before: str, why: str) -> None:
    done = subprocess.run(staged(tmp_path, FATAL, before), env={**os.environ, "LOSSI_HOST": "n1"}, capture_output=True)
    assert done.returncode == 1 and why in done.stderr.decode()
    assert state(tmp_path)[0] == "failed" and why in state(tmp_path)[1]


@pytest.mark.skipif(not has_ruby(), reason="no ruby: tests/provision.sh installs it")
@pytest.mark.parametrize("completed", [False, True])
def test_the_card_shows_the_end_of_the_jobs_log_if_the_session_has_none(tmp_path: Path, completed: bool) -> None:
    (tmp_path / "status.json").write_text(json.dumps({"state": "failed", "why": "it broke", "log": []}))
    names = {"staged_root": str(tmp_path), "completed": completed}
    request = {"path": str(APP / "info.html.erb"), "kind": "session", "names": names}
    (without,) = render([request])
    assert "it broke" in without["text"] and "<pre>" not in without["text"]
    (tmp_path / "output.log").write_bytes(b"first\n" * 4000 + b"FATAL: \xff <container> creation failed\nlast\n")
    (answer,) = render([request])
    assert "FATAL: \ufffd &lt;container&gt; creation failed&#10;last" in answer["text"] and answer["text"].count("first") == 6

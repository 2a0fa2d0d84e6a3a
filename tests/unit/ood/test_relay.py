"""``lossi`` inside a session: which commands leave the container, and whose."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lossi.ood import relay, shim


@pytest.fixture
def place(home: Path) -> Iterator[Path]:
    """The socket of a relay that runs in this process."""
    session: dict[str, Any] = {"environment": "sklearn", "cluster": "ci", "site": str(home / "no-site.yml")}
    with tempfile.TemporaryDirectory() as folder, relay.Relay(Path(folder) / "s", session) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield Path(folder) / "s"
        server.shutdown()
        thread.join()


def inside(place: Path | str, *words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-I", shim.__file__, *words]
    env = {"LOSSI_RELAY": str(place), "PATH": os.environ["PATH"]}
    return subprocess.run(argv, env=env, cwd=cwd, capture_output=True, text=True, timeout=120)


def test_output_errors_and_exit_code_come_back(place: Path) -> None:
    good = inside(place, "env", "list", "--json")
    assert good.returncode == 0 and '"environments"' in good.stdout, good.stderr
    wrong = inside(place, "env", "show", "no-such $(id)")
    assert wrong.returncode == 3 and "no-such $(id)" in wrong.stderr and wrong.stdout == ""


@pytest.mark.parametrize("words", [[], ["serve"], ["exec", "x", "--", "id"], ["install"], ["-c", "id"], ["\udc80"]])
def test_other_commands_stay_inside(place: Path, words: list[str]) -> None:
    done = inside(place, *words)
    assert done.returncode == 2 and "run|sweep|jobs" in done.stderr


def test_a_folder_that_exists_only_in_the_container_is_named(place: Path, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(place))
        client.sendall(b'{"argv": ["jobs"], "cwd": "/no/such/folder"}\n')
        assert b"exists only inside the container" in client.makefile("rb").read()


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"[]\n",
        b"{}\n",
        b"\xff\n",
        b"[" * 9000 + b"\n",
        b'{"argv": 1, "cwd": 2}\n',
        b'{"argv": ["run", "\\ud800"], "cwd": "/"}\n',
        b'{"argv": ["run", "\\u0000"], "cwd": "/"}\n',
    ],
)
def test_an_unreadable_command_is_refused(place: Path, line: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(place))
        client.sendall(line)
        assert b"could not be read" in client.makefile("rb").read()


def test_submissions_default_to_the_sessions_environment_and_cluster() -> None:
    command = relay.Command.__new__(relay.Command)
    command.server = type("Server", (), {"session": {"environment": "sklearn", "cluster": "ci"}})()
    assert command.with_defaults(["jobs", "show", "1"]) == ["jobs", "show", "1"]
    defaults = ["run", "--env", "sklearn", "--cluster", "ci"]
    assert command.with_defaults(["run", "a.ipynb", "-e", "other"]) == [*defaults, "a.ipynb", "-e", "other"], (
        "the last one counts"
    )
    assert command.with_defaults(["sweep", "--scheduler=local"]) == ["sweep", "--env", "sklearn", "--scheduler=local"]


def test_only_the_user_reaches_the_socket(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert place.stat().st_mode & 0o777 == 0o600
    here = os.getuid()
    monkeypatch.setattr(relay.os, "getuid", lambda: here + 1)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(place))
        try:
            client.sendall(b'{"argv": ["jobs"], "cwd": "/"}\n')
            assert client.recv(1) == b""
        except (BrokenPipeError, ConnectionResetError):
            pass  # closed without reading


def test_without_a_relay_the_command_names_where_it_works() -> None:
    done = inside("", "jobs")
    assert done.returncode == 5 and "login node" in done.stderr

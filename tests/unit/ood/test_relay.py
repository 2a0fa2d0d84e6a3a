"""``lossi`` inside a session: what is handed out of the container, and to whom."""

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
    bad = inside(place, "env", "show", "no-such $(id)")
    assert bad.returncode == 3 and "no-such $(id)" in bad.stderr and bad.stdout == ""


@pytest.mark.parametrize("words", [[], ["serve"], ["exec", "x", "--", "id"], ["install"], ["-c", "id"], ["\udc80"]])
def test_other_commands_stay_inside(place: Path, words: list[str]) -> None:
    done = inside(place, *words)
    assert done.returncode == 2 and "run|sweep|jobs" in done.stderr


def test_a_folder_of_the_container_alone_is_named(place: Path, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(place))
        client.sendall(b'{"argv": ["jobs"], "cwd": "/no/such/folder"}\n')
        assert b"inside the container only" in client.makefile("rb").read()


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
def test_what_cannot_be_read_is_refused(place: Path, line: bytes) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(place))
        client.sendall(line)
        assert b"could not be read" in client.makefile("rb").read()


def test_a_session_means_its_own_environment_and_cluster() -> None:
    command = relay.Command.__new__(relay.Command)
    command.server = type("Server", (), {"session": {"environment": "sklearn", "cluster": "ci"}})()
    assert command.completed(["jobs", "show", "1"]) == ["jobs", "show", "1"]
    meant = ["run", "--env", "sklearn", "--cluster", "ci"]
    assert command.completed(["run", "a.ipynb", "-e", "other"]) == [*meant, "a.ipynb", "-e", "other"], "the later one wins"
    assert command.completed(["sweep", "--scheduler=local"]) == ["sweep", "--env", "sklearn", "--scheduler=local"]


def test_the_socket_is_the_users_alone(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_without_a_relay_it_says_where_to_go() -> None:
    done = inside("", "jobs")
    assert done.returncode == 5 and "login node" in done.stderr

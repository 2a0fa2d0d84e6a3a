"""A session on its node: whose socket it is before the card may post a password, and what the card says if nothing starts."""

from __future__ import annotations

import ast
import errno
import json
import os
import runpy
import shutil
import socket
import subprocess
import sys
import threading
import time
import types
from pathlib import Path
from typing import Any

import pytest
from traitlets.config import Config

from lossi.ood import jupyter_node
from lossi.ood.jupyter_node import proc, session as node, status

TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:22B8 00000000:0000 0A 00000000:00000000 00:00000000 00000000  {uid}        0 1111 1 0 100 0 0 10 0
   1: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 2222 1 0 100 0 0 10 0
   2: 0100007F:22B8 0100007F:9999 01 00000000:00000000 00:00000000 00000000    77        0 3333 1 0 100 0 0 10 0
"""


@pytest.fixture
def session(tmp_path: Path) -> node.Session:
    options: dict[str, Any] = {
        "environment": "sklearn",
        "title": "scikit-learn",
        "interface": "lab",
        "folder": str(tmp_path),
        "origin": "https://Portal.example",
        "cores": 2,
        "memory_mb": 1024,
        "kind": "local",
    }
    (tmp_path / "session.json").write_text(json.dumps(options))
    return node.Session(str(tmp_path), "node1")


FOLDER = Path(jupyter_node.__file__).parent


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.name)
def test_it_needs_python_39_and_what_jupyter_brings_along(path: Path) -> None:
    tree = ast.parse(path.read_text(), feature_version=(3, 9))
    names = {
        statement.module or "" for statement in ast.walk(tree) if isinstance(statement, ast.ImportFrom) and not statement.level
    }
    names |= {alias.name for statement in ast.walk(tree) if isinstance(statement, ast.Import) for alias in statement.names}
    outside = {name.split(".")[0] for name in names} - sys.stdlib_module_names - {"__future__"}
    assert outside <= {"argon2", "jupyter_server", "tornado", "traitlets"}


def test_a_copy_of_the_package_runs_by_itself(tmp_path: Path) -> None:
    copy = shutil.copytree(FOLDER, tmp_path / "jupyter_node")
    argv = [sys.executable, "-I", "-S", str(copy), str(tmp_path), "not a host"]
    done = subprocess.run(argv, cwd="/", capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "lossi: 'not a host' is not a host name\n")


def test_only_listening_sockets_of_the_port_are_seen_with_their_owners(tmp_path: Path) -> None:
    (tmp_path / "tcp").write_text(TABLE.format(uid=1000))
    assert proc.listeners(0x22B8, str(tmp_path)) == [(1000, "1111")]
    assert proc.listeners(22, str(tmp_path)) == [(0, "2222")]
    assert proc.listeners(23, str(tmp_path)) == []


def test_a_port_is_ours_only_when_the_socket_is_jupyters_own(session: node.Session, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        assert not proc.is_free("127.0.0.1", port) and not proc.is_free("0.0.0.0", port)
        ((owner, inode),) = proc.listeners(port)
        assert owner == os.getuid() and inode in proc.sockets(os.getpid())
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        session.child = child
        # Listening, of the same user, but not the process that was started.
        assert not session.answers("127.0.0.1", port, "/")
        monkeypatch.setattr(node.os, "getuid", lambda: owner + 1)
        with pytest.raises(node.PortTaken):
            session.answers("127.0.0.1", port, "/")
        child.communicate(b"\n")


def test_another_address_of_the_node_counts_too() -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.2", 0))
        listening.listen()
        assert not proc.is_free("127.0.0.1", listening.getsockname()[1])


def test_jupyter_gets_one_password_one_origin_and_no_token(
    session: node.Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = shutil.copytree(FOLDER, tmp_path / "jupyter_node") / node.CONFIG
    (tmp_path / "private").mkdir()
    monkeypatch.setattr(node.Session, "hashed", lambda self: "argon2:x")
    monkeypatch.setattr(node.Session, "answers", lambda *_: True)
    monkeypatch.setattr(node.subprocess, "Popen", lambda *_, **__: None)
    session.start("10.0.0.1", 5000)
    assert (tmp_path / "private" / "settings.json").stat().st_mode & 0o777 == 0o600
    for name in ("jupyter_server", "jupyter_server.auth", "jupyter_server.auth.login"):
        monkeypatch.setitem(sys.modules, name, types.SimpleNamespace(LoginFormHandler=object))
    settings = runpy.run_path(str(config), {"get_config": Config})["c"]
    server = settings["ServerApp"]
    assert server["allow_origin"] == "https://portal.example" and server["disable_check_xsrf"] is False
    assert server["ip"] == "10.0.0.1" and server["port_retries"] == 0 and server["allow_unauthenticated_access"] is False
    assert server["base_url"] == "/node/node1/5000/" and server["root_dir"] == str(tmp_path)
    assert settings["IdentityProvider"] == {"token": "", "secure_cookie": True}
    password = settings["PasswordIdentityProvider"]
    assert password["hashed_password"] == "argon2:x" and password["password_required"] is True


def test_a_failed_start_reports_why_with_the_end_of_the_log(session: node.Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node.Session, "check_packages", lambda self: None)
    Path(session.path(node.LOG)).write_text("first\n\x1b[31mred\x1b[0m\x07 end\n")
    assert session.run([]) == 1
    report = json.loads(Path(session.path(status.FILE)).read_text())
    assert (report["state"], report["log"]) == ("failed", ["first", "red end"]) and "no free port" in report["why"]
    assert not Path(session.path(node.CONNECTION)).exists()
    assert Path(session.path(status.FILE)).stat().st_mode & 0o777 == 0o600


def test_an_environment_without_jupyterlab_is_named(session: node.Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node.importlib.util, "find_spec", lambda name: None)
    assert session.run([5000]) == 1
    assert "has no JupyterLab" in json.loads(Path(session.path(status.FILE)).read_text())["why"]


def test_a_full_disk_is_reported_over_the_old_status(session: node.Session, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Path(session.path(status.FILE))
    place.write_text(status.waiting("scikit-learn"))
    number = place.stat().st_ino

    def full(path: str, text: str) -> None:
        raise OSError(errno.EDQUOT, "no more", path)

    monkeypatch.setattr(status, "replace", full)
    monkeypatch.setattr(node.Session, "check_packages", lambda self: status.replace("connection", ""))
    monkeypatch.setattr(node.Session, "tail", lambda self: ["\N{GRINNING FACE}" * 300] * 15)
    assert session.run([5000]) == 1
    report = json.loads(place.read_text())
    assert (report["state"], report["why"]) == ("failed", status.FULL) and 0 < len(report["log"]) < 15
    assert (place.stat().st_ino, place.stat().st_size) == (number, status.BYTES)
    session.report("failed", "Jupyter did not start (exit code 1)")
    assert json.loads(place.read_text())["why"] == f"Jupyter did not start (exit code 1); {status.FULL}"
    place.write_text("")
    session.report("ended")
    assert place.read_text() == "", "a file that would not fit is not started"


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status.replace(str(tmp_path / "a"), "old")
    monkeypatch.setattr(status, "write", lambda path, text: (Path(path).write_text(text[:2]), os.open("/nowhere/x", 0)))
    with pytest.raises(OSError, match="nowhere"):
        status.replace(str(tmp_path / "a"), "newer")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a", "old")]


def test_a_stopped_session_reports_its_usage_before_jupyter_has_ended(session: node.Session) -> None:
    """The scheduler may kill it first."""
    code = "import signal, time; signal.signal(signal.SIGTERM, lambda *_: None); print(1, flush=True); time.sleep(60)"
    session.child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert session.child.stdout and session.child.stdout.readline()
    thread = threading.Thread(target=session.watch)
    thread.start()
    session.stop()
    place, patience = Path(session.path(status.FILE)), time.monotonic() + 300
    while not place.exists() and time.monotonic() < patience:
        time.sleep(0.02)
    assert json.loads(place.read_text())["state"] == "ended" and session.child.poll() is None
    session.child.kill()
    thread.join()


def test_files_are_private_and_links_are_not_followed(tmp_path: Path) -> None:
    status.write(str(tmp_path / "a"), "x")
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="link"):
        status.write(str(tmp_path / "link"), "x")


def test_usage_counts_all_processes_below() -> None:
    child = subprocess.Popen([sys.executable, "-c", "x = bytearray(80 << 20); print(1, flush=True); input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
    assert child.stdout and child.stdout.readline()
    cpu_s, memory = proc.usage(os.getpid())
    child.communicate(b"\n")
    assert memory > 80 << 20 and cpu_s > 0


@pytest.mark.parametrize("host", ["", "-x", "a b", "a\n", "$(id)", "a/b"])
def test_a_host_name_is_checked(tmp_path: Path, host: str) -> None:
    assert node.main([str(tmp_path), host, "5000"]) == 1

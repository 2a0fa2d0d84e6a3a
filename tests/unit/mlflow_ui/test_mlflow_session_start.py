"""What an MLflow session does before MLflow runs: picks its port, reads its request, and tells the card what went wrong."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lossi.errors import Unavailable
from lossi.mlflow_ui import gate, session

SECRET = "0123456789abcdefABCDEF0123456789"


@contextlib.contextmanager
def squatting(family: socket.AddressFamily, address: str) -> Iterator[int]:
    """Listen at one address of this machine, as another user could, and give the port."""
    with socket.socket(family) as squatter:
        if family is socket.AF_INET6:
            squatter.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        squatter.bind((address, 0))
        squatter.listen()
        yield squatter.getsockname()[1]


@pytest.mark.parametrize(
    ("family", "address"),
    [
        (socket.AF_INET, "0.0.0.0"),
        (socket.AF_INET, "127.0.0.1"),
        (socket.AF_INET6, "::"),
        (socket.AF_INET6, "::1"),
    ],
)
def test_a_port_at_which_anybody_listens_is_left_to_them(family: socket.AddressFamily, address: str) -> None:
    if family is socket.AF_INET6 and not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 on this machine")
    with squatting(family, address) as taken:
        with pytest.raises(Unavailable, match="no free port"):
            session.listen(f"{taken}\n{taken}\n")
        with contextlib.closing(socket.socket()) as other:
            other.bind(("", 0))
            free = other.getsockname()[1]
        with session.listen(f"{taken}\n{free}\n") as listener:
            assert listener.getsockname()[1] == free
            # And from now on nobody else has it at any address.
            for theirs, at in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET, "0.0.0.0")):
                with socket.socket(theirs) as late, pytest.raises(OSError):
                    late.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    late.bind((at, free))
                    late.listen()


@pytest.mark.parametrize("ports", ["", " ", "x", "0", "99", "99999", "70000", "-1", "$(id)", "12345678901234567890"])
def test_without_a_port_the_session_says_so(ports: str) -> None:
    with pytest.raises(Unavailable, match="no free port"):
        session.listen(ports)


def started(folder: Path, monkeypatch: pytest.MonkeyPatch, **changes: str) -> str:
    """Run a session that cannot start, and return what its card is told."""
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    for name, value in {session.SECRET: SECRET, session.HOST: "node", session.PORTS: str(port), **changes}.items():
        monkeypatch.setenv(name, value)
    folder.mkdir(exist_ok=True)
    assert session.main([str(folder)]) == 1
    assert not (folder / session.READY).exists()
    return (folder / session.FAILURE).read_text()


def test_a_store_that_was_removed_meanwhile_is_told_to_the_card(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, project = tmp_path / "session", tmp_path / "project"
    (project / ".lossi").mkdir(parents=True)
    folder.mkdir()
    (folder / session.SESSION).write_text(json.dumps({"store": str(project)}))
    assert "has no runs yet" in started(folder, monkeypatch)
    shutil.rmtree(project)
    assert "is not a folder, or you may not see it" in started(folder, monkeypatch)
    assert not list(home.glob("lossi-mlflow-*"))


@pytest.mark.parametrize("content", [None, "", "{", "[]", '{"store": 1}', '{"other": "x"}', "[" * 5000])
def test_a_session_without_its_file_is_told_to_the_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None
) -> None:
    folder = tmp_path / "session"
    folder.mkdir()
    if content is not None:
        (folder / session.SESSION).write_text(content)
    assert "names no store" in started(folder, monkeypatch)


def test_no_free_port_is_told_to_the_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no free port" in started(tmp_path / "session", monkeypatch, LOSSI_SESSION_PORTS="")


def test_the_cookie_of_an_earlier_session_at_the_same_port_opens_nothing() -> None:
    def behind(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [b"in"]

    def asked(secret: str, **more: str) -> tuple[str, dict[str, str]]:
        answers: list[Any] = []
        base = {"REQUEST_METHOD": "GET", "PATH_INFO": "/node/cpu01/23456/", "wsgi.input": io.BytesIO()}
        gate.SecretGate(behind, secret, "/node/cpu01/23456")({**base, **more}, lambda *answer: answers.append(answer))
        return answers[0][0], dict(answers[0][1])

    old, new = SECRET, SECRET[::-1]
    both = [gate.SecretGate(behind, secret, "/node/cpu01/23456") for secret in (old, new)]
    assert both[0]._name == both[1]._name
    cookies = [f"{authentication._name}={authentication._cookie}" for authentication in both]
    assert asked(new, HTTP_COOKIE=cookies[1])[0] == asked(new, HTTP_COOKIE="; ".join(cookies))[0] == "200 OK"
    assert asked(new, HTTP_COOKIE=cookies[0])[0] == "403 Forbidden"
    assert asked(new, HTTP_AUTHORIZATION=f"Bearer {old}")[0] == "403 Forbidden"

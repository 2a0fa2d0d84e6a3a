"""The way to slurmrestd: who asks, whom it trusts, what it does with answers that are none."""

from __future__ import annotations

import base64
import json
import os
import socket
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from recorded_slurmrestd import Served, serve

from lossi.clusters import Cluster, RestSettings
from lossi.errors import Forbidden, InvalidInput, LossiError, NotSupported, Unavailable
from lossi.jobs.schedulers.slurm.rest import RestClient, token as tokens, transport, versions
from lossi.jobs.schedulers.slurm.rest.transport import Call, Transport

ME = os.geteuid()
SECRET = "aaa.bbb.ccc-secret"
PING = Call("/slurm/v0.0.42/ping/")


def jwt(seconds: float) -> str:
    claims = base64.urlsafe_b64encode(json.dumps({"exp": time.time() + seconds}).encode()).decode().rstrip("=")
    return f"eyJhbGciOiJIUzI1NiJ9.{claims}.c2ln"


@pytest.fixture
def server() -> Iterator[Served]:
    with serve(lambda asked: (200, b'{"pings": [], "errors": []}')) as served:
        yield served


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(f"SLURM_JWT={SECRET}\n")
    path.chmod(0o600)
    return path


def way(url: str, path: Path | None = None, *, deadline_s: float = 5.0, **more: object) -> Transport:
    rest = RestSettings.model_validate({"url": url, **({"token_file": path} if path else {}), **more})
    return Transport(Cluster(name="ci", rest=rest, deadline_s=deadline_s), ME)


def on_socket(path: Path, **more: object) -> Transport:
    rest = RestSettings.model_validate({"socket": path, **more})
    return Transport(Cluster(name="ci", rest=rest, deadline_s=5), ME)


def test_token_and_name_go_into_headers(server: Served, token_file: Path) -> None:
    asking = way(server.url, token_file)
    assert asking.ask(PING).document == {"pings": [], "errors": []}
    headers = server.asked[0].headers
    assert headers["X-SLURM-USER-TOKEN"] == SECRET and headers["X-SLURM-USER-NAME"] == asking.user


def test_proxy_of_the_environment_never_gets_the_token(server: Served, token_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert way(server.url, token_file).ask(PING).status == 200


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_token_that_others_can_read_is_not_used(server: Served, token_file: Path, mode: int) -> None:
    token_file.chmod(mode)
    with pytest.raises(Forbidden, match="others can read it"):
        way(server.url, token_file).ask(PING)
    assert server.asked == []


def test_token_of_another_owner_is_not_used(server: Served, token_file: Path) -> None:
    rest = RestSettings(url=server.url, token_file=token_file)
    with pytest.raises(Forbidden, match="not your file"):
        Transport(Cluster(name="ci", rest=rest), ME + 1).ask(PING)


def test_folder_or_pipe_in_place_of_the_token_blocks_nothing(server: Served, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(LossiError):
            way(server.url, path).ask(PING)


def test_missing_token_is_said(server: Served, tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="cannot be read"):
        way(server.url, tmp_path / "nothing").ask(PING)


def test_an_expired_token_is_refused_before_it_is_sent(server: Served, token_file: Path) -> None:
    token_file.write_text(jwt(-1))
    with pytest.raises(Forbidden, match="expired"):
        way(server.url, token_file).ask(PING)
    token_file.write_text(jwt(60))
    assert way(server.url, token_file).ask(PING).status == 200


def counting(tmp_path: Path, text: str) -> tuple[Path, Path]:
    """Return a command that prints a text, and a file in which each of its starts leaves a line with its variables."""
    log = tmp_path / "log"
    command = tmp_path / "give-token"
    command.write_text(f"#!/bin/sh\nenv | tr '\\n' ' ' >> {log}\necho >> {log}\n{text}\n")
    command.chmod(0o755)
    return command, log


def test_command_is_run_once_for_as_long_as_its_token_lasts(
    server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_KEY_BASE", "of the web process")
    command, log = counting(tmp_path, f"echo SLURM_JWT={jwt(600)}")
    asking = way(server.url, token_command=(str(command),))
    for _ in range(3):
        asking.ask(PING)
    runs = log.read_text().splitlines()
    assert len(runs) == 1 and "SECRET_KEY_BASE" not in runs[0]


def test_token_is_renewed_before_it_ends(server: Served, tmp_path: Path) -> None:
    command, log = counting(tmp_path, f"echo SLURM_JWT={jwt(0)}")
    asking = way(server.url, token_command=(str(command),))
    asking.ask(PING)
    asking.ask(PING)
    assert len(log.read_text().splitlines()) == 2


def test_refused_token_is_renewed_once(server: Served, tmp_path: Path) -> None:
    command, log = counting(tmp_path, f"echo SLURM_JWT={jwt(600)}")
    server.answerer = lambda asked: (401, b"Authentication failure")
    asking = way(server.url, token_command=(str(command),))
    with pytest.raises(Forbidden, match="Authentication failure"):
        asking.ask(PING)
    assert len(server.asked) == 2 and len(log.read_text().splitlines()) == 2


@pytest.mark.parametrize("printed", ["", "echo 'two words'", "exit 3", "echo no >&2; exit 1"])
def test_command_that_gives_no_token_is_said(server: Served, tmp_path: Path, printed: str) -> None:
    command, _ = counting(tmp_path, printed)
    with pytest.raises(LossiError, match="give-token gave no token"):
        way(server.url, token_command=(str(command),)).ask(PING)
    assert server.asked == []


def test_renewal_is_before_the_end_but_not_in_the_first_half() -> None:
    now = time.time()
    assert tokens.renewal(jwt(600), now) == pytest.approx(now + 570, abs=1)
    assert tokens.renewal(jwt(20), now) == pytest.approx(now + 10, abs=1)
    for without in ("abc", "a.b.c", "..", "a.e30.c"):
        assert tokens.renewal(without, now) == now + tokens.UNSAID_S


@pytest.mark.parametrize("status", [200, 400, 401, 403, 500])
def test_token_never_appears_in_an_error(server: Served, token_file: Path, status: int) -> None:
    server.answerer = lambda asked: (status, f"you sent {asked.headers['X-SLURM-USER-TOKEN']}".encode())
    client = RestClient(Cluster(name="ci", rest=RestSettings(url=server.url, token_file=token_file, version="v0.0.42")), uid=ME)
    with pytest.raises(LossiError) as caught:
        client.partitions()
    error: BaseException | None = caught.value
    while error is not None:
        assert SECRET not in f"{error!s} {error!r} {getattr(error, 'details', '')}"
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def test_redirect_is_not_followed(server: Served, token_file: Path) -> None:
    with serve(lambda asked: (200, b"{}")) as elsewhere:
        server.answerer = lambda asked: (302, b"")
        server.headers = {"Location": elsewhere.url}
        with pytest.raises(Unavailable, match="redirect"):
            way(server.url, token_file).ask(PING)
        assert elsewhere.asked == []


def test_answer_is_not_waited_for_beyond_the_deadline(server: Served, token_file: Path) -> None:
    given_up = threading.Event()

    def slow(asked: object) -> tuple[int, bytes]:
        given_up.wait()
        return 200, b"{}"

    server.answerer = slow
    try:
        with pytest.raises(Unavailable, match=r"no answer within 0\.2 s"):
            way(server.url, token_file, deadline_s=0.2).ask(PING)
    finally:
        given_up.set()


def test_answer_that_is_too_large_is_not_read(server: Served, token_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "MOST_BYTES", 1000)
    server.answerer = lambda asked: (200, b'"' + b"x" * 2000 + b'"')
    with pytest.raises(Unavailable, match="too large"):
        way(server.url, token_file).ask(PING)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[1]", b"{", b"[" * 100_000, b"<html>Bad Gateway</html>"])
def test_answer_that_is_no_document_breaks_nothing(server: Served, token_file: Path, content: bytes) -> None:
    server.answerer = lambda asked: (502, content)
    with pytest.raises(Unavailable, match="502"):
        versions.agreed(way(server.url, token_file))


def test_nobody_at_the_address_is_said(token_file: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(Unavailable, match="Connection refused"):
            way(f"http://127.0.0.1:{taken.getsockname()[1]}", token_file).ask(PING)


def test_server_of_unknown_versions_is_not_supported(server: Served, token_file: Path) -> None:
    server.answerer = lambda asked: (404, b"Unable find requested URL.")
    with pytest.raises(NotSupported, match=r"v0\.0\.42"):
        versions.agreed(way(server.url, token_file))
    with pytest.raises(InvalidInput, match=r"v0\.0\.39 is not supported"):
        RestClient(Cluster(name="ci", rest=RestSettings(url=server.url, token_file=token_file, version="v0.0.39")), uid=ME)


def test_cluster_without_the_door_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"rest\.socket"):
        RestClient(Cluster(name="ci"))


def test_socket_of_the_user_needs_no_token(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with serve(lambda asked: (200, b'{"errors": []}'), tmp_path / "sock") as served:
        assert on_socket(tmp_path / "sock").ask(PING).status == 200
        assert "X-SLURM-USER-TOKEN" not in served.asked[0].headers


def test_name_of_the_user_stands_in_the_path_of_the_socket(tmp_path: Path, server: Served, token_file: Path) -> None:
    name = way(server.url, token_file).user
    with serve(lambda asked: (200, b"{}"), tmp_path / f"{name}.sock"):
        assert on_socket(tmp_path / "{user}.sock").ask(PING).status == 200


def test_socket_in_a_folder_in_which_others_write_is_not_used(tmp_path: Path) -> None:
    with serve(lambda asked: (200, b"{}"), tmp_path / "sock") as served:
        tmp_path.chmod(0o777)
        with pytest.raises(Forbidden, match="somebody else could replace it"):
            on_socket(tmp_path / "sock").ask(PING)
        assert served.asked == []
        tmp_path.chmod(0o777 | stat.S_ISVTX)  # as /tmp
        assert on_socket(tmp_path / "sock").ask(PING).status == 200


def test_socket_of_another_user_is_not_used(tmp_path: Path) -> None:
    if ME == 0:
        with serve(lambda asked: (200, b"{}"), tmp_path / "sock") as served:
            os.chown(tmp_path / "sock", 54321, -1)
            with pytest.raises(Forbidden):
                on_socket(tmp_path / "sock").ask(PING)
            assert served.asked == []
    else:
        with serve(lambda asked: (200, b"{}"), tmp_path / "sock"), pytest.raises(Forbidden):
            rest = RestSettings(socket=tmp_path / "sock")
            Transport(Cluster(name="ci", rest=rest), ME + 1).ask(PING)


def test_file_in_place_of_the_socket_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "sock").write_text("")
    with pytest.raises(Forbidden):
        on_socket(tmp_path / "sock").ask(PING)
    with pytest.raises(Unavailable, match="No such file"):
        on_socket(tmp_path / "nothing").ask(PING)

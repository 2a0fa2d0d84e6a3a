"""Files are replaced whole or not at all, and a failure says what to do."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from lossi.errors import Forbidden, LossiError, Unavailable
from lossi.files import atomic, permissions


def test_interrupted_writing_keeps_the_old_content_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file"
    atomic.write(path, b"old")
    with pytest.raises(KeyboardInterrupt), atomic.replacing(path) as stream:
        stream.write(b"half")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_only_the_first_of_two_creators_wins(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert atomic.create_exclusive(path, b"first")
    assert not atomic.create_exclusive(path, b"second")
    assert path.read_bytes() == b"first"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_full_disk_is_explained_and_the_old_content_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import resource
    import signal

    path = tmp_path / "file"
    atomic.write(path, b"old")
    # A real refusal by the kernel: this process may not write files larger than 4 kB.
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
        with pytest.raises(Unavailable) as caught:
            atomic.write(path, b"x" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert caught.value.hint
    assert path.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this machine has no /dev/full")
def test_no_space_left_is_explained() -> None:
    with pytest.raises(OSError) as caught, Path("/dev/full").open("wb", buffering=0) as stream:
        stream.write(b"x")
    error = atomic.explained(caught.value, Path("/dev/full"))
    assert isinstance(error, Unavailable)
    assert "full" in error.why


def test_read_only_folder_is_explained() -> None:
    """Root may write anywhere, so the attempt is made by a child without rights, in a folder that it can reach."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        folder = place / "read-only"
        folder.mkdir()
        (folder / "file").write_bytes(b"old")
        place.chmod(0o755)
        folder.chmod(0o555)

        def attempt() -> None:
            assert (folder / "file").read_bytes() == b"old"
            atomic.write(folder / "file", b"new")

        try:
            assert in_child_without_rights(attempt) == "Forbidden: you have no write permission"
            assert [path.name for path in folder.iterdir()] == ["file"]
            assert (folder / "file").read_bytes() == b"old"
        finally:
            folder.chmod(0o755)


def test_missing_folder_is_explained(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="does not exist"):
        atomic.write(tmp_path / "gone" / "file", b"x")


def in_child_without_rights(action: Callable[[], object]) -> str:
    """Run an action in a forked child that is no root; return ``Error: why`` or ``ok``."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        answer = "ok"
        try:
            if os.getuid() == 0:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
            action()
        except LossiError as error:
            answer = f"{type(error).__name__}: {error.why}"
        except BaseException as error:
            answer = f"not explained: {error!r}"
        os.write(writer, answer.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        answer = stream.read().decode()
    os.waitpid(child, 0)
    return answer


def test_world_writable_ancestor_is_refused_unless_sticky(tmp_path: Path) -> None:
    folder = tmp_path / "open" / "project"
    folder.mkdir(parents=True)
    permissions.refuse_open_ancestors(folder)
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(Forbidden, match="every user") as caught:
        permissions.refuse_open_ancestors(folder)
    assert str(tmp_path / "open") in caught.value.what
    (tmp_path / "alias").symlink_to(folder)
    with pytest.raises(Forbidden):
        permissions.refuse_open_ancestors(tmp_path / "alias")
    (tmp_path / "open").chmod(0o1777)
    permissions.refuse_open_ancestors(folder)
    (tmp_path / "open").chmod(0o2770)
    permissions.refuse_open_ancestors(folder)

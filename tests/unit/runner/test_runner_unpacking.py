"""Unpacking code.tar and collecting the files that a task wrote."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from pathlib import Path

import pytest

from lossi.contract.records import DataLink
from lossi.runner import outputs, unpacking
from lossi.runner.errors import TaskFailure


def archive(path: Path, *members: tuple[str, bytes | str | None], kind: bytes | None = None, mode: int = 0o644) -> Path:
    """A tar of (name, content) files, (name, target) links, (name, None) folders."""
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.mode = mode
            if isinstance(content, bytes):
                info.size = len(content)
                info.type = kind or tarfile.REGTYPE
                tar.addfile(info, io.BytesIO(content))
            else:
                info.type = tarfile.DIRTYPE if content is None else tarfile.SYMTYPE
                info.linkname = content or ""
                tar.addfile(info)
    return path


def test_files_modes_and_inner_links(tmp_path: Path) -> None:
    code = tmp_path / "code"
    code.mkdir()
    members = (("a/b.sh", b"x"), ("empty", None), ("link", "a/b.sh"), ("a/up", "../a"))
    assert unpacking.unpack(archive(tmp_path / "t", *members, mode=0o6755), code, None) == []
    assert (code / "link").read_bytes() == b"x"
    assert (code / "a" / "up" / "b.sh").exists()
    assert (code / "a" / "b.sh").stat().st_mode & 0o7777 == 0o755  # no set-id bits


@pytest.mark.parametrize(
    "members",
    [
        (("../x", b""),),
        (("/x", b""),),
        (("a/../../x", b""),),
        (("a", b"1"), ("a", b"2")),
        (("d", "."), ("d/x", "y")),
        (("d", "/tmp"), ("d", b"")),
    ],
)
def test_names_outside_or_twice_are_refused(tmp_path: Path, members: tuple[tuple[str, bytes | str]]) -> None:
    code = tmp_path / "code"
    code.mkdir()
    with pytest.raises(TaskFailure):
        unpacking.unpack(archive(tmp_path / "t", *members), code, None)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.LNKTYPE])
def test_devices_and_hard_links_are_refused(tmp_path: Path, kind: bytes) -> None:
    with pytest.raises(TaskFailure, match="not a file, folder or symbolic link"):
        unpacking.unpack(archive(tmp_path / "t", ("a", b""), kind=kind), tmp_path, None)


@pytest.mark.parametrize(
    "links", [(("l", "/etc"),), (("l", "../.."),), (("d", "."), ("l", "d/../..")), (("l", "m"), ("m", "/etc"))]
)
def test_links_out_of_the_folder_are_left_out(tmp_path: Path, links: tuple[tuple[str, str]]) -> None:
    code = tmp_path / "code"
    code.mkdir()
    notes = unpacking.unpack(archive(tmp_path / "t", *links), code, None)
    assert notes
    assert not (code / "l").is_symlink() or str((code / "l").resolve()).startswith(str(code))


def test_changed_archive_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "t", ("a", b"1"))
    code = tmp_path / "code"
    code.mkdir()
    with pytest.raises(TaskFailure, match="changed since submission"):
        unpacking.unpack(path, code, "0" * 64)
    assert list(code.iterdir()) == []
    unpacking.unpack(path, code, hashlib.sha256(path.read_bytes()).hexdigest())
    assert (code / "a").exists()


def test_damaged_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t").write_bytes(b"not a tar file" * 100)
    with pytest.raises(TaskFailure, match="damaged"):
        unpacking.unpack(tmp_path / "t", tmp_path, None)


def test_lines_end_at_newlines_only(tmp_path: Path) -> None:
    lines = ['{"a": "\u2028\u0085\x0b\r"}\n'.encode(), b'{"b": 1}\n', b'{"c": 2}']
    path = tmp_path / "tasks.jsonl"
    path.write_bytes(b"".join(lines))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert [unpacking.parameters_line(path, n, digest) for n in range(3)] == lines
    with pytest.raises(TaskFailure, match="no line for task 3"):
        unpacking.parameters_line(path, 3, digest)


def test_data_links(tmp_path: Path) -> None:
    data, code = tmp_path / "data", tmp_path / "code"
    data.mkdir()
    code.mkdir()
    (code / "out").symlink_to(tmp_path)
    links = [DataLink("in/data", str(data)), DataLink("gone", "/no/such"), DataLink("out/x", str(data)), DataLink("rel", "data")]
    assert len(unpacking.link_data(code, links)) == 3
    assert (code / "in" / "data").resolve() == data
    assert not (tmp_path / "x").exists()


def test_outputs_of_an_earlier_attempt_are_replaced_but_not_of_this_one(tmp_path: Path) -> None:
    code, out = tmp_path / "code", tmp_path / "out"
    for folder in (code, out):
        folder.mkdir()
    before = outputs.manifest(code)
    (out / "model").write_text("attempt 1")
    (out / "mine").write_text("written directly")
    os.utime(out / "model", (1, 1))
    (code / "model").write_text("attempt 2")
    (code / "mine").write_text("collected")
    notes = outputs.collect(code, code, before, out, 1, since_ns=10**9 * 2)
    assert (out / "model").read_text() == "attempt 2"
    assert (out / "mine").read_text() == "written directly"
    assert "mine (exists in the output folder)" in notes[0]


def test_nothing_is_collected_after_the_deadline(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "x").write_text("1")
    notes = outputs.collect(tmp_path / "code", tmp_path / "code", {}, tmp_path / "out", 1, deadline=0.0)
    assert notes == ["not collected (no time left): x"]

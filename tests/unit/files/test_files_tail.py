"""A log is read from an offset while it grows."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from lossi.errors import Forbidden, NotFound
from lossi.files import tail


def test_parts_follow_each_other_and_growth_is_seen(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"0123456789")
    first = tail.read(log, 0, 4)
    assert (first.data, first.next_offset, first.size) == (b"0123", 4, 10)
    second = tail.read(log, first.next_offset, 100)
    assert second.data == b"456789"
    assert tail.read(log, second.next_offset, 100).data == b""
    with log.open("ab") as stream:
        stream.write(b"more")
    assert tail.read(log, second.next_offset, 100).data == b"more"


def test_negative_offset_counts_from_the_end(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"0123456789")
    assert tail.read(log, -3, 100).data == b"789"
    assert tail.read(log, -3, 100).offset == 7
    assert tail.read(log, -99, 100).data == b"0123456789"


def test_shorter_replacement_is_read_from_the_start(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"new")
    assert tail.read(log, 5000, 100) == tail.Chunk(b"new", 0, 3, 3)


@given(st.text(min_size=1, max_size=60), st.integers(4, 9))
def test_characters_are_never_cut(text: str, limit: int) -> None:
    data = text.encode("utf-8", "replace")
    with tempfile.NamedTemporaryFile() as stream:
        stream.write(data)
        stream.flush()
        offset, parts = 0, []
        while (chunk := tail.read(Path(stream.name), offset, limit)).data:
            parts.append(chunk.data.decode("utf-8"))
            assert chunk.next_offset == offset + len(chunk.data)
            offset = chunk.next_offset
    assert "".join(parts).encode() == data


@given(st.binary(max_size=60))
def test_any_bytes_arrive_whole(data: bytes) -> None:
    with tempfile.NamedTemporaryFile() as stream:
        stream.write(data)
        stream.flush()
        offset, parts = 0, []
        while (chunk := tail.read(Path(stream.name), offset, 5)).data:
            parts.append(chunk.data)
            offset = chunk.next_offset
    assert b"".join(parts) == data


def test_missing_is_not_found_and_links_and_pipes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        tail.read(tmp_path / "log", 0, 10)
    (tmp_path / "link").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe", "."):
        with pytest.raises(Forbidden):
            tail.read(tmp_path / name, 0, 10)

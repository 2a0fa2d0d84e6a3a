"""Nothing outside a folder is ever opened through it."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from lossi.errors import Forbidden, InvalidInput, NotFound
from lossi.files import beneath


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "real" / "root"
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "b" / "file.txt").write_bytes(b"inside")
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "file.txt").write_bytes(b"outside")
    return root


def read(root: Path, relative: str) -> bytes:
    return beneath.read_bytes(root, relative, 1000)


def test_plain_file_is_read(root: Path) -> None:
    assert read(root, "a/b/file.txt") == b"inside"
    assert read(root, "./a//b/./file.txt") == b"inside"


@pytest.mark.parametrize(
    "relative", ["../secret/file.txt", "a/../../secret/file.txt", "a/b/..", "/etc/passwd", "a\0b", "..", "a/b/file.txt/.."]
)
def test_paths_outside_the_root_are_refused(root: Path, relative: str) -> None:
    with pytest.raises(Forbidden):
        read(root, relative)


@pytest.mark.parametrize("name", ["with space", "a?b", "a%20b", "a#b", "ü☃", "-rf", "new\nline", "'\"$(x)`", b"\xff\xfe"])
def test_odd_names_are_only_names(root: Path, name: str | bytes) -> None:
    text = os.fsdecode(name)
    (root / text).mkdir()
    (root / text / text).write_bytes(b"odd")
    assert read(root, f"{text}/{text}") == b"odd"
    assert [entry.name for entry in beneath.list_folder(root, text)] == [text]


@pytest.mark.parametrize(
    "target",
    ["../../secret/file.txt", "{outside}/secret/file.txt", "../../../../../../../../etc/passwd", "a/../../../secret/file.txt"],
)
def test_link_outside_the_root_is_refused(root: Path, tmp_path: Path, target: str) -> None:
    (root / "link").symlink_to(target.replace("{outside}", str(tmp_path)))
    with pytest.raises(Forbidden, match="points outside"):
        read(root, "link")


def test_linked_folder_outside_the_root_is_refused(root: Path, tmp_path: Path) -> None:
    (root / "a" / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(Forbidden, match="points outside"):
        read(root, "a/link/file.txt")
    with pytest.raises(Forbidden, match="points outside"):
        beneath.list_folder(root, "a/link")


@pytest.mark.parametrize("target", ["a/b/file.txt", "./a/../a/b/file.txt", "{root}/a/b/file.txt", "{root}/./a/b/../b/file.txt"])
def test_link_that_stays_inside_is_followed(root: Path, target: str) -> None:
    (root / "link").symlink_to(target.replace("{root}", str(root)))
    assert read(root, "link") == b"inside"


def test_linked_folders_inside_are_followed(root: Path) -> None:
    (root / "a" / "up").symlink_to("../a/b")
    (root / "abs").symlink_to(root / "a")
    assert read(root, "a/up/file.txt") == b"inside"
    assert read(root, "abs/up/file.txt") == b"inside"
    assert [entry.name for entry in beneath.list_folder(root, "abs/up")] == ["file.txt"]


def test_root_may_itself_be_reached_through_a_link(root: Path, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(root)
    (root / "through-alias").symlink_to(tmp_path / "alias" / "a" / "b" / "file.txt")
    assert read(tmp_path / "alias", "through-alias") == b"inside"
    assert read(root, "through-alias") == b"inside"


def test_loop_of_links_is_refused(root: Path) -> None:
    (root / "x").symlink_to("y")
    (root / "y").symlink_to("x")
    with pytest.raises(Forbidden, match="too many links"):
        read(root, "x")


def test_missing_files_and_paths_through_a_file_are_not_found(root: Path) -> None:
    (root / "dangling").symlink_to("nowhere")
    for relative in ("missing", "a/missing/x", "a/b/file.txt/x", "dangling"):
        with pytest.raises(NotFound):
            read(root, relative)


def test_too_large_file_is_refused_not_truncated(root: Path) -> None:
    with pytest.raises(InvalidInput, match="larger than 5 bytes"):
        beneath.read_bytes(root, "a/b/file.txt", 5)
    assert beneath.read_bytes(root, "a/b/file.txt", 6) == b"inside"


def test_folder_is_not_read_as_a_file_nor_listed_as_one(root: Path) -> None:
    with pytest.raises(Forbidden):
        read(root, "a")
    with pytest.raises(InvalidInput):
        beneath.list_folder(root, "a/b/file.txt")


def test_named_pipe_neither_hangs_nor_opens(root: Path) -> None:
    os.mkfifo(root / "pipe")
    with pytest.raises(Forbidden):
        read(root, "pipe")


def test_descriptors_are_not_left_open(root: Path) -> None:
    (root / "out").symlink_to("/etc")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        read(root, "a/b/file.txt")
        beneath.list_folder(root)
        for relative in ("out/passwd", "missing", "a/b/file.txt/x"):
            with pytest.raises((Forbidden, NotFound)):
                read(root, relative)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_list_tells_the_kind_of_each_entry(root: Path) -> None:
    (root / "good").symlink_to("a/b/file.txt")
    (root / "goodfolder").symlink_to("a")
    (root / "bad").symlink_to("/etc/passwd")
    (root / "gone").symlink_to("nowhere")
    (root / "plain").write_bytes(b"12345")
    os.mkfifo(root / "pipe")
    entries = {entry.name: (entry.kind, entry.bytes) for entry in beneath.list_folder(root)}
    assert entries == {
        "a": ("folder", 0),
        "goodfolder": ("folder", 0),
        "good": ("file", 6),
        "bad": ("link", 0),
        "gone": ("link", 0),
        "plain": ("file", 5),
        "pipe": ("other", 0),
    }
    assert [entry.name for entry in beneath.list_folder(root)][:2] == ["a", "goodfolder"]


def test_link_swapped_in_during_reading_never_leads_outside(root: Path, tmp_path: Path) -> None:
    """An attacker exchanges a folder for a link out of the root as fast as the machine can."""
    target = root / "a" / "b"
    aside, link = root / "a" / "b-real", root / "a" / "b-link"
    link.symlink_to(tmp_path / "secret")
    stop = threading.Event()
    swaps = 0

    def swap() -> None:
        nonlocal swaps
        while not stop.is_set():
            target.rename(aside)
            link.rename(target)
            target.rename(link)
            aside.rename(target)
            swaps += 1

    attacker = threading.Thread(target=swap)
    attacker.start()
    counts = {"inside": 0, "refused": 0}
    try:
        for _ in range(200_000):
            try:
                data = read(root, "a/b/file.txt")
            except (Forbidden, NotFound):
                counts["refused"] += 1
            else:
                assert data == b"inside"
                counts["inside"] += 1
            if counts["inside"] >= 1000 and counts["refused"] >= 50:
                break
    finally:
        stop.set()
        attacker.join()
    assert swaps and counts["inside"] and counts["refused"], counts

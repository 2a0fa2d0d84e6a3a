"""Locks that hold on one node only are found by the filesystem's kind and mount options."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from lossi.files import locks

ROOT = "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw"


def line(point: str, kind: str, options: str = "rw", own: str = "rw,relatime") -> str:
    return f"36 27 0:40 / {point} {own} shared:5 - {kind} server:/export {options}"


@pytest.mark.parametrize(
    ("kind", "options", "hold"),
    [
        ("nfs4", "rw,vers=4.2,local_lock=none", True),
        ("nfs", "rw,vers=3,nolock,local_lock=all", False),
        ("nfs", "rw,vers=3,local_lock=posix", False),
        ("nfs", "rw,vers=3,local_lock=flock", True),
        ("lustre", "rw,flock,lazystatfs", True),
        ("lustre", "rw,localflock", False),
        ("lustre", "rw", False),
        ("gpfs", "rw", True),
        ("ceph", "rw", True),
        ("beegfs", "rw", False),
        ("fuse.sshfs", "rw", False),
        ("somethingnew", "rw", False),
    ],
)
def test_filesystem_and_mount_options_decide(tmp_path: Path, kind: str, options: str, hold: bool) -> None:
    text = f"{ROOT}\n{line(str(tmp_path), kind, options)}\n"
    assert locks.hold_between_nodes(tmp_path, text) is hold
    assert locks.hold_between_nodes(Path("/"), text)


def test_the_nearest_and_last_mount_counts(tmp_path: Path) -> None:
    folder = tmp_path / "with a space"
    folder.mkdir()
    point = str(folder).replace(" ", r"\040")
    text = "\n".join([ROOT, line(point, "nfs", "nolock"), line(str(tmp_path), "gpfs")])
    assert not locks.hold_between_nodes(folder, text)
    assert locks.hold_between_nodes(folder, f"{text}\n{line(point, 'gpfs')}")
    assert locks.hold_between_nodes(tmp_path, text)


def test_mounts_of_this_machine_are_read(tmp_path: Path) -> None:
    assert locks.hold_between_nodes(tmp_path) in (True, False)


@given(st.text())
def test_any_mountinfo_is_accepted(text: str) -> None:
    assert locks.hold_between_nodes(Path("/"), text) in (True, False)

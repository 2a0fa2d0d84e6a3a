"""Room in a folder is known from its filesystem and from the site's quota files, and a job that cannot fit is refused."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from lossi.errors import InvalidInput, Unavailable
from lossi.files import space
from lossi.jobs.submit import space_check
from lossi.projects import Project

USER = pwd.getpwuid(os.geteuid()).pw_name


def quota(path: str | Path, user: str = USER, **more: Any) -> dict[str, Any]:
    return {
        "user": user,
        "path": str(path),
        "block_usage": 10,
        "total_block_usage": 100,
        "block_limit": 1000,
        "file_usage": 1,
        "total_file_usage": 50,
        "file_limit": 500,
        **more,
    }


def document(*quotas: dict[str, Any], version: object = 1, timestamp: float | None = None) -> bytes:
    stamp = int(time.time() if timestamp is None else timestamp)
    return json.dumps({"version": version, "timestamp": stamp, "quotas": list(quotas)}).encode()


@pytest.fixture
def published(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The site's quota file."""
    file = tmp_path / "quota.json"
    monkeypatch.setenv("OOD_QUOTA_PATH", f"https://quota.example.org:8443/q.json:{file}")
    return file


def test_free_space_is_that_of_the_filesystem(home: Path, tmp_path: Path) -> None:
    room = space.space(tmp_path / "not" / "there" / "yet")
    status = os.statvfs(tmp_path)
    assert room.bytes_total == status.f_blocks * status.f_frsize
    assert room.files_total == (status.f_files or None)
    assert 0 < room.bytes_free <= room.bytes_total
    assert room.quotas == ()


def test_quota_of_the_user_and_the_folder_is_found(published: Path, tmp_path: Path) -> None:
    project = tmp_path / "users" / "me" / "project"
    project.mkdir(parents=True)
    published.write_bytes(
        document(
            quota(tmp_path),
            quota(tmp_path / "users" / "me", block_limit=0),
            quota(tmp_path / "users" / "me", type="fileset", file_limit=0),
            quota(tmp_path / "users" / "m"),
            quota(tmp_path / "users" / "me", user="somebody"),
        )
    )
    mine, ours = space.space(project).quotas
    assert (mine.path, mine.kind, mine.bytes_used, mine.bytes_limit, mine.files_used, mine.files_limit) == (
        tmp_path / "users" / "me",
        "user",
        102400,
        None,
        50,
        500,
    )
    assert (ours.kind, ours.bytes_limit, ours.files_limit, ours.stale) == ("fileset", 1024000, None, False)


def test_quota_file_that_changed_is_read_again(published: Path, tmp_path: Path) -> None:
    published.write_bytes(document(quota(tmp_path)))
    assert space.space(tmp_path).quotas[0].files_limit == 500
    published.write_bytes(document(quota(tmp_path, file_limit=70000)))
    assert space.space(tmp_path).quotas[0].files_limit == 70000


def test_files_of_the_site_setting_are_read_too(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "quota.json"
    file.write_bytes(document(quota(tmp_path)))
    monkeypatch.setenv("LOSSI_QUOTA_FILES", str(file))
    assert len(space.space(tmp_path).quotas) == 1


def test_folder_named_by_a_link_is_the_same(published: Path, tmp_path: Path) -> None:
    (tmp_path / "real" / "project").mkdir(parents=True)
    (tmp_path / "users").symlink_to(tmp_path / "real")
    published.write_bytes(document(quota(tmp_path / "users")))
    assert len(space.space(tmp_path / "users" / "project").quotas) == 1
    published.write_bytes(document(quota(tmp_path / "real")))
    assert len(space.space(tmp_path / "users" / "project").quotas) == 1


def test_files_that_are_not_quota_files_are_ignored(published: Path, tmp_path: Path) -> None:
    name = json.dumps(USER).encode()
    for data in (
        b"",
        b"{",
        b"[]",
        name,
        b"{" + name + b"}",
        document(quota(tmp_path), version=2),
        document(quota("relative")),
        document({**quota(tmp_path), "path": 7}),
        b'{"version": 1, "quotas": ' + name + b"}",
        b"[" * 100_000 + name,
        os.urandom(500) + name,
    ):
        published.write_bytes(data)
        assert space.space(tmp_path).quotas == ()
    published.unlink()
    os.mkfifo(published)
    assert space.space(tmp_path).quotas == ()


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_no_text_makes_the_reader_fail(before: bytes, after: bytes) -> None:
    space.parse(before + b'{"user": "me", "path": "/x"}' + after, "me")


entries = st.builds(
    quota,
    path=st.text('/ab{}"\\é', max_size=8).map(lambda text: "/" + text),
    user=st.sampled_from(["me", "you", "me{", 'm"e']),
    block_limit=st.integers(0, 2**60),
    file_limit=st.one_of(st.integers(0, 2**60), st.integers(0, 99).map(str), st.none()),
)


@given(st.lists(entries, max_size=6), st.sampled_from(["me", "you", "me{", 'm"e']))
def test_parsing_one_users_entries_equals_parsing_the_whole_file(quotas: list[dict[str, Any]], user: str) -> None:
    parsed = space.parse(document(*quotas, timestamp=5), user)
    expected = [quota for quota in quotas if quota["user"] == user]
    assert [str(quota.path) for quota in parsed] == [os.path.normpath(quota["path"]) for quota in expected]
    assert [quota.bytes_limit for quota in parsed] == [quota["block_limit"] * 1024 or None for quota in expected]
    assert [quota.files_limit for quota in parsed] == [int(quota["file_limit"] or 0) or None for quota in expected]


def room(path: Path = Path("/p"), *, free: int = 1 << 40, files: int | None = 10**6, **more: Any) -> space.Space:
    return space.Space(path, free, 1 << 41, files, None if files is None else 10**7, **more)


def held(*, files: int = 0, of: int | None = None, used: int = 0, limit: int | None = None, age_s: float = 0) -> space.Quota:
    return space.Quota(Path("/p"), "user", used, limit, files, of, time.time() - age_s)


def test_enough_room_gives_no_warning() -> None:
    assert space_check.judge(room(quotas=(held(files=5, of=10**6, used=1, limit=100),)), 1000) == []
    assert space_check.judge(room(files=None), 10**6) == []


def test_too_few_files_left_is_refused_with_numbers_and_hint() -> None:
    with pytest.raises(Unavailable) as caught:
        space_check.judge(room(files=10_000), 1000)
    assert caught.value.details == {"limit": "files", "asked": 10_012, "allowed": 10_000}
    assert "10,000" in caught.value.what and "10,012" in caught.value.what and "remove old jobs" in caught.value.hint
    with pytest.raises(Unavailable):
        space_check.judge(room(quotas=(held(files=950, of=1000),)), 10)
    with pytest.raises(InvalidInput, match="can hold 1,000 files"):
        space_check.judge(room(quotas=(held(files=0, of=1000),)), 1000)


def test_scarce_space_gives_a_warning() -> None:
    assert "room for 15,000 more files" in space_check.judge(room(files=15_000), 1000)[0]
    assert "512 MiB left" in space_check.judge(room(free=512 << 20), 1)[0]
    assert "96 bytes of 100 bytes" in space_check.judge(room(quotas=(held(used=96, limit=100),)), 1)[0]


def test_stale_figures_only_warn_with_their_age() -> None:
    old = held(files=1000, of=1000, used=99, limit=100, age_s=3.5 * 86400)
    files, size = space_check.judge(room(quotas=(old,)), 10)
    assert "3 days ago" in files and "3 days ago" in size


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 5000), st.integers(0, 5000))
def test_fewer_tasks_are_never_refused_if_more_are_not(left: int, quota_left: int, tasks: int, fewer: int) -> None:
    place = room(files=left, quotas=(held(files=10**6 - quota_left, of=10**6),))
    try:
        space_check.judge(place, tasks + fewer)
    except (Unavailable, InvalidInput):
        return
    space_check.judge(place, tasks)


@pytest.fixture
def small_disk(home: Path, tmp_path: Path) -> Iterator[Path]:
    """A filesystem of its own with 100 files and 2 MiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    folder = tmp_path / "disk"
    folder.mkdir()
    argv = ["mount", "-t", "tmpfs", "-o", "nr_inodes=100,size=2m", "lossi-test", str(folder)]
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.root
def test_small_filesystem_is_reported(small_disk: Path) -> None:
    project = Project(small_disk)
    project.make_home()
    before = space.space(project.jobs)
    assert before.files_total == 100 and before.bytes_total == 2 << 20 and before.files_free is not None
    assert "MiB left" in space_check.check_space(project, 1)[0]
    fit = (before.files_free - space_check.FILES_PER_JOB) // space_check.FILES_PER_TASK
    assert "room for" in space_check.check_space(project, fit)[0]
    with pytest.raises(InvalidInput, match="can hold 100 files"):
        space_check.check_space(project, 100)
    for number in range(20):
        (small_disk / f"more{number}").touch()
    left = before.files_free - 20
    assert space.space(project.jobs).files_free == left
    with pytest.raises(Unavailable, match=f"room for {left} more files"):
        space_check.check_space(project, fit)

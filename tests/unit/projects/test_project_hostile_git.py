"""A repository of somebody else runs nothing and shows nothing that is not its own."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from git_repository import Repository

from lossi import projects
from lossi.contract.records import CodeSnapshot
from lossi.projects import git, snapshot

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of another user")
STRANGER = 65534


def take(root: Path, out: Path) -> tuple[CodeSnapshot, bytes]:
    """Return the record, and everything that was written, together."""
    out.mkdir(exist_ok=True)
    archive, diff = out / "code.tar", out / "code.diff"
    diff.unlink(missing_ok=True)
    record = snapshot.take(projects.Project(root), archive, diff, untracked_limit_bytes=1 << 20)
    return record, archive.read_bytes() + (diff.read_bytes() if diff.exists() else b"")


@pytest.fixture
def trapped(repository: Repository, home: Path) -> Path:
    """Return the file that exists once anything which the repository's configuration names has run."""
    caught = home / "caught"
    trap = home / "trap.sh"
    trap.write_text(f'#!/bin/sh\necho "$0 $*" >> {caught}\ncat\n')
    trap.chmod(0o755)
    for hook in (
        "pre-commit",
        "post-checkout",
        "post-index-change",
        "fsmonitor-watchman",
        "reference-transaction",
        "query-watchman",
    ):
        path = repository.root / ".git" / "hooks" / hook
        path.parent.mkdir(exist_ok=True)
        shutil.copy(trap, path)
    hooks = home / "hooks"
    shutil.copytree(repository.root / ".git" / "hooks", hooks)
    repository.write(
        ".gitattributes", "*.py filter=evil diff=evil merge=evil working-tree-encoding=UTF-16\n*.txt ident text eol=crlf\n"
    )
    repository.write("code.py", "old\n")
    repository.write("text.txt", "$Id$\n")
    repository.commit()
    repository.git.config["core.fsmonitor"] = str(trap)
    repository.git.config["core.hooksPath"] = str(hooks)
    repository.git.config["core.sshCommand"] = str(trap)
    repository.git.config["core.pager"] = str(trap)
    repository.git.config["core.editor"] = str(trap)
    repository.git.config["core.gitProxy"] = str(trap)
    repository.git.config["credential.helper"] = f"!{trap}"
    repository.git.config["diff.external"] = str(trap)
    for key in ("command", "textconv"):
        repository.git.config[f"diff.evil.{key}"] = str(trap)
    for key in ("clean", "smudge", "process"):
        repository.git.config[f"filter.evil.{key}"] = str(trap)
    repository.git.config["filter.evil.required"] = "true"
    repository.git.config["gpg.program"] = str(trap)
    repository.git.config["alias.status"] = f"!{trap}"
    repository.git.config["remote.origin.url"] = f"ext::{trap} x"
    repository.git.config["remote.origin.uploadpack"] = str(trap)
    repository.write("code.py", "new\n")
    repository.write("text.txt", "$Id$\nnew\n")
    repository.write("untracked.py", "new\n")
    return caught


def test_programs_in_the_git_configuration_are_never_run(repository: Repository, trapped: Path, tmp_path: Path) -> None:
    record, written = take(repository.root, tmp_path / "out")
    projects.describe(projects.Project(repository.root), changes=True)
    assert not trapped.exists(), trapped.read_text()
    assert record.dirty and record.files == 4
    assert b"+new" in written


@pytest.mark.host("git")
def test_git_itself_runs_the_programs_in_the_configuration(repository: Repository, trapped: Path) -> None:
    """Otherwise it would prove nothing: the git program does run them."""
    argv = ["git", "-c", f"safe.directory={repository.root}", "-C", str(repository.root), "diff"]
    subprocess.run(argv, capture_output=True, timeout=300, check=False)
    assert trapped.exists()


def test_expensive_pattern_of_a_diff_driver_is_not_used(repository: Repository, tmp_path: Path) -> None:
    repository.write(".gitattributes", "*.py diff=slow\n")
    repository.write("code.py", "a" * 40 + "!\n" + "x\n" * 20 + "old\n")
    repository.commit()
    repository.git.config["diff.slow.xfuncname"] = "^(a+)+$"
    repository.write("code.py", "a" * 40 + "!\n" + "x\n" * 20 + "new\n")
    assert b"+new" in take(repository.root, tmp_path / "out")[1]


def test_working_tree_that_is_elsewhere_is_not_read(repository: Repository, home: Path, tmp_path: Path) -> None:
    (home / "private").mkdir()
    (home / "private" / "diary.txt").write_text("dear diary\n")
    repository.write("code.py")
    repository.commit()
    repository.git.config["core.worktree"] = str(home / "private")
    record, written = take(repository.root, tmp_path / "out")
    assert b"diary" not in written
    assert record.commit is None
    assert any("another working tree" in note for note in record.left_out)
    assert b"code.py" in written


def private_repository(home: Path, new_repository: Callable[[Path], Repository]) -> Repository:
    private = new_repository(home / "private")
    private.write("diary.txt", "dear diary\n")
    private.commit()
    return private


@as_root
@pytest.mark.parametrize("way", ["gitdir", "link", "commondir", "objects", "alternates"])
def test_strangers_pointer_to_the_users_repository_is_not_followed(
    repository: Repository, home: Path, tmp_path: Path, new_repository: Callable[[Path], Repository], way: str
) -> None:
    """The deletion of `diary.txt` would be in the diff, with its content, in a folder that the stranger may read."""
    private = private_repository(home, new_repository)
    repository.write("code.py")
    repository.commit()
    marker = repository.root / ".git"
    inner = private.root / ".git"
    if way == "gitdir":
        shutil.rmtree(marker)
        marker.write_text(f"gitdir: {inner}\n")
        pointer = marker
    elif way == "link":
        shutil.rmtree(marker)
        marker.symlink_to(inner)
        pointer = marker
    elif way == "commondir":
        pointer = marker / "commondir"
        pointer.write_text(f"{inner}\n")
        shutil.copy(inner / "index", marker / "index")
        (marker / "HEAD").write_text("ref: refs/heads/main\n")
    elif way == "objects":
        shutil.rmtree(marker / "objects")
        pointer = marker / "objects"
        pointer.symlink_to(inner / "objects")
        shutil.copy(inner / "refs" / "heads" / "main", marker / "refs" / "heads" / "main")
    else:
        pointer = marker / "objects" / "info" / "alternates"
        pointer.parent.mkdir(exist_ok=True)
        pointer.write_text(f"{inner}/objects\n")
        shutil.copy(inner / "refs" / "heads" / "main", marker / "refs" / "heads" / "main")

    # While it is the user's own pointer it is followed: worktrees and clones with alternates are normal.
    record, written = take(repository.root, tmp_path / "out")
    assert b"dear diary" in written, record
    os.lchown(pointer, STRANGER, STRANGER)
    record, written = take(repository.root, tmp_path / "out")
    assert b"diary" not in written
    assert any("another user" in note for note in record.left_out), record.left_out


@as_root
def test_colleagues_repository_in_a_group_project_is_read(repository: Repository, tmp_path: Path) -> None:
    repository.write("code.py")
    commit = repository.commit()
    for path in [repository.root, *repository.root.rglob("*")]:
        os.lchown(path, STRANGER, STRANGER)
    record, _ = take(repository.root, tmp_path / "out")
    assert (record.commit, record.files, record.left_out) == (commit, 1, [])


@as_root
def test_repository_planted_by_a_stranger_above_is_ignored(home: Path, new_repository: Callable[[Path], Repository]) -> None:
    shared = home / "tmp"
    planted = new_repository(shared)
    (shared / "mine").mkdir()
    planted.write("mine/x.py")
    planted.commit()
    shared.chmod(0o1777)
    assert git.read(shared / "mine") is not None
    os.lchown(shared / ".git", STRANGER, STRANGER)
    assert git.read(shared / "mine") is None


def test_worktree_of_git_is_read(repository: Repository, home: Path, tmp_path: Path) -> None:
    repository.write("code.py", "1\n")
    commit = repository.commit()
    repository.git.add_worktree("second", str(home / "second"))
    record, written = take(home / "second", tmp_path / "out")
    assert (record.commit, record.branch, record.dirty) == (commit, "second", False)
    assert b"code.py" in written


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://user:token@host.org/a/b.git", "https://host.org/a/b.git"),
        ("https://token@host.org:8443/a?private_token=x#y", "https://host.org:8443/a"),
        ("git@host.org:a/b.git", "host.org:a/b.git"),
        ("ssh://git@host.org/a", "ssh://host.org/a"),
        ("/srv/git/a", "/srv/git/a"),
        ("https://a:b@c@host.org/x", "https://host.org/x"),
    ],
)
def test_remote_is_shown_without_its_user(url: str, shown: str) -> None:
    assert git.without_user(url) == shown

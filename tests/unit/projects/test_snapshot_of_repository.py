"""A snapshot of a git repository: the working tree as it is, its commit and its diff."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pygit2
import pytest
from git_repository import Repository
from snapshots import MIB, Take

from lossi import projects


def test_clean_repository(repository: Repository, take: Take) -> None:
    repository.write("train.ipynb", "{}")
    repository.write("lib/model.py", "x = 1\n")
    repository.git.remotes.create("origin", "https://me:token@example.org/group/repo.git")
    commit = repository.commit()
    taken = take(repository)
    assert set(taken.members) == {"train.ipynb", "lib/model.py"}
    assert taken.content("lib/model.py") == b"x = 1\n"
    record = taken.record
    assert (record.commit, record.branch, record.dirty, record.diff_sha256) == (commit, "main", False, None)
    assert record.remote == "https://example.org/group/repo.git"
    assert (record.files, record.bytes, record.left_out, record.links) == (2, 8, [], [])
    assert record.sha256 == hashlib.sha256(taken.raw).hexdigest()
    assert not taken.diff_file.exists()


def test_files_are_taken_as_they_are_in_the_working_tree(repository: Repository, take: Take) -> None:
    for name in ("changed.py", "deleted.py", "staged.py", "kept.py", "mode.sh"):
        repository.write(name, "old\n")
    repository.commit()
    repository.write("changed.py", "new\n")
    repository.write("staged.py", "staged\n")
    repository.git.index.add("staged.py")
    repository.git.index.write()
    repository.write("staged.py", "later\n")
    (repository.root / "deleted.py").unlink()
    (repository.root / "mode.sh").chmod(0o755)
    repository.write("added.py", "added\n")
    repository.git.index.add("added.py")
    repository.git.index.write()
    repository.write("untracked/new.py", "untracked\n")
    taken = take(repository)
    assert set(taken.members) == {"changed.py", "staged.py", "kept.py", "mode.sh", "added.py", "untracked/new.py"}
    assert taken.content("changed.py") == b"new\n"
    assert taken.content("staged.py") == b"later\n"
    assert taken.members["mode.sh"].mode == 0o755
    assert taken.members["kept.py"].mode == 0o644
    assert taken.record.dirty
    assert taken.record.diff_sha256 == hashlib.sha256(taken.diff).hexdigest()
    for line in (b"-old", b"+new", b"+later", b"deleted file mode 100644", b"new file mode 100644", b"new mode 100755"):
        assert line in taken.diff.splitlines()
    assert b"untracked" not in taken.diff


def test_equal_trees_give_equal_bytes(repository: Repository, take: Take, home: Path) -> None:
    repository.write("a/b.py", "1\n")
    repository.write("a-b.py", "2\n")
    repository.commit()
    repository.write("new.txt", "3\n")
    first = take(repository)
    copy = home / "elsewhere"
    shutil.copytree(repository.root, copy, symlinks=True)
    os.utime(copy / "a/b.py", (1, 1))
    (copy / "a/b.py").chmod(0o600)
    second = take(projects.Project(copy))
    assert first.raw == second.raw
    assert first.record.sha256 == second.record.sha256
    assert {(member.uid, member.gid, member.uname, member.mtime) for member in first.members.values()} == {(0, 0, "", 315532800)}


def test_runner_can_unpack_it_with_the_safe_filter(repository: Repository, take: Take, tmp_path: Path) -> None:
    repository.write("a/b.py", "1\n")
    (repository.root / "a" / "link").symlink_to("b.py")
    repository.write("x" * 120 + "/" + "y" * 120, "long\n")
    repository.commit()
    taken = take(repository)
    with tarfile.open(taken.archive) as tar:
        tar.extractall(tmp_path / "node", filter="data")
    assert (tmp_path / "node" / "a" / "link").read_text() == "1\n"
    assert (tmp_path / "node" / ("x" * 120) / ("y" * 120)).read_text() == "long\n"


def test_no_commit_yet(repository: Repository, take: Take) -> None:
    repository.write("a.py")
    taken = take(repository)
    assert set(taken.members) == {"a.py"}
    assert (taken.record.commit, taken.record.branch, taken.record.dirty) == (None, "main", True)


def test_detached_head_has_no_branch(repository: Repository, take: Take) -> None:
    repository.write("a.py")
    commit = repository.commit()
    repository.git.set_head(pygit2.Oid(hex=commit))
    record = take(repository).record
    assert (record.commit, record.branch) == (commit, None)


def test_project_below_the_repositorys_folder_takes_only_its_part(repository: Repository, take: Take) -> None:
    repository.write("other/secret.py", "not mine\n")
    repository.write("mine/code.py", "1\n")
    repository.write(".gitignore", "*.npy\n")
    commit = repository.commit()
    repository.write("mine/code.py", "2\n")
    repository.write("other/secret.py", "changed\n")
    repository.write("mine/data/x.npy")
    repository.write("mine/new.py")
    taken = take(projects.init(repository.root / "mine"))
    assert set(taken.members) == {"code.py", "new.py"}
    assert taken.links == {"data": str(repository.root / "mine" / "data")}
    assert taken.record.commit == commit
    assert b"a/code.py" in taken.diff and b"not mine" not in taken.diff


def test_repository_above_that_tracks_nothing_here_is_ignored(
    home: Path, new_repository: Callable[[Path], Repository], take: Take
) -> None:
    """Such as a home folder that keeps its dotfiles in git and ignores everything else."""
    dotfiles = new_repository(home)
    dotfiles.write(".gitignore", "*\n")
    dotfiles.commit(".gitignore")
    project = projects.init(home / "work" / "p")
    (project.root / "nb.ipynb").write_text("{}")
    taken = take(project)
    assert set(taken.members) == {"nb.ipynb"}
    assert taken.record.commit is None and not taken.record.dirty


def test_odd_names_are_kept(repository: Repository, take: Take) -> None:
    names = ["with space.py", "a?b.py", "a%20b.py", "ünï☃.py", "q'\"x\\.py", "new\nline.py", "-rf", "tab\t.py", "$(touch x).py"]
    for name in names:
        repository.write(name, "1\n")
    repository.commit()
    for name in names:
        repository.write(name, "2\n")
    raw = os.fsdecode(b"caf\xe9.py")
    repository.write(raw, "3\n")
    taken = take(repository)
    assert set(taken.members) == {*names, raw}
    assert all(taken.content(name) == b"2\n" for name in names)


@pytest.mark.host("git")
def test_git_applies_the_diff(repository: Repository, take: Take, tmp_path: Path) -> None:
    names = [
        "plain.py",
        "with space.py",
        "ünï☃.py",
        "q'\"x\\.py",
        "new\nline.py",
        "no-newline.txt",
        "crlf.txt",
        "gone.py",
        "empty",
        "x.sh",
    ]
    for name in names:
        repository.write(name, "1\n2\n3\n")
    repository.commit()
    clean = tmp_path / "clean"
    shutil.copytree(repository.root, clean, ignore=shutil.ignore_patterns(".lossi"))
    for name in names:
        repository.write(name, "1\nchanged\n3\n")
    repository.write("no-newline.txt", "1\n2\n3")
    repository.write("crlf.txt", "1\r\n2\r\n")
    repository.write("empty", "")
    (repository.root / "gone.py").unlink()
    (repository.root / "x.sh").chmod(0o755)
    repository.write("sub dir/added.py", "new\n")
    repository.git.index.add("sub dir/added.py")
    repository.git.index.write()
    diff = take(repository).diff_file
    subprocess.run(
        ["git", "-c", "safe.directory=*", "apply", "--whitespace=nowarn", str(diff)], cwd=clean, check=True, timeout=300
    )
    for path in [*names, "sub dir/added.py"]:
        before, after = repository.root / path, clean / path
        assert before.exists() == after.exists()
        if before.exists():
            assert before.read_bytes() == after.read_bytes()
            assert before.stat().st_mode == after.stat().st_mode


def test_large_and_binary_changes_are_named_without_content(repository: Repository, take: Take) -> None:
    repository.write("big.txt", b"a\n" * MIB)
    repository.write("image.bin", b"\0\1\2")
    repository.commit()
    repository.write("big.txt", b"b\n" * MIB)
    repository.write("image.bin", b"\0\1\3")
    taken = take(repository)
    assert len(taken.diff) < 1000
    assert b"Binary files a/big.txt and b/big.txt differ (not shown: too large)" in taken.diff
    assert b"Binary files a/image.bin and b/image.bin differ" in taken.diff
    assert taken.content("big.txt") == b"b\n" * MIB


def test_submodules_files_are_taken(
    repository: Repository, take: Take, home: Path, new_repository: Callable[[Path], Repository]
) -> None:
    library = new_repository(home / "library")
    library.write("lib.py", "1\n")
    first = library.commit()
    repository.write("a.py")
    repository.git.submodules.add(str(library.root), "vendor/lib")
    repository.commit("a.py")
    taken = take(repository)
    assert {"a.py", ".gitmodules", "vendor/lib/lib.py"} == set(taken.members)
    assert not taken.record.dirty
    inner = pygit2.Repository(str(repository.root / "vendor/lib"))
    (repository.root / "vendor/lib/lib.py").write_text("2\n")
    taken = take(repository)
    assert taken.content("vendor/lib/lib.py") == b"2\n"
    assert taken.record.dirty and b"a/vendor/lib/lib.py" in taken.diff
    inner.index.add("lib.py")
    who = pygit2.Signature("T", "t@example.org", 1, 0)
    second = str(inner.create_commit("HEAD", who, who, "2", inner.index.write_tree(), [inner.head.target]))
    inner.index.write()
    taken = take(repository)
    assert f"-Subproject commit {first}\n+Subproject commit {second}".encode() in taken.diff
    shutil.rmtree(repository.root / "vendor/lib")
    (repository.root / "vendor/lib").mkdir()
    taken = take(repository)
    assert "not checked out" in taken.left("vendor/lib")


def test_untracked_repository_inside_counts_as_untracked_files(
    repository: Repository, take: Take, new_repository: Callable[[Path], Repository]
) -> None:
    repository.write("a.py")
    repository.commit()
    nested = new_repository(repository.root / "nested")
    nested.write("n.py", "n\n")
    nested.commit()
    nested.write("u.py", "u\n")
    taken = take(repository)
    assert set(taken.members) == {"a.py", "nested/n.py", "nested/u.py"}
    assert set(take(repository, limit=0).members) == {"a.py"}


def test_damaged_repository_becomes_a_note_and_files_are_taken(repository: Repository, take: Take) -> None:
    repository.write("a.py")
    repository.commit()
    shutil.rmtree(repository.root / ".git" / "objects")
    (repository.root / ".git" / "objects").mkdir()
    taken = take(repository)
    assert set(taken.members) == {"a.py"}
    assert taken.record.commit is None
    assert "was not read" in taken.left(".git")


def test_repository_of_an_unknown_format_becomes_a_note(repository: Repository, take: Take) -> None:
    repository.write("a.py")
    repository.commit()
    repository.git.config["core.repositoryformatversion"] = "1"
    repository.git.config["extensions.unheard"] = "true"
    taken = take(repository)
    assert set(taken.members) == {"a.py"}
    assert "was not read" in taken.left(".git")

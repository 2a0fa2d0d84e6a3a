"""A snapshot holds the code as it is at submission: all of it, nothing else, the same bytes for the same tree."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import tarfile
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pygit2
import pytest
from git_repository import Repository

from lossi import projects
from lossi.contract.records import CodeSnapshot, DataLink
from lossi.errors import Conflict, Forbidden, NotFound, Unavailable
from lossi.projects import git, snapshot

MIB = 1 << 20


class Taken:
    """A snapshot and its files."""

    def __init__(self, root: Path, out: Path, limit: int = 50 * MIB, include: tuple[str, ...] = ()) -> None:
        folder = Path(tempfile.mkdtemp(dir=out))
        self.archive, self.diff_file = folder / "code.tar", folder / "code.diff"
        self.record: CodeSnapshot = snapshot.take(
            projects.Project(root), self.archive, self.diff_file, untracked_limit_bytes=limit, include=include
        )
        self.raw = self.archive.read_bytes()
        with tarfile.open(fileobj=io.BytesIO(self.raw), errors="surrogateescape") as tar:
            self.members = {member.name: member for member in tar}
        self.diff = self.diff_file.read_bytes() if self.diff_file.exists() else b""

    def content(self, name: str) -> bytes:
        """Return a member's content."""
        with tarfile.open(fileobj=io.BytesIO(self.raw), errors="surrogateescape") as tar:
            stream = tar.extractfile(name)
            assert stream is not None
            return stream.read()

    @property
    def links(self) -> dict[str, str]:
        """Return path → target."""
        return {link.path: link.target for link in self.record.links}

    def left(self, path: str) -> str:
        """Return why a path was left out."""
        return next((note for note in self.record.left_out if note.startswith(f"{path} (")), "")


@pytest.fixture
def take(tmp_path: Path) -> Callable[..., Taken]:
    """Return a way to take snapshots."""
    out = tmp_path / "out"
    out.mkdir()

    def take(repository: Repository | projects.Project, limit: int = 50 * MIB, include: tuple[str, ...] = ()) -> Taken:
        return Taken(repository.root, out, limit, include)

    return take


Take = Callable[..., Taken]


# --- with git ---


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


def test_project_below_the_repositorys_folder_takes_its_own_part(repository: Repository, take: Take) -> None:
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


def test_repository_above_that_tracks_nothing_here_is_not_ours(
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


def test_odd_names_arrive_as_they_are(repository: Repository, take: Take) -> None:
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
def test_diff_is_one_that_git_applies(repository: Repository, take: Take, tmp_path: Path) -> None:
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


def test_large_and_binary_changes_are_named_not_shown(repository: Repository, take: Take) -> None:
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


# --- ignored, over the limit, DVC ---


def test_ignored_data_is_linked_and_caches_are_not(repository: Repository, take: Take) -> None:
    repository.write(".gitignore", "/data/\n*.npy\n*.pyc\n__pycache__\n.ipynb_checkpoints\n")
    repository.write("src/code.py")
    repository.commit()
    for name in (
        "data/deep/a.bin",
        "data/b.bin",
        "src/x.npy",
        "only/a.npy",
        "only/deep/b.npy",
        "src/__pycache__/code.pyc",
        "src/y.pyc",
    ):
        repository.write(name)
    repository.write(".ipynb_checkpoints/nb.ipynb")
    taken = take(repository)
    root = str(repository.root)
    assert taken.links == {"data": f"{root}/data", "only": f"{root}/only", "src/x.npy": f"{root}/src/x.npy"}
    assert set(taken.members) == {".gitignore", "src/code.py"}
    assert not taken.record.dirty


def test_ignored_link_is_resolved_and_a_dangling_one_dropped(repository: Repository, take: Take, home: Path) -> None:
    (home / "scratch").mkdir()
    repository.write(".gitignore", "/data\n/gone\n")
    repository.commit()
    (repository.root / "data").symlink_to(home / "scratch")
    (repository.root / "gone").symlink_to(home / "nowhere")
    assert take(repository).links == {"data": str(home / "scratch")}


def test_dvc_tracked_data_is_linked_even_where_git_would_copy_it(repository: Repository, take: Take) -> None:
    repository.write("data/images.dvc", "outs:\n- md5: 1.dir\n  path: images\n")
    repository.write("data/images/1.png", b"\x89PNG")
    repository.write("model.dvc", "wdir: models\nouts:\n- path: best.pt\n- path: absent.pt\n- {path: s3://bucket/x}\n")
    repository.write("models/best.pt", b"weights")
    repository.write("models/code.py")
    repository.write("outside.dvc", "outs:\n- path: ../../../etc\n- path: /etc\n- path: .\n")
    for name, broken in {
        "a.dvc": "{",
        "b.dvc": "outs: 3",
        "c.dvc": "- 1",
        "d.dvc": b"\xff\xfe\x00",
        "e.dvc": "outs: [{path: [1]}, 7]",
    }.items():
        repository.write(name, broken)
    repository.write(".dvc/config", "[core]\n")
    repository.commit("data/images.dvc", "model.dvc", "models/code.py")
    taken = take(repository)
    root = str(repository.root)
    assert taken.links == {"data/images": f"{root}/data/images", "models/best.pt": f"{root}/models/best.pt"}
    assert "data/images/1.png" not in taken.members and "models/best.pt" not in taken.members
    assert {"data/images.dvc", "models/code.py", ".dvc/config"} <= set(taken.members)


def test_untracked_over_the_limit_is_named_and_linked_code_first(repository: Repository, take: Take) -> None:
    repository.write("a.py")
    repository.commit()
    repository.write("new.py", "x" * 1000)
    repository.write("huge.py", "x" * 3 * MIB)
    repository.write("small.csv", "x" * 1000)
    for number in range(4):
        repository.write(f"images/{number}.png", b"x" * (MIB // 2))
    taken = take(repository, limit=MIB)
    assert set(taken.members) == {"a.py", "new.py", "small.csv"}
    assert set(taken.links) == {"huge.py", "images"}
    assert "3 MiB: over the limit of 1 MiB" in taken.left("huge.py")
    assert any(note.startswith("images: 4 files (2 MiB") for note in taken.record.left_out)
    everything = take(repository)
    assert {"huge.py", "images/3.png"} <= set(everything.members)
    assert everything.links == {} and everything.record.left_out == []


def test_tracked_files_are_taken_whatever_their_size(repository: Repository, take: Take) -> None:
    repository.write("big.bin", b"x" * 3 * MIB)
    repository.commit()
    assert set(take(repository, limit=0).members) == {"big.bin"}


def test_included_notebook_is_taken_whatever_git_says(repository: Repository, take: Take) -> None:
    repository.write(".gitignore", "/drafts/\n")
    repository.commit()
    repository.write("drafts/deep/nb.ipynb", "{}")
    repository.write("drafts/deep/other.bin")
    repository.write("drafts/data.bin")
    repository.write("secrets.json", "{}")
    taken = take(repository, limit=0, include=("drafts/deep/nb.ipynb", "./secrets.json"))
    assert set(taken.members) == {".gitignore", "drafts/deep/nb.ipynb", "secrets.json"}
    root = str(repository.root)
    assert taken.links == {"drafts/data.bin": f"{root}/drafts/data.bin", "drafts/deep/other.bin": f"{root}/drafts/deep/other.bin"}
    for path in ("../x", "/etc/passwd", "", "a\0b", "a/../../x"):
        with pytest.raises(Forbidden):
            take(repository, include=(path,))
    with pytest.raises(NotFound, match=r"moved\.ipynb"):
        take(repository, include=("moved.ipynb",))


# --- secrets ---


def test_secret_looking_files_are_left_out_and_named(repository: Repository, take: Take) -> None:
    repository.write("a.py")
    repository.commit()
    for name in (
        ".env",
        "conf/.env.local",
        "id_rsa",
        "server.pem",
        "credentials.json",
        ".netrc",
        ".aws/config",
        "client_secret_1.json",
    ):
        repository.write(name, "s3cr3t-value\n")
    repository.write("notes.txt", "-----BEGIN OPENSSH PRIVATE KEY-----\ns3cr3t-value\n")
    for name in (".env.example", "secrets.py", "tokenizer.json", "id_rsa.pub"):
        repository.write(name, "fine\n")
    taken = take(repository)
    assert set(taken.members) == {"a.py", ".env.example", "secrets.py", "tokenizer.json", "id_rsa.pub"}
    assert b"s3cr3t-value" not in taken.raw
    assert len([note for note in taken.record.left_out if "looks like a secret" in note]) == 8
    assert "private key" in taken.left("notes.txt")
    assert taken.links == {}


def test_ignored_secret_is_linked_not_copied(repository: Repository, take: Take) -> None:
    repository.write(".gitignore", ".env\n")
    repository.commit()
    repository.write(".env", "PASSWORD=s3cr3t-value\n")
    taken = take(repository)
    assert taken.links == {".env": str(repository.root / ".env")}
    assert b"s3cr3t-value" not in taken.raw


def test_secrets_in_the_diff_are_masked(repository: Repository, take: Take) -> None:
    repository.write("train.py", "x = 1\n")
    repository.write(".env", "A=1\n")
    repository.write("nb.ipynb", '{"source": ["x"]}\n')
    repository.commit()
    repository.write(
        "train.py", "x = 2\npassword = 'hunter2hunter2'\nurl = 'https://me:hunter2hunter2@host/'\nk = 'AKIAABCDEFGHIJKLMNOP'\n"
    )
    repository.write(".env", "ANYTHING=hunter2hunter2\n")
    repository.write("nb.ipynb", '{"source": ["API_KEY = \\"hunter2hunter2\\"\\n"]}\n')
    taken = take(repository)
    assert b"hunter2" not in taken.diff and b"AKIA" not in taken.diff
    assert b"+x = 2" in taken.diff
    assert b"***" in taken.diff


# --- links, submodules, special files ---


def test_links_inside_stay_links_and_others_are_resolved(repository: Repository, take: Take, home: Path) -> None:
    (home / "shared").mkdir()
    (home / "shared" / "common.py").write_text("outside\n")
    repository.write("src/code.py")
    root = repository.root
    (root / "inner").symlink_to("src/code.py")
    (root / "src" / "up").symlink_to("../src")
    (root / "absolute").symlink_to(root / "src" / "code.py")
    (root / "src" / "zigzag").symlink_to(f"../../{root.name}/src/code.py")
    (root / "dangling").symlink_to("nothing")
    (root / "outside").symlink_to(home / "shared")
    (root / "src" / "common.py").symlink_to("../../../shared/common.py")
    (root / "nowhere").symlink_to("/no/such/place")
    commit = repository.commit()
    taken = take(repository)
    texts = {name: member.linkname for name, member in taken.members.items() if member.issym()}
    assert texts == {
        "inner": "src/code.py",
        "src/up": "../src",
        "absolute": "src/code.py",
        "src/zigzag": "code.py",
        "dangling": "nothing",
    }
    assert taken.links == {"outside": str(home / "shared"), "src/common.py": str(home / "shared" / "common.py")}
    assert "leads nowhere" in taken.left("nowhere")
    assert b"outside\n" not in taken.raw
    assert taken.record.commit == commit


def test_folder_exchanged_for_a_link_is_not_followed(repository: Repository, take: Take, home: Path) -> None:
    (home / "private").mkdir()
    (home / "private" / "code.py").write_text("private\n")
    repository.write("src/code.py")
    repository.commit()
    shutil.rmtree(repository.root / "src")
    (repository.root / "src").symlink_to(home / "private")
    taken = take(repository)
    assert taken.members == {}
    assert taken.links == {"src": str(home / "private")}
    assert b"deleted file" in taken.diff and b"private" not in taken.raw


def test_folder_swapped_while_it_is_read_never_leads_out(repository: Repository, take: Take, home: Path) -> None:
    (home / "private").mkdir()
    for number in range(20):
        repository.write(f"src/{number}.py", "inside\n")
        (home / "private" / f"{number}.py").write_text("private\n")
    repository.commit()
    target, aside, link = repository.root / "src", home / "aside", home / "link"
    link.symlink_to(home / "private")
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
    try:
        for _ in range(40):
            taken = take(repository)
            assert b"private\n" not in taken.raw
            assert b"+private" not in taken.diff
    finally:
        stop.set()
        attacker.join()
    assert swaps


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


def test_special_and_unreadable_files_are_named(repository: Repository, take: Take) -> None:
    repository.write("a.py")
    repository.commit()
    os.mkfifo(repository.root / "pipe")
    taken = take(repository, include=("pipe",))
    assert set(taken.members) == {"a.py"}
    assert "not a regular file" in taken.left("pipe")


def test_file_that_shrinks_while_it_is_read_is_a_conflict(
    repository: Repository, take: Take, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    big = repository.write("big.py", b"x" * 8 * MIB)
    repository.commit()
    real = git.read

    def read_then_shrink(root: Path) -> git.Tree | None:
        tree = real(root)
        fstat = os.fstat

        def truncating(descriptor: int) -> os.stat_result:
            found = fstat(descriptor)
            if found.st_size == 8 * MIB:
                os.truncate(big, 10)
            return found

        monkeypatch.setattr("lossi.projects.packing.os.fstat", truncating)
        return tree

    monkeypatch.setattr(git, "read", read_then_shrink)
    with pytest.raises(Conflict, match="changed while"):
        take(repository)
    assert list((tmp_path / "out").rglob("*.tar*")) == [] and list((tmp_path / "out").rglob(".*part")) == []


# --- without git ---


def test_project_without_git(project: projects.Project, take: Take) -> None:
    for path in (
        "nb.ipynb",
        "lib/a.py",
        "lib/__pycache__/a.pyc",
        ".venv/pyvenv.cfg",
        ".venv/bin/python",
        "myenv/pyvenv.cfg",
        ".env",
    ):
        (project.root / path).parent.mkdir(parents=True, exist_ok=True)
        (project.root / path).write_text("x\n")
    (project.root / "data").mkdir()
    (project.root / "data" / "train.bin").write_bytes(b"x" * 2 * MIB)
    taken = take(project, limit=MIB)
    assert set(taken.members) == {"nb.ipynb", "lib/a.py"}
    assert set(taken.links) == {".venv", "myenv", "data"}
    assert "looks like a secret" in taken.left(".env")
    record = taken.record
    assert (record.commit, record.branch, record.remote, record.dirty, record.diff_sha256) == (None, None, None, False, None)


def test_folder_with_very_many_files_is_data(project: projects.Project, take: Take) -> None:
    (project.root / "nb.ipynb").write_text("{}")
    (project.root / "images").mkdir()
    for number in range(10_001):
        (project.root / "images" / f"{number}.py").touch()
    taken = take(project)
    assert set(taken.members) == {"nb.ipynb"}
    assert taken.links == {"images": str(project.root / "images")}


def test_damaged_repository_is_said_and_files_are_taken_all_the_same(repository: Repository, take: Take) -> None:
    repository.write("a.py")
    repository.commit()
    shutil.rmtree(repository.root / ".git" / "objects")
    (repository.root / ".git" / "objects").mkdir()
    taken = take(repository)
    assert set(taken.members) == {"a.py"}
    assert taken.record.commit is None
    assert "was not read" in taken.left(".git")


def test_repository_of_a_form_that_is_not_known(repository: Repository, take: Take) -> None:
    repository.write("a.py")
    repository.commit()
    repository.git.config["core.repositoryformatversion"] = "1"
    repository.git.config["extensions.unheard"] = "true"
    taken = take(repository)
    assert set(taken.members) == {"a.py"}
    assert "was not read" in taken.left(".git")


# --- permissions, full disks, speed ---


def test_project_that_every_user_may_write_to_is_refused(repository: Repository, take: Take) -> None:
    repository.write("a.py")
    repository.root.chmod(0o777)
    with pytest.raises(Forbidden, match="every user"):
        take(repository)
    repository.root.chmod(0o1777)
    assert take(repository).record.files == 1


def test_archive_that_cannot_be_written(repository: Repository, tmp_path: Path) -> None:
    repository.write("a.py")
    with pytest.raises(Unavailable):
        snapshot.take(
            projects.Project(repository.root), tmp_path / "gone" / "code.tar", tmp_path / "code.diff", untracked_limit_bytes=1
        )


def test_ten_thousand_files_are_taken(repository: Repository, take: Take) -> None:
    for folder in range(100):
        (repository.root / f"p{folder}").mkdir()
        for number in range(100):
            (repository.root / f"p{folder}" / f"m{number}.py").write_text(f"x = {number}\n")
    repository.commit()
    assert take(repository).record.files == 10_000


def test_data_link_is_the_record_of_the_runner(repository: Repository, take: Take) -> None:
    repository.write(".gitignore", "data\n")
    repository.commit()
    repository.write("data/x")
    assert take(repository).record.links == [DataLink("data", str(repository.root / "data"))]

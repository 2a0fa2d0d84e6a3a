"""Which files a snapshot copies and leaves out, with and without git."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from git_repository import Repository
from snapshots import MIB, Take

from lossi import projects
from lossi.errors import Conflict, Forbidden, NotFound, Unavailable
from lossi.projects import git, snapshot


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


def test_included_notebook_is_taken_even_if_git_ignores_it(repository: Repository, take: Take) -> None:
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
            status = fstat(descriptor)
            if status.st_size == 8 * MIB:
                os.truncate(big, 10)
            return status

        monkeypatch.setattr("lossi.projects.packing.os.fstat", truncating)
        return tree

    monkeypatch.setattr(git, "read", read_then_shrink)
    with pytest.raises(Conflict, match="changed while"):
        take(repository)
    assert list((tmp_path / "out").rglob("*.tar*")) == [] and list((tmp_path / "out").rglob(".*part")) == []


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


def test_world_writable_project_is_refused(repository: Repository, take: Take) -> None:
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

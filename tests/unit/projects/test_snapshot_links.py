"""What a snapshot links instead of copying, and links in the project."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

from git_repository import Repository
from snapshots import Take

from lossi.contract.records import DataLink


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


def test_dvc_tracked_data_is_linked_even_if_git_would_copy_it(repository: Repository, take: Take) -> None:
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


def test_ignored_secret_is_linked_not_copied(repository: Repository, take: Take) -> None:
    repository.write(".gitignore", ".env\n")
    repository.commit()
    repository.write(".env", "PASSWORD=s3cr3t-value\n")
    taken = take(repository)
    assert taken.links == {".env": str(repository.root / ".env")}
    assert b"s3cr3t-value" not in taken.raw


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
    assert "points nowhere" in taken.left("nowhere")
    assert b"outside\n" not in taken.raw
    assert taken.record.commit == commit


def test_folder_replaced_by_a_link_is_not_followed(repository: Repository, take: Take, home: Path) -> None:
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


def test_folder_swapped_during_reading_never_leads_outside(repository: Repository, take: Take, home: Path) -> None:
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


def test_data_link_is_the_record_of_the_runner(repository: Repository, take: Take) -> None:
    repository.write(".gitignore", "data\n")
    repository.commit()
    repository.write("data/x")
    assert take(repository).record.links == [DataLink("data", str(repository.root / "data"))]

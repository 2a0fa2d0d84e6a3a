"""Projects are found from where the user stands, made once, and remembered."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from lossi import projects, settings
from lossi.errors import Conflict, Forbidden, InvalidInput, NotFound, Unavailable


@pytest.mark.parametrize("marker", [".lossi", ".ondemand", ".git"])
def test_nearest_parent_with_a_marker_is_the_project(home: Path, marker: str) -> None:
    inner = home / "outer" / "project" / "a" / "b"
    inner.mkdir(parents=True)
    (home / "outer" / ".git").mkdir()
    (home / "outer" / "project" / marker).mkdir()
    file = inner / "nb.ipynb"
    file.write_text("{}")
    for start in (inner, file, home / "outer" / "project"):
        assert projects.find(start).root == home / "outer" / "project"
    assert projects.find(home / "outer").root == home / "outer"


def test_a_git_worktrees_file_is_a_marker_too(home: Path) -> None:
    (home / "tree").mkdir()
    (home / "tree" / ".git").write_text("gitdir: /somewhere\n")
    assert projects.find(home / "tree").name == "tree"


def test_no_project_and_no_such_path_are_different_errors(home: Path) -> None:
    with pytest.raises(NotFound, match="not in a project") as caught:
        projects.find(home)
    assert "lossi project init" in caught.value.hint
    with pytest.raises(NotFound, match="does not exist"):
        projects.find(home / "nowhere")


def test_search_starts_in_the_current_folder(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = projects.init(home / "p")
    (project.root / "sub").mkdir()
    monkeypatch.chdir(project.root / "sub")
    assert projects.find() == project


def test_strangers_marker_in_a_world_writable_folder_does_not_count(home: Path) -> None:
    shared = home / "tmp"
    (shared / "mine").mkdir(parents=True)
    (shared / ".lossi").mkdir()
    shared.chmod(0o1777)
    assert projects.find(shared / "mine").root == shared  # the user's own marker
    if os.geteuid() != 0:
        pytest.skip("only root can give the marker to somebody else")
    os.chown(shared / ".lossi", 65534, 65534)
    with pytest.raises(NotFound):
        projects.find(shared / "mine")


@pytest.mark.parametrize("name", ["with space", "a?b", "a%20b", "a#b", "ünï☃", "-dash", "q'\"$(x)"])
def test_init_creates_a_project_of_any_name(home: Path, name: str) -> None:
    project = projects.init(home / name)
    assert project.root == home / name
    assert project.name == name
    assert stat.S_IMODE(project.home.stat().st_mode) & 0o777 == 0o750
    assert "*" in (project.home / ".gitignore").read_text().splitlines()
    assert projects.registered() == [project]
    assert projects.by_name_or_path(name) == project
    assert projects.init(project.root) == project
    assert projects.registered() == [project]


def test_init_keeps_existing_files_and_is_invisible_to_git(home: Path) -> None:
    import pygit2

    root = home / "p"
    git = pygit2.init_repository(str(root))
    (root / "code.py").write_text("1\n")
    project = projects.init(root)
    (project.home / "mlflow.db").write_bytes(b"x")
    (project.jobs / "j").mkdir()
    (project.jobs / "j" / "spec.json").write_text("{}")
    assert (root / "code.py").read_text() == "1\n"
    assert list(git.status(untracked_files="all")) == ["code.py"]


def test_init_through_a_link_is_the_real_folder(home: Path) -> None:
    (home / "real").mkdir()
    (home / "alias").symlink_to("real")
    assert projects.init(home / "alias").root == home / "real"
    assert projects.by_name_or_path(str(home / "alias")).root == home / "real"


def test_group_project_lets_the_group_write_and_keeps_the_group(home: Path) -> None:
    root = home / "shared"
    root.mkdir()
    root.chmod(0o2770)
    before = os.umask(0o022)
    try:
        project = projects.init(root)
    finally:
        os.umask(before)
    for folder in (project.home, project.jobs, project.artifacts):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o2770


def test_init_refuses_paths_that_cannot_be_projects(home: Path) -> None:
    (home / "file").write_text("")
    with pytest.raises(InvalidInput):
        projects.init(home / "file")
    with pytest.raises(InvalidInput):
        projects.init(home / "file" / "below")
    with pytest.raises(InvalidInput):
        projects.init(Path("/"))
    (home / "open").mkdir()
    (home / "open").chmod(0o777)
    with pytest.raises(Forbidden, match="every user"):
        projects.init(home / "open" / "p")
    assert projects.registered() == []


def test_names_paths_and_misspellings(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = projects.init(home / "a" / "digits")
    assert projects.by_name_or_path("digits") == first
    (first.root / "sub").mkdir()
    assert projects.by_name_or_path(str(first.root / "sub")) == first
    with pytest.raises(NotFound, match="did you mean 'digits'"):
        projects.by_name_or_path("digit")
    monkeypatch.chdir(first.root)
    assert projects.by_name_or_path(".") == first
    two = projects.init(home / "b" / "digits")
    with pytest.raises(Conflict, match="2 projects") as caught:
        projects.by_name_or_path("digits")
    assert str(first.root) in str(caught.value) and str(two.root) in str(caught.value)
    for text in ("", "a\0b", "/no/such", "~nobody-here/x"):
        with pytest.raises(NotFound):
            projects.by_name_or_path(text)


def test_forgotten_project_keeps_its_files(home: Path) -> None:
    project = projects.init(home / "p")
    projects.forget(project)
    assert projects.registered() == []
    assert project.home.is_dir()
    with pytest.raises(NotFound):
        projects.forget(project)


def test_shared_projects_of_the_site_are_listed_and_absent_ones_are_not(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = home / "shared"
    (shared / ".lossi").mkdir(parents=True)
    monkeypatch.setenv("LOSSI_SHARED_PROJECTS", f"{shared}:/no/such/folder")
    own = projects.init(home / "own")
    assert projects.registered() == [own, projects.Project(shared)]
    own.root.rename(home / "away")
    assert projects.registered() == [projects.Project(shared)]
    (home / "away").rename(own.root)
    assert own in projects.registered()  # a filesystem that was not mounted


def test_broken_registry_is_kept_aside_and_ignored(home: Path) -> None:
    file = settings.state_dir() / "projects.json"
    file.parent.mkdir(parents=True)
    for broken in (b"{", b"[]", b'{"projects": 3}', b"\xff", b""):
        file.write_bytes(broken)
        assert projects.registered() == []
        project = projects.init(home / "p")
        assert projects.registered() == [project]
        assert file.with_suffix(".broken").read_bytes() == broken
        file.with_suffix(".broken").unlink()


def test_path_that_is_not_utf8_is_remembered(home: Path) -> None:
    project = projects.init(home / os.fsdecode(b"caf\xe9"))
    assert projects.registered() == [project]
    json.loads((settings.state_dir() / "projects.json").read_text("ascii"))


def test_concurrent_registrations_are_all_kept(home: Path) -> None:
    code = "import sys; from pathlib import Path; from lossi import projects\nfor p in sys.argv[1:]: projects.init(Path(p))"
    groups = [[str(home / f"p{worker}-{number}") for number in range(5)] for worker in range(4)]
    children = [subprocess.Popen([sys.executable, "-c", code, *group]) for group in groups]
    assert [child.wait(300) for child in children] == [0, 0, 0, 0]
    assert len(projects.registered()) == 20


def test_state_folder_that_cannot_be_written_is_explained(home: Path) -> None:
    settings.state_dir().parent.mkdir(parents=True)
    settings.state_dir().write_text("a file where the folder should be")
    with pytest.raises((Forbidden, Unavailable), match="cannot register") as caught:
        projects.init(home / "p")
    assert "XDG_STATE_HOME" in caught.value.hint
    assert (home / "p" / ".lossi").is_dir()


def test_project_has_its_name_from_the_portals_project_manager(home: Path) -> None:
    root = home / "ondemand/data/sys/dashboard/projects/kq3in8yn"
    (root / ".ondemand").mkdir(parents=True)
    manifest = root / ".ondemand" / "manifest.yml"
    manifest.write_text("id: kq3in8yn\nname: Sea ice\n")
    project = projects.init(root)
    assert project.name == "Sea ice"
    assert projects.by_name_or_path("Sea ice") == projects.by_name_or_path("kq3in8yn") == project
    for number, text in enumerate(
        ["name: [", "name: 3", 'name: "a\\e[31m"', "name: ''", "- x", f"name: {'x' * 300}", "name: a/b"]
    ):
        manifest.write_text(text)
        os.utime(manifest, (number, number))
        assert project.name == "kq3in8yn", text
    manifest.unlink()
    assert project.name == "kq3in8yn"

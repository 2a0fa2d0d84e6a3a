"""Which runs a folder means that a user names."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from lossi.errors import InvalidInput, LossiError, NotFound
from lossi.projects import Project, runs_in


@pytest.fixture
def project(home: Path, tmp_path: Path) -> Project:
    new_project = Project(tmp_path / "a project")
    new_project.home.mkdir(parents=True)
    new_project.store.touch()
    return new_project


def test_a_project_or_its_own_folder_gives_the_projects_runs(project: Project) -> None:
    assert runs_in(str(project.root)) == project == runs_in(str(project.home))
    link = project.root.with_name("link")
    link.symlink_to(project.root)
    assert runs_in(str(link)) == project == runs_in(f"{link}/x/..")


def test_an_old_mlruns_is_found_in_the_folder_or_as_the_folder(home: Path, tmp_path: Path) -> None:
    old = tmp_path / "work" / "mlruns"
    (old / "0").mkdir(parents=True)
    (old / "0" / "meta.yaml").touch()
    assert runs_in(str(old)) == old == runs_in(str(tmp_path / "work"))
    (home / "mlruns" / "1").mkdir(parents=True)
    (home / "mlruns" / "1" / "meta.yaml").touch()
    assert runs_in("~") == home / "mlruns"


@pytest.mark.parametrize("text", ["", " ", "\0", "nothing/here", "$(touch x)", "~nobody-of-this-name/x", "a" * 5000, "/\ud800"])
def test_paths_that_are_not_folders_are_refused(home: Path, text: str) -> None:
    with pytest.raises((InvalidInput, NotFound)):
        runs_in(text)


def test_a_file_is_refused(project: Project) -> None:
    with pytest.raises(NotFound, match="is not a folder"):
        runs_in(str(project.store))


def test_a_folder_without_runs_is_refused_with_the_reason(home: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="is not a project with runs"):
        runs_in(str(tmp_path))
    (tmp_path / ".lossi").mkdir()
    for text in (tmp_path, tmp_path / ".lossi"):
        with pytest.raises(InvalidInput, match="has no runs yet"):
            runs_in(str(text))


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_unreadable_folders_look_like_missing_ones() -> None:
    with tempfile.TemporaryDirectory() as place:  # pytest's own folders are closed to others
        project = Project(Path(place) / "theirs")
        project.home.mkdir(parents=True)
        project.store.touch()
        closed = {project.home: "may not see them", project.root: "is not a project with runs", Path(place): "not a folder"}
        Path(place).chmod(0o755)
        for folder, refused in closed.items():
            folder.chmod(0o700)
            os.seteuid(65534)
            try:
                with pytest.raises(LossiError, match=refused):
                    runs_in(str(project.root))
            finally:
                os.seteuid(0)


@settings(max_examples=200)
@given(st.text())
def test_any_text_gives_a_folder_or_an_explained_error(home: Path, text: str) -> None:
    try:
        outcome = runs_in(text)
    except LossiError as error:
        assert error.what
    else:
        assert isinstance(outcome, (Path, Project))

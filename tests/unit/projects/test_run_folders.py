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
    made = Project(tmp_path / "a project")
    made.home.mkdir(parents=True)
    made.store.touch()
    return made


def test_a_project_and_its_own_folder_mean_its_runs(project: Project) -> None:
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
def test_what_is_no_folder_is_refused(home: Path, text: str) -> None:
    with pytest.raises((InvalidInput, NotFound)):
        runs_in(text)


def test_a_file_is_no_folder(project: Project) -> None:
    with pytest.raises(NotFound, match="is not a folder"):
        runs_in(str(project.store))


def test_a_folder_without_runs_is_refused_with_what_is_missing(home: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="neither runs of Lossi nor an old"):
        runs_in(str(tmp_path))
    (tmp_path / ".lossi").mkdir()
    for text in (tmp_path, tmp_path / ".lossi"):
        with pytest.raises(InvalidInput, match="has no runs yet"):
            runs_in(str(text))


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody else")
def test_what_may_not_be_seen_is_as_if_it_were_not_there() -> None:
    with tempfile.TemporaryDirectory() as place:  # pytest's own folders are closed to others
        project = Project(Path(place) / "theirs")
        project.home.mkdir(parents=True)
        project.store.touch()
        closed = {project.home: "may not see them", project.root: "neither runs", Path(place): "not a folder"}
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
def test_any_text_is_a_folder_or_a_sentence(home: Path, text: str) -> None:
    try:
        found = runs_in(text)
    except LossiError as error:
        assert error.what
    else:
        assert isinstance(found, (Path, Project))

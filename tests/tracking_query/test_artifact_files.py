"""Artifacts: those that MLflow wrote, and never anything outside the project's artifact root."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from lossi import tracking
from lossi.errors import Forbidden, InvalidInput, LossiError, NotFound, NotSupported
from lossi.projects import Project


def read(project: Project, run_id: str, path: str) -> bytes:
    with os.fdopen(tracking.open_artifact(project, run_id, path), "rb") as stream:
        return stream.read()


@pytest.fixture
def run_id(client: MlflowClient) -> str:
    """A run with artifacts that MLflow's client wrote."""
    run = client.create_run("0").info.run_id
    client.log_text(run, "hello", "notes/a b?.txt")
    client.log_dict(run, {"x": 1}, "x.json")
    return str(run)


def test_artifacts_of_mlflow_are_listed_and_opened(project: Project, run_id: str) -> None:
    assert [(entry.name, entry.kind) for entry in tracking.artifacts(project, run_id)] == [
        ("notes", "folder"),
        ("x.json", "file"),
    ]
    [entry] = tracking.artifacts(project, run_id, "notes/")
    assert (entry.name, entry.bytes) == ("a b?.txt", 5)
    assert read(project, run_id, "notes/a b?.txt") == b"hello"


def test_a_run_without_artifacts_has_an_empty_list(project: Project, client: MlflowClient) -> None:
    run = client.create_run("0").info.run_id
    assert tracking.artifacts(project, run) == []
    with pytest.raises(NotFound):
        tracking.artifacts(project, run, "no folder")
    with pytest.raises(NotFound):
        tracking.open_artifact(project, run, "no file")
    with pytest.raises(NotFound, match="no run nope"):
        tracking.artifacts(project, "nope")


@pytest.mark.parametrize(
    "path", ["../../../../mlflow.db", "/etc/passwd", "notes/../../../x", "notes/..", "a\0b", "out", "out/passwd", "there/passwd"]
)
def test_nothing_outside_the_run_is_reached(project: Project, run_id: str, tmp_path: Path, path: str) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "passwd").write_text("secret")
    folder = project.artifacts / "0" / run_id / "artifacts"
    (folder / "out").symlink_to(secret)
    (folder / "there").symlink_to("../../../../../../secret")
    with pytest.raises(Forbidden):
        tracking.open_artifact(project, run_id, path)
    with pytest.raises(LossiError):
        tracking.artifacts(project, run_id, path)
    assert {entry.name: entry.kind for entry in tracking.artifacts(project, run_id)}["out"] == "link"


def test_a_file_cannot_be_listed(project: Project, run_id: str) -> None:
    with pytest.raises(InvalidInput):
        tracking.artifacts(project, run_id, "x.json")
    with pytest.raises(InvalidInput, match="folder"):
        tracking.open_artifact(project, run_id, "notes")


@pytest.mark.parametrize(
    "uri",
    [
        "file:///home/you",
        "/home/you",
        "file:///home/you/../you",
        "{root}/../..",
        "{root}/0/../../..",
        "{root}",
        "file:{root}/%2e%2e/%2e%2e",
        "{root}-other/0",
    ],
)
def test_artifacts_outside_the_project_are_refused(project: Project, rows: Callable[..., None], uri: str) -> None:
    place = uri.format(root=project.artifacts)
    rows("runs", run_uuid="evil", status="FINISHED", start_time=1, lifecycle_stage="active", artifact_uri=place, experiment_id=0)
    with pytest.raises(Forbidden, match="outside the project"):
        tracking.artifacts(project, "evil")
    with pytest.raises(Forbidden, match="outside the project"):
        tracking.open_artifact(project, "evil", "x")


def test_artifacts_elsewhere_are_not_supported(project: Project, rows: Callable[..., None]) -> None:
    rows(
        "runs",
        run_uuid="s3",
        status="FINISHED",
        start_time=1,
        lifecycle_stage="active",
        artifact_uri="s3://bucket/x",
        experiment_id=0,
    )
    rows("runs", run_uuid="none", status="FINISHED", start_time=1, lifecycle_stage="active", experiment_id=0)
    with pytest.raises(NotSupported, match="s3://bucket/x"):
        tracking.artifacts(project, "s3")
    with pytest.raises(NotFound):
        tracking.artifacts(project, "none")


def test_a_linked_root_is_followed_only_if_the_link_is_the_users_own(
    project: Project, run_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "scratch"
    project.artifacts.rename(elsewhere)
    project.artifacts.symlink_to(elsewhere)
    assert read(project, run_id, "x.json")
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(Forbidden):
        tracking.artifacts(project, run_id)
    with pytest.raises(Forbidden):
        tracking.open_artifact(project, run_id, "x.json")


def test_a_project_reached_through_a_link_shows_its_artifacts(project: Project, run_id: str, tmp_path: Path) -> None:
    way = tmp_path / "way"
    way.symlink_to(project.root)
    assert read(Project(way), run_id, "x.json")

"""What follows from a request before anything is written: the plan, its preview, and what is refused."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from direct_scheduler import DirectScheduler
from job_files import prepared
from job_notebooks import notebook

from lossi import environments, jobs
from lossi.errors import Forbidden, InvalidInput, LossiError, NotFound, NotSupported, Unavailable
from lossi.jobs.schedulers import Capabilities
from lossi.jobs.submit.plan import publish_interval
from lossi.projects import Project

Spec = Callable[..., Any]


def test_scripts_and_commands(project: Project, spec: Spec) -> None:
    script = prepared(project, jobs.submit(project, spec(script="train.py", arguments=["--fast"], parameters={"lr": 1})))
    assert (script.kind, script.source, script.command, script.language) == ("script", "train.py", ["--fast"], "python")
    command = prepared(
        project,
        jobs.submit(project, spec(command=["./sim", "{steps}"], working_directory="deep", parameters={"steps": 3, "a b": 1})),
    )
    assert (command.kind, command.source, command.command, command.working_directory) == (
        "command",
        None,
        ["./sim", "{steps}"],
        "deep",
    )
    assert command.tracking.experiment == "sim"


def test_the_notebooks_folder_is_the_working_directory_and_its_name_the_experiment(project: Project, spec: Spec) -> None:
    definition = prepared(project, jobs.submit(project, spec(notebook="deep/other.ipynb")))
    assert (definition.source, definition.working_directory, definition.name, definition.tracking.experiment) == (
        "deep/other.ipynb",
        "deep",
        "other",
        "other",
    )


def test_snapshots_are_published_less_often_the_more_tasks_run_at_once(project: Project, spec: Spec) -> None:
    assert [publish_interval(number) for number in (1, 50, 525, 1000, 9999)] == [10, 10, 35, 60, 60]
    sweep = {"grid": {"depth": list(range(1000))}}
    assert prepared(project, jobs.submit(project, spec(sweep=sweep))).tracking.publish_interval_s == 60
    assert prepared(project, jobs.submit(project, spec(sweep=sweep, max_parallel=4))).tracking.publish_interval_s == 10


def test_a_tracking_server_is_taken_from_the_environment_but_never_with_a_password(
    project: Project, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example.org/x")
    assert jobs.preview(project, spec()).job.tracking.server_uri == "https://mlflow.example.org/x"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:s3cret@mlflow.example.org")
    with pytest.raises(InvalidInput, match="password") as caught:
        jobs.submit(project, spec())
    assert "s3cret" not in str(caught.value)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////somewhere")
    assert jobs.preview(project, spec()).job.tracking.server_uri is None


def test_a_preview_shows_what_a_submission_would_do_and_leaves_nothing(
    project: Project, spec: Spec, direct: DirectScheduler
) -> None:
    direct.lines = ["#DIRECT --here"]
    before = sorted(project.home.rglob("*"))
    shown = jobs.preview(project, spec(sweep={"grid": {"depth": list(range(50))}}, parameters={"lr": float("nan")}))
    assert sorted(project.home.rglob("*")) == before
    assert shown.total == 50
    assert shown.tasks[:2] == [{"lr": "NaN", "depth": 0}, {"lr": "NaN", "depth": 1}]
    assert len(shown.tasks) == 20
    assert shown.script.splitlines()[1] == "#DIRECT --here"
    assert shown.argv[0] == "/bin/sh"
    json.loads(json.dumps(shown.model_dump(mode="json"), allow_nan=False))


def test_surprises_are_warned_about(project: Project, spec: Spec, direct: DirectScheduler) -> None:
    direct.capabilities = Capabilities(time_limits=False, memory_limits=False)
    warnings = " | ".join(
        jobs.preview(project, spec(resources={"partition": "gpu", "time": "2h", "memory": "1G"}, environment=None)).warnings
    )
    for words in (
        "ignores partition 'gpu'",
        "time limit 02:00:00",
        "memory limit of 1024 MiB",
        "no environment was named: using python",
    ):
        assert words in warnings


# -- what is refused ---------------------------------------------------------------------------------------------------

REFUSED: list[tuple[dict[str, Any], type[LossiError], str, str]] = [
    ({"environment": "pyhton"}, NotFound, "pyhton", "did you mean 'python'"),
    ({"notebook": "tarin.ipynb"}, NotFound, "tarin.ipynb", "did you mean 'train.ipynb'"),
    ({"notebook": "../outside.ipynb"}, Forbidden, "outside the project", ""),
    ({"notebook": "link.ipynb"}, Forbidden, "outside the project", ""),
    ({"notebook": "/etc/passwd"}, Forbidden, "outside the project", ""),
    ({"notebook": "deep"}, InvalidInput, "not a file", ""),
    ({"notebook": "train.py"}, InvalidInput, "not valid JSON", ""),
    ({"notebook": "julia.ipynb"}, NotSupported, "Julia", ""),
    ({"script": "train.ipynb"}, InvalidInput, "not a script", "submit it as a notebook"),
    ({"script": "data.csv"}, InvalidInput, "not a script", ".py or .R"),
    ({"command": ["x"], "working_directory": ".."}, Forbidden, "outside the project", ""),
    ({"command": ["x"], "working_directory": "nowhere"}, NotFound, "no folder", ""),
    ({"parameters": {"deepth": 1}}, InvalidInput, "deepth", "did you mean 'depth'"),
    ({"parameters": {"depth": "three"}}, InvalidInput, "depth", ""),
    ({"parameters": {"a-b": 1}}, InvalidInput, "a-b", ""),
    ({"notebook": "untagged.ipynb", "parameters": {"lr": 1}}, InvalidInput, "takes no parameters", "tag"),
    ({"sweep": {"grid": {"width": [1]}}}, InvalidInput, "task 0 of the sweep.*width", ""),
    ({"sweep": {"grid": {"depth": [1, 2, "x"]}}}, InvalidInput, "task 2 of the sweep.*depth", ""),
    ({"sweep": {"grid": {"lr": [1]}}, "parameters": {"lr": 2}}, InvalidInput, "both fixed and swept", ""),
    ({"sweep": {"grid": {"depth": list(range(1000)), "lr": list(range(1000))}}}, InvalidInput, "1,000,000 combinations, the limit is 20,000", ""),
    ({"sweep": {"csv": "depth\nx\n"}}, InvalidInput, "task 0 of the sweep.*depth", ""),
    ({"script": "train.py", "parameters": {"a b": 1}}, InvalidInput, "a b", ""),
    ({"command": ["x"], "parameters": {"a=b": 1}}, InvalidInput, "a=b", ""),
    ({"resources": {"gpus": 9}}, InvalidInput, "at most 1 GPUs", ""),
    ({"resources": {"nodes": 2}}, InvalidInput, "at most 1 nodes", ""),
    ({"scheduler": "dierct"}, InvalidInput, "no scheduler 'dierct'", "did you mean 'direct'"),
    ({"experiment": " "}, InvalidInput, "experiment", ""),
]  # fmt: skip


@pytest.mark.parametrize(("data", "kind", "what", "hint"), REFUSED, ids=lambda value: str(value)[:40])
def test_an_impossible_job_is_refused_before_anything_is_written(
    project: Project,
    spec: Spec,
    direct: DirectScheduler,
    tmp_path: Path,
    data: dict[str, Any],
    kind: type[LossiError],
    what: str,
    hint: str,
) -> None:
    (tmp_path / "outside.ipynb").write_text(notebook())
    (project.root / "link.ipynb").symlink_to(tmp_path / "outside.ipynb")
    (project.root / "julia.ipynb").write_text(notebook(language="julia"))
    (project.root / "untagged.ipynb").write_text(notebook("print(1)", parameters=None))
    (project.root / "data.csv").write_text("a")
    direct.capabilities = Capabilities(max_gpus=1, max_nodes=1)
    with pytest.raises(kind) as caught:
        jobs.submit(project, spec(**data))
    assert re.search(what, caught.value.what), caught.value.what
    assert hint in caught.value.hint
    assert caught.value.hint
    assert list(project.jobs.iterdir()) == []
    assert direct.submissions() == []


def test_a_lone_surrogate_is_refused(project: Project, spec: Spec) -> None:
    with pytest.raises(InvalidInput, match="lone surrogate"):
        jobs.submit(project, spec(parameters={"name": "\ud800"}))


def test_a_local_python_that_lacks_what_notebooks_need_is_refused(project: Project, spec: Spec, home: Path) -> None:
    python = shutil.which("python3", path="/usr/bin")
    if python is None:
        pytest.skip("this machine has no second Python")
    environments.add("bare", title="Bare", python=python)
    with pytest.raises(Unavailable, match="cannot run a notebook") as caught:
        jobs.submit(project, spec(environment="bare"))
    assert "pip install" in caught.value.hint


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_notebook_is_refused(project: Project, spec: Spec) -> None:
    (project.root / "train.ipynb").chmod(0)
    with pytest.raises(Forbidden, match="cannot read"):
        jobs.submit(project, spec())


def test_the_task_limit_refuses_a_sweep_before_it_is_expanded(
    project: Project, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOSSI_MAX_TASKS", "10")
    with pytest.raises(InvalidInput, match="limit is 10 tasks") as caught:
        jobs.submit(project, spec(sweep={"random": {"lr": {"choice": [1]}}, "samples": 10**12}))
    assert caught.value.details["limit"] == 10

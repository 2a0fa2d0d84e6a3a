"""Projects with real environments and stores, and a scheduler that is real but simple.

The one thing that takes seconds, MLflow making an empty store, happens once for all tests: they share a cache folder.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from direct_scheduler import Direct, DirectScheduler
from job_notebooks import notebook

from lossi import projects
from lossi.contract import records
from lossi.contract.records import TaskExit
from lossi.jobs import schedulers
from lossi.projects import Project


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def project(home: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project with a notebook, a script and a folder, no git."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    root = tmp_path / "a project"
    (root / "deep").mkdir(parents=True)
    (root / "train.ipynb").write_text(notebook("print(lr)"))
    (root / "deep" / "other.ipynb").write_text(notebook("print(1)"))
    (root / "train.py").write_text("print('hello')\n")
    return projects.init(root)


@pytest.fixture
def direct(tmp_path: Path) -> DirectScheduler:
    """The default scheduler of a test: its tasks wait until they are told to run."""
    folder = tmp_path / "scheduler"
    folder.mkdir()
    scheduler = DirectScheduler(folder, hold=True)
    schedulers.register(Direct(scheduler))
    return scheduler


@pytest.fixture
def spec(direct: DirectScheduler) -> Callable[..., Any]:
    """Make a JobSpec for the direct scheduler."""
    from lossi import jobs

    def make(**data: Any) -> Any:
        if not {"notebook", "script", "command"} & set(data):
            data["notebook"] = "train.ipynb"
        return jobs.validated({"scheduler": "direct", "environment": "python", **data})

    return make


@pytest.fixture
def ends(project: Project) -> Callable[..., None]:
    """Let a task end as its runner would say it."""

    def end(job_id: str, task: int, state: str = "succeeded", **more: Any) -> None:
        folder = project.jobs / job_id / records.TASK_FOLDER / str(task)
        folder.mkdir(parents=True, exist_ok=True)
        values = {"started": "2024-01-01T00:00:00Z", "ended": "2024-01-01T00:01:00Z", "elapsed_s": 60.0, "host": "n1", **more}
        (folder / records.EXIT).write_bytes(records.dump(TaskExit(task, state, **values)))

    return end


@pytest.fixture
def sweep(project: Project, spec: Callable[..., Any]) -> Callable[[int], Any]:
    """Submit a sweep of so many tasks."""
    from lossi import jobs

    return lambda number: jobs.submit(project, spec(sweep={"grid": {"depth": list(range(number))}}))

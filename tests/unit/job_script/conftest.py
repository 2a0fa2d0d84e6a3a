"""Both shells that run scripts of jobs, and a job directory whose path needs quoting."""

from __future__ import annotations

from pathlib import Path

import pytest
from script_runs import JOB_ID, SHELLS


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    folder = tmp_path / "a project's 100%?" / JOB_ID
    folder.mkdir(parents=True)
    return folder

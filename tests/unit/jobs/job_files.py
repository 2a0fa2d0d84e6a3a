"""What a submitted job wrote, as tests read it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lossi.contract import records
from lossi.contract.records import PreparedJob
from lossi.jobs.submit import prepare
from lossi.projects import Project


def directory(project: Project, job: Any) -> Path:
    return project.jobs / job.id


def prepared(project: Project, job: Any) -> PreparedJob:
    return records.load(PreparedJob, directory(project, job) / records.SPEC)


def rows(project: Project, job: Any) -> list[dict[str, Any]]:
    return list(prepare.read_rows(directory(project, job)))


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_file())

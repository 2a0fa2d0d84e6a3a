"""Jobs for tests of any scheduler, and waiting for what becomes of them."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import host
import pytest

from lossi.contract.records import (
    PreparedJob,
    Resources,
)
from lossi.jobs.schedulers.base import Handle, Scheduler

T = TypeVar("T")


def eventually(look: Callable[[], T], what: str = "") -> T:
    """Return the first true answer of ``look``; fail when none came within the time."""
    end = time.monotonic() + host.PATIENCE_S
    while True:
        answer = look()
        if answer:
            return answer
        if time.monotonic() > end:
            pytest.fail(f"not within {host.PATIENCE_S} s: {what or look}; last answer {answer!r}")
        time.sleep(0.005)


@dataclass
class Prepared:
    """A job directory with a script, ready to be submitted."""

    job: PreparedJob
    directory: Path

    @property
    def handle(self) -> Handle:
        return Handle(self.job.id, self.job.id, self.directory, self.job.tasks)

    def read(self, name: str) -> str:
        """Return what the script wrote into a file of the job directory, or nothing."""
        path = self.directory / name
        return path.read_text() if path.exists() else ""

    def log(self, task: int = 0) -> str:
        return self.read(f"tasks/{task}/log")


class JobFactory:
    """Makes job directories whose ``script.sh`` does what a test says, the way the real one begins."""

    def __init__(self, root: Path, scheduler: Scheduler) -> None:
        self.root = root
        self.scheduler = scheduler
        self.prepared: list[Prepared] = []

    def __call__(self, body: str, *, tasks: int = 1, max_parallel: int | None = None, **resources: Any) -> Prepared:
        job_id = f"{time.time_ns():x}{len(self.prepared):04d}test"
        directory = self.root / job_id
        directory.mkdir(parents=True)
        job = PreparedJob(
            id=job_id,
            name="contract",
            kind="command",
            project=str(self.root),
            user="tester",
            created="2025-01-01T00:00:00+00:00",
            tasks=tasks,
            max_parallel=max_parallel,
            resources=Resources(**resources),
        )
        script = directory / "script.sh"
        script.write_text(
            "\n".join(
                [
                    "#!/bin/sh",
                    *self.scheduler.directives(job, directory),
                    "LOSSI_TASK=${LOSSI_TASK:-${SLURM_ARRAY_TASK_ID:-0}}",
                    f"cd {shlex.quote(str(directory))} && mkdir -p tasks/$LOSSI_TASK && exec >>tasks/$LOSSI_TASK/log 2>&1",
                    body,
                    "",
                ]
            )
        )
        script.chmod(0o750)
        prepared = Prepared(job, directory)
        self.prepared.append(prepared)
        return prepared


def lives(pid: str) -> bool:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] not in "ZX"

"""A local scheduler of its own for each test: own state folder, own job folder; whatever it started must be gone at the end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from local_support import GRACE_S, SLOTS, end_everything, marked_processes
from scheduler_jobs import JobFactory

from lossi.jobs.schedulers.local import queue
from lossi.jobs.schedulers.local.adapter import LocalScheduler


@pytest.fixture
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Settings of this test alone."""
    monkeypatch.setenv("LOSSI_LOCAL_SLOTS", str(SLOTS))
    monkeypatch.setenv("LOSSI_CANCEL_GRACE_S", str(GRACE_S))
    monkeypatch.setenv("LOSSI_ALLOW_LOCAL_SCHEDULER", "true")
    return tmp_path


@pytest.fixture
def boot_id_file(tmp_path: Path) -> Path:
    """Stands for the kernel's: a test that writes another id into it has restarted the machine."""
    path = tmp_path / "boot_id"
    path.write_text("00000000-0000-0000-0000-000000000001\n")
    return path


@pytest.fixture
def scheduler(surroundings: Path, boot_id_file: Path) -> Iterator[LocalScheduler]:
    local = LocalScheduler(boot_id_file=boot_id_file, ingest_command=(), linger_s=0.05)
    local.places.make()
    yield local
    end_everything(local)


@pytest.fixture
def job_factory(tmp_path: Path, scheduler: LocalScheduler) -> Iterator[JobFactory]:
    factory = JobFactory(tmp_path / "project" / "jobs", scheduler)
    yield factory
    for prepared in factory.prepared:
        if prepared.job.id in queue.waiting(scheduler.places):
            scheduler.cancel(prepared.handle, None)
    end_everything(scheduler)
    ids = {prepared.job.id for prepared in factory.prepared}
    assert {job_id: pids for job_id, pids in marked_processes().items() if job_id in ids} == {}

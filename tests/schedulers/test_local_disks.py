"""Local jobs on disks that are full or read-only."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from local_support import end_everything
from scheduler_jobs import JobFactory, eventually

from lossi.contract.states import FAILED, QUEUED, RUNNING, SUCCEEDED
from lossi.errors import Unavailable
from lossi.jobs.schedulers.local.adapter import LocalScheduler


@contextlib.contextmanager
def small_disk(place: Path) -> Iterator[Path]:
    """Mount a filesystem of 1 MiB; only root may."""
    place.mkdir(parents=True, exist_ok=True)
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], check=False).returncode:
        pytest.skip("cannot mount a filesystem here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def fill(disk: Path) -> Path:
    path = disk / "fill"
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as stream:
        while True:
            stream.write(bytes(4096))
    return path


@pytest.mark.root
def test_full_state_folder_is_told_and_nothing_is_submitted(
    scheduler: LocalScheduler, job_factory: JobFactory, tmp_path: Path
) -> None:
    prepared = job_factory("true")
    with small_disk(tmp_path / "disk") as disk:
        full = LocalScheduler(disk / "local", ingest_command=(), linger_s=0.2)
        full.places.make()
        filling = fill(disk)
        with pytest.raises(Unavailable, match="the filesystem is full") as caught:
            full.submit(prepared.job, prepared.directory)
        assert caught.value.hint
        assert full.find(prepared.job.id) is None
        filling.unlink()
        full.submit(prepared.job, prepared.directory)
        end_everything(full)
        assert full.poll([prepared.handle])[prepared.job.id].state == SUCCEEDED


@pytest.mark.root
def test_read_only_state_folder_is_told(scheduler: LocalScheduler, job_factory: JobFactory, tmp_path: Path) -> None:
    prepared = job_factory("true")
    with small_disk(tmp_path / "disk") as disk:
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        with pytest.raises(Unavailable, match="read-only"):
            LocalScheduler(disk / "local").submit(prepared.job, prepared.directory)
        assert LocalScheduler(disk / "local").find(prepared.job.id) is None


@pytest.mark.root
def test_job_on_a_full_disk_waits_and_holds_up_nobody(scheduler: LocalScheduler, job_factory: JobFactory, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        stuck = JobFactory(disk, scheduler)("echo ran >> ran", tasks=2)
        other = job_factory("echo ran >> ran")
        filling = fill(disk)
        scheduler.submit(stuck.job, stuck.directory)
        scheduler.submit(other.job, other.directory)
        eventually(lambda: other.read("ran"), "the other job ran")
        assert scheduler.poll([stuck.handle])[stuck.job.id].state == QUEUED
        assert stuck.read("ran") == ""
        filling.unlink()
        eventually(lambda: scheduler.poll([stuck.handle])[stuck.job.id].state == SUCCEEDED, "it goes on")
        assert stuck.read("ran") == "ran\nran\n"
        end_everything(scheduler)


@pytest.mark.root
def test_end_of_a_task_on_a_full_disk_is_recorded_when_there_is_room(
    scheduler: LocalScheduler, job_factory: JobFactory, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk") as disk:
        prepared = JobFactory(disk, scheduler)("until [ -e go ]; do sleep 0.02; done; exit 3")
        scheduler.submit(prepared.job, prepared.directory)
        eventually(lambda: scheduler.poll([prepared.handle])[prepared.job.id].state == RUNNING)
        (prepared.directory / "go").touch()
        filling = fill(disk)
        eventually(lambda: "full" in scheduler.places.log.read_text(), "it is in the log")
        filling.unlink()
        eventually(lambda: scheduler.poll([prepared.handle])[prepared.job.id].state == FAILED)
        assert scheduler.poll([prepared.handle])[prepared.job.id].tasks[0].exit_code == 3
        end_everything(scheduler)

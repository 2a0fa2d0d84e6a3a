"""The queue of local jobs on disk, its lock, and the processes of tasks."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from scheduler_jobs import eventually

from lossi import processes
from lossi.jobs.schedulers.local import machine, queue, task_processes
from lossi.jobs.schedulers.local.queue import Entry, Places


def entry(job_id: str = "job", **changes: object) -> Entry:
    base = Entry(job_id, "/jobs/job", "/project", "me", 1, "2025-01-01T00:00:00+00:00", 1, "here")
    return dataclasses.replace(base, **changes)  # type: ignore[arg-type]


def test_entry_is_added_once_and_found_until_long_after_its_end(tmp_path: Path) -> None:
    places = Places(tmp_path / "state" / "here")
    places.make()
    assert queue.add(places, entry())
    assert not queue.add(places, entry(tasks=5))
    assert queue.waiting(places) == {"job"}
    assert queue.find(places, "job") == queue.read(places, "job") == entry()
    queue.finish(places, "job")
    assert queue.waiting(places) == set()
    assert queue.find(places, "job") == entry()
    queue.forget_old(places)
    assert queue.find(places, "job") == entry()
    old = time.time() - (queue.KEPT_DAYS + 1) * 86400
    os.utime(places.finished("job"), (old, old))
    queue.forget_old(places)
    assert queue.find(places, "job") is None


@pytest.mark.parametrize("job_id", ["../done/job", "", ".", "a/b", "a\0b"])
def test_names_that_are_no_ids_find_nothing(tmp_path: Path, job_id: str) -> None:
    places = Places(tmp_path)
    places.make()
    queue.add(places, entry())
    assert queue.find(places, job_id) is None


@pytest.mark.parametrize("change", [{"job_id": "other"}, {"tasks": 0}, {"directory": "relative"}])
def test_entry_that_does_not_fit_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    places = Places(tmp_path)
    places.make()
    places.entry("job").write_text(json.dumps(dataclasses.asdict(entry(**change))))
    with pytest.raises(ValueError, match="does not match its name"):
        queue.read(places, "job")


def test_lock_is_held_by_one_and_passes_to_a_child(tmp_path: Path) -> None:
    places = Places(tmp_path)
    places.make()
    lock = queue.try_lock(places)
    assert lock is not None
    assert queue.try_lock(places) is None
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[lock]) as child:
        os.close(lock)
        assert queue.try_lock(places) is None
        child.kill()
    free = queue.try_lock(places)
    assert free is not None
    os.close(free)


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "600"], env={"LOSSI_JOB_ID": "unit", "LOSSI_TASK": "3"}, start_new_session=True) as process:
        yield process
        process.kill()


def test_process_is_known_by_number_and_start(sleeper: subprocess.Popen[bytes]) -> None:
    process = processes.inspect(sleeper.pid)
    assert process is not None
    assert (process.pid, process.parent, process.session) == (sleeper.pid, os.getpid(), sleeper.pid)
    assert processes.alive(sleeper.pid, process.start)
    assert not processes.alive(sleeper.pid, process.start + 1)
    assert processes.open_pidfd(sleeper.pid, process.start + 1) is None
    task_processes.kill([dataclasses.replace(process, start=process.start + 1)])  # somebody else's by now
    assert sleeper.poll() is None
    task_processes.kill([process])
    assert sleeper.wait(300) == -signal.SIGKILL
    assert processes.inspect(sleeper.pid) is None


def test_dead_but_not_waited_for_is_not_alive() -> None:
    pid = os.posix_spawn("/bin/true", ["true"], {})
    try:
        zombie = eventually(lambda: (process := processes.inspect(pid)) and process.state == "Z" and process)
        assert isinstance(zombie, processes.Process)
        assert not processes.alive(pid, zombie.start)
    finally:
        os.waitpid(pid, 0)


def test_name_of_a_program_cannot_confuse(tmp_path: Path) -> None:
    odd = tmp_path / "a) Z 1 (b"
    odd.symlink_to("/bin/sleep")
    with subprocess.Popen([odd, "600"]) as child:
        process = eventually(
            lambda: (inspected := processes.inspect(child.pid)) and inspected.parent == os.getpid() and inspected
        )
        child.kill()
    assert isinstance(process, processes.Process)


def test_members_are_found_by_environment_session_and_descent(sleeper: subprocess.Popen[bytes]) -> None:
    table = task_processes.Table()
    table.refresh()
    sleeping = table.processes[sleeper.pid]
    by_environment = task_processes.Member("unit", 3)
    assert [member.pid for member in table.members(by_environment)] == [sleeper.pid]
    assert table.members(task_processes.Member("unit", 30)) == []
    assert table.members(task_processes.Member("uni", 3)) == []
    by_session = task_processes.Member("else", 0, sleeper.pid, sleeping.start)
    assert [member.pid for member in table.members(by_session)] == [sleeper.pid]
    # The leader's number was given to another process since.
    assert table.members(task_processes.Member("else", 0, sleeper.pid, sleeping.start - 1)) == []
    # A process is never a member of what it looks at itself.
    assert os.getpid() not in {member.pid for member in table.members(task_processes.Member("else", 0, os.getsid(0), 0))}
    assert [process.pid for process in table.descendants({sleeper.pid, -1})] == [sleeper.pid]
    shell = subprocess.Popen(["sh", "-c", "sleep 600 & echo $!; wait"], stdout=subprocess.PIPE, text=True)
    with shell:
        assert shell.stdout is not None
        grandchild = int(shell.stdout.readline())
        table.refresh()
        assert {process.pid for process in table.descendants({shell.pid})} == {shell.pid, grandchild}
        task_processes.kill(table.descendants({shell.pid}))


def test_memory_is_measured_in_mib() -> None:
    code = "held = bytearray(b'x') * (64 << 20); print('up', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stdout.readline() == b"up\n"
        process = processes.inspect(child.pid)
        assert process is not None
        assert 64 < task_processes.held_mb([process]) < task_processes.resident_mb([process]) < 128
        child.kill()
    assert task_processes.held_mb([process]) == task_processes.resident_mb([process]) == 0


def test_machine_has_cores_and_memory() -> None:
    assert 1 <= machine.cores() <= (os.cpu_count() or 1)
    assert 64 < machine.total_memory_mb() <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20


@pytest.mark.parametrize("script", ["exit 9", "echo 'No devices were found'", "printf '\\377'"])
def test_nvidia_smi_that_finds_nothing_means_no_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert machine.gpu_ids() == ()

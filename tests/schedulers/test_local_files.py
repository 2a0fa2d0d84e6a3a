"""The parts of the local scheduler by themselves: journal, queue, verdicts, processes, machine, full and read-only disks."""

from __future__ import annotations

import contextlib
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
from hypothesis import given, strategies as st
from local_support import end_everything
from scheduler_contract import JobFactory, Made, eventually

from lossi import processes
from lossi.contract.records import (
    CANCELLED,
    FAILED,
    NODE_FAILED,
    OUT_OF_MEMORY,
    QUEUED,
    RUNNING,
    SUCCEEDED,
    TIMED_OUT,
    CancelRequest,
    Ending,
    TaskExit,
)
from lossi.errors import Unavailable
from lossi.jobs.schedulers.base import TaskView
from lossi.jobs.schedulers.cancellation import merged
from lossi.jobs.schedulers.local import machine, queue, task_processes, verdict
from lossi.jobs.schedulers.local.adapter import LocalScheduler, summary
from lossi.jobs.schedulers.local.journal import History, Journal, Started
from lossi.jobs.schedulers.local.queue import Entry, Places

BEGUN = Started(4711, 99, "boot", 1.5, "here", "2025-01-01T00:00:00+00:00", ("1",))


# -- journal -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    written = Journal(tmp_path / "local.jsonl", "here")
    yield written
    written.close()


def test_history_is_what_was_written(journal: Journal) -> None:
    history = History(journal.path)
    assert history.update() is False
    journal.queued(5, Path("/state/here"))
    journal.started(0, BEGUN)
    journal.started(1, BEGUN)
    journal.started(2, BEGUN)
    journal.ending(0, CANCELLED, "cancelled by \u00e4, \u201cquoted\u201d\nand more")
    journal.requeued(2)
    assert journal.flush(durable=True)
    assert history.update()
    assert (history.host, history.queue) == ("here", Path("/state/here"))
    assert history.started == {0: BEGUN, 1: BEGUN}
    assert history.views[0].reason == "cancelled by \u00e4, \u201cquoted\u201d\nand more"
    assert history.views[1] == TaskView(RUNNING, "RUNNING", host="here", started=BEGUN.time)
    journal.ended(1, FAILED, 3, None, "why")
    journal.never_started([2, 3, 4], CANCELLED, "asked")
    assert journal.flush()
    assert history.update()
    assert (history.views[1].state, history.views[1].exit_code, history.views[1].started) == (FAILED, 3, BEGUN.time)
    assert [history.views[n].state for n in (2, 3, 4)] == [CANCELLED] * 3
    assert history.started.keys() == {0}
    assert history.ended == 4


def test_history_reads_each_byte_once(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    history = History(journal.path)
    for number in range(1000):
        journal.started(number, BEGUN)
        journal.ended(number, SUCCEEDED, 0, None, "")
    journal.flush()
    history.update()
    taken: list[object] = []
    monkeypatch.setattr(History, "_take", lambda self, line: taken.append(line))
    history.update()
    assert taken == []
    journal.requeued(3)
    journal.flush()
    history.update()
    assert len(taken) == 1


def test_history_waits_for_the_end_of_a_line(tmp_path: Path) -> None:
    path = tmp_path / "local.jsonl"
    path.write_bytes(b'{"event":"queued","tasks":1,"host":"here","queue":"/q","time":"t"}\n{"event":"ended","task":0,')
    history = History(path)
    assert history.update() and not history.views
    with path.open("ab") as stream:
        stream.write(b'"state":"failed","time":"t"}\n')
    assert history.update() and history.views[0].state == FAILED


def test_history_of_another_file_by_the_same_name_starts_afresh(tmp_path: Path) -> None:
    path = tmp_path / "local.jsonl"
    for number in (1, 2):
        book = Journal(tmp_path / f"{number}", "here")
        book.ended(number, SUCCEEDED, 0, None, "")
        book.flush()
        book.close()
    history = History(path)
    (tmp_path / "1").rename(path)
    history.update()
    (tmp_path / "2").rename(path)
    history.update()
    assert history.views.keys() == {2}


@pytest.mark.parametrize(
    "line", ["nonsense", "[]", '"text"', "{}", '{"event":"started","task":1}', '{"event":"ended","task":1}', "\x00"]
)
def test_line_that_makes_no_sense_is_passed_over(tmp_path: Path, line: str) -> None:
    path = tmp_path / "local.jsonl"
    path.write_text(line + '\n{"event":"ended","task":0,"state":"failed","time":"t"}\n')
    history = History(path)
    assert history.update() and history.views[0].state == FAILED


def test_journal_goes_on_after_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "local.jsonl"
    path.write_bytes(b'{"event":"ended","ta')
    book = Journal(path, "here")
    book.ended(7, SUCCEEDED, 0, None, "")
    assert book.flush()
    book.close()
    history = History(path)
    assert history.update() and history.views.keys() == {7}


def test_journal_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("")
    (tmp_path / "local.jsonl").symlink_to(tmp_path / "precious")
    book = Journal(tmp_path / "local.jsonl", "here")
    book.queued(1, Path("/state/here"))
    assert not book.flush()
    assert (tmp_path / "precious").read_text() == ""


@given(st.sets(st.integers(0, 60)))
def test_tasks_that_never_started_are_read_as_they_were_written(tasks: set[int]) -> None:
    path = Path(f"/tmp/lossi-test-{os.getpid()}.jsonl")
    try:
        book = Journal(path, "here")
        book.never_started(sorted(tasks), CANCELLED, "why")
        book.flush()
        book.close()
        history = History(path)
        history.update()
        assert history.views.keys() == tasks
        assert history.ended == len(tasks)
    finally:
        path.unlink(missing_ok=True)


@given(st.lists(st.integers(1, 80), max_size=6))
def test_short_writes_lose_no_line(sizes: list[int]) -> None:
    path = Path(f"/tmp/lossi-test-{os.getpid()}.jsonl")
    left = list(sizes)
    whole = os.write
    try:
        book = Journal(path, "here")
        for number in range(5):
            book.ended(number, SUCCEEDED, 0, None, "")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "write", lambda fd, data: whole(fd, data[: left.pop()] if left else data))
            assert book.flush()
        book.close()
        history = History(path)
        history.update()
        assert history.views.keys() == set(range(5))
    finally:
        path.unlink(missing_ok=True)


# -- verdicts ------------------------------------------------------------------------------------------------------------


def exit_status(code: int) -> int:
    return code << 8


@pytest.mark.parametrize(
    ("account", "ending", "status", "restarted", "state", "words"),
    [
        (None, None, exit_status(0), False, SUCCEEDED, ""),
        (None, None, exit_status(3), False, FAILED, "exit code 3"),
        (None, None, exit_status(139), False, FAILED, "SIGSEGV"),
        (None, None, exit_status(255), False, FAILED, "exit code 255"),
        (None, None, int(signal.SIGKILL), False, FAILED, "SIGKILL"),
        (None, None, None, False, FAILED, "without a trace"),
        (None, None, None, True, NODE_FAILED, "restarted"),
        (None, Ending(TIMED_OUT, "limit"), int(signal.SIGKILL), False, TIMED_OUT, "limit"),
        (None, Ending(CANCELLED, "asked"), exit_status(0), False, CANCELLED, "asked"),
        (None, Ending(CANCELLED, "asked"), None, True, CANCELLED, "asked"),
        (TaskExit(0, SUCCEEDED), None, None, True, SUCCEEDED, ""),
        (TaskExit(0, SUCCEEDED), Ending(CANCELLED, "asked"), exit_status(143), False, SUCCEEDED, ""),
        (TaskExit(0, FAILED, reason="own"), None, exit_status(1), False, FAILED, "own"),
        (TaskExit(0, FAILED, reason="own"), Ending(OUT_OF_MEMORY, "used"), exit_status(1), False, OUT_OF_MEMORY, "used"),
        (TaskExit(0, TIMED_OUT, reason="in cell 3"), Ending(TIMED_OUT, "limit"), exit_status(1), False, TIMED_OUT, "in cell 3"),
        (TaskExit(0, RUNNING), None, exit_status(3), False, FAILED, "exit code 3"),
    ],
)
def test_end_of_a_task_is_decided_by_who_knows_best(
    account: TaskExit | None, ending: Ending | None, status: int | None, restarted: bool, state: str, words: str
) -> None:
    end = verdict.of_end(account, ending, status, restarted=restarted)
    assert end.state == state and words in end.reason
    fixed = verdict.corrected(account, end, task=0, host="h", started="s", ended="e", elapsed_s=1.0)
    assert (fixed or account) is not None
    assert (fixed or account).state == state  # type: ignore[union-attr]


def test_requests_to_cancel_add_up_and_never_shrink() -> None:
    assert merged(None, CancelRequest("t", "u", [1])).tasks == [1]
    assert merged(CancelRequest("t", "u", [3]), CancelRequest("t", "u", [1, 3])).tasks == [1, 3]
    assert merged(CancelRequest("t", "u", None), CancelRequest("t", "u", [1])).tasks is None
    assert merged(CancelRequest("t", "u", [1]), CancelRequest("t", "u", None)).tasks is None


def test_state_of_a_job_follows_from_its_tasks(tmp_path: Path) -> None:
    handle = Made(JobFactory(tmp_path, LocalScheduler(tmp_path))("true", tasks=2).job, tmp_path).handle
    ends = {name: TaskView(name, reason=name) for name in (SUCCEEDED, FAILED, CANCELLED, TIMED_OUT)}
    assert summary(handle, {}).state == QUEUED
    assert summary(handle, {0: ends[SUCCEEDED]}).state == RUNNING
    assert summary(handle, {0: ends[SUCCEEDED], 1: ends[SUCCEEDED]}).state == SUCCEEDED
    assert summary(handle, {0: ends[SUCCEEDED], 1: ends[CANCELLED]}).state == CANCELLED
    assert summary(handle, {0: ends[FAILED], 1: ends[TIMED_OUT]}).reason == FAILED


# -- queue -----------------------------------------------------------------------------------------------------------------


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
    with pytest.raises(ValueError, match="does not fit"):
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


# -- processes ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "600"], env={"LOSSI_JOB_ID": "unit", "LOSSI_TASK": "3"}, start_new_session=True) as process:
        yield process
        process.kill()


def test_process_is_known_by_number_and_start(sleeper: subprocess.Popen[bytes]) -> None:
    seen = processes.inspect(sleeper.pid)
    assert seen is not None
    assert (seen.pid, seen.parent, seen.session) == (sleeper.pid, os.getpid(), sleeper.pid)
    assert processes.alive(sleeper.pid, seen.start)
    assert not processes.alive(sleeper.pid, seen.start + 1)
    assert processes.open_pidfd(sleeper.pid, seen.start + 1) is None
    task_processes.kill([dataclasses.replace(seen, start=seen.start + 1)])  # somebody else's by now
    assert sleeper.poll() is None
    task_processes.kill([seen])
    assert sleeper.wait(300) == -signal.SIGKILL
    assert processes.inspect(sleeper.pid) is None


def test_dead_but_not_waited_for_is_not_alive() -> None:
    pid = os.posix_spawn("/bin/true", ["true"], {})
    try:
        zombie = eventually(lambda: (seen := processes.inspect(pid)) and seen.state == "Z" and seen)
        assert isinstance(zombie, processes.Process)
        assert not processes.alive(pid, zombie.start)
    finally:
        os.waitpid(pid, 0)


def test_name_of_a_program_cannot_confuse(tmp_path: Path) -> None:
    odd = tmp_path / "a) Z 1 (b"
    odd.symlink_to("/bin/sleep")
    with subprocess.Popen([odd, "600"]) as child:
        seen = eventually(lambda: (one := processes.inspect(child.pid)) and one.parent == os.getpid() and one)
        child.kill()
    assert isinstance(seen, processes.Process)


def test_members_are_found_by_environment_session_and_descent(sleeper: subprocess.Popen[bytes]) -> None:
    table = task_processes.Table()
    table.refresh()
    seen = table.processes[sleeper.pid]
    by_environment = task_processes.Member("unit", 3)
    assert [member.pid for member in table.members(by_environment)] == [sleeper.pid]
    assert table.members(task_processes.Member("unit", 30)) == []
    assert table.members(task_processes.Member("uni", 3)) == []
    by_session = task_processes.Member("else", 0, sleeper.pid, seen.start)
    assert [member.pid for member in table.members(by_session)] == [sleeper.pid]
    # The leader's number was given to another process since.
    assert table.members(task_processes.Member("else", 0, sleeper.pid, seen.start - 1)) == []
    # A process is never a member of what it looks at itself.
    assert os.getpid() not in {member.pid for member in table.members(task_processes.Member("else", 0, os.getsid(0), 0))}
    assert [one.pid for one in table.descendants({sleeper.pid, -1})] == [sleeper.pid]
    shell = subprocess.Popen(["sh", "-c", "sleep 600 & echo $!; wait"], stdout=subprocess.PIPE, text=True)
    with shell:
        assert shell.stdout is not None
        grandchild = int(shell.stdout.readline())
        table.refresh()
        assert {one.pid for one in table.descendants({shell.pid})} == {shell.pid, grandchild}
        task_processes.kill(table.descendants({shell.pid}))


def test_memory_is_measured_in_mib() -> None:
    code = "held = bytearray(b'x') * (64 << 20); print('up', flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stdout.readline() == b"up\n"
        seen = processes.inspect(child.pid)
        assert seen is not None
        assert 64 < task_processes.held_mb([seen]) < task_processes.resident_mb([seen]) < 128
        child.kill()
    assert task_processes.held_mb([seen]) == task_processes.resident_mb([seen]) == 0


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


# -- disks that are full or read-only ------------------------------------------------------------------------------------


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
    made = job_factory("true")
    with small_disk(tmp_path / "disk") as disk:
        full = LocalScheduler(disk / "local", ingest_command=(), linger_s=0.2)
        full.places.make()
        filling = fill(disk)
        with pytest.raises(Unavailable, match="the filesystem is full") as caught:
            full.submit(made.job, made.directory)
        assert caught.value.hint
        assert full.find(made.job.id) is None
        filling.unlink()
        full.submit(made.job, made.directory)
        end_everything(full)
        assert full.poll([made.handle])[made.job.id].state == SUCCEEDED


@pytest.mark.root
def test_read_only_state_folder_is_told(scheduler: LocalScheduler, job_factory: JobFactory, tmp_path: Path) -> None:
    made = job_factory("true")
    with small_disk(tmp_path / "disk") as disk:
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        with pytest.raises(Unavailable, match="read-only"):
            LocalScheduler(disk / "local").submit(made.job, made.directory)
        assert LocalScheduler(disk / "local").find(made.job.id) is None


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
        made = JobFactory(disk, scheduler)("until [ -e go ]; do sleep 0.02; done; exit 3")
        scheduler.submit(made.job, made.directory)
        eventually(lambda: scheduler.poll([made.handle])[made.job.id].state == RUNNING)
        (made.directory / "go").touch()
        filling = fill(disk)
        eventually(lambda: "full" in scheduler.places.log.read_text(), "it is in the log")
        filling.unlink()
        eventually(lambda: scheduler.poll([made.handle])[made.job.id].state == FAILED)
        assert scheduler.poll([made.handle])[made.job.id].tasks[0].exit_code == 3
        end_everything(scheduler)

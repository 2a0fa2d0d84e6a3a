"""The supervisor of local jobs: one light process per user, whatever happens to its files."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path

import pytest
from local_support import (
    ACCOUNT,
    WAIT_FOR_GO,
    end_everything,
    kill_supervisor,
    marked_processes,
    submit,
    supervisor,
    supervisors,
    until,
    until_over,
    view,
)
from scheduler_jobs import JobFactory

from lossi import processes
from lossi.contract.states import CANCELLED, FAILED, RUNNING, SUCCEEDED
from lossi.jobs.schedulers.local import journal, queue
from lossi.jobs.schedulers.local.adapter import LocalScheduler


def test_supervisor_is_detached_light_and_alone(
    scheduler: LocalScheduler, job_factory: JobFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_KEY_BASE", "secret")
    prepared = job_factory(f"echo up > up\n{WAIT_FOR_GO}")
    submit(scheduler, prepared)
    until(lambda: prepared.read("up"))
    pid = supervisor(scheduler)
    assert supervisors(scheduler) == [pid]
    place = Path(f"/proc/{pid}")
    assert (place / "cwd").readlink() == Path("/")
    assert (place / "fd/0").readlink() == Path("/dev/null")
    assert (place / "fd/2").readlink() == scheduler.places.log
    status = dict(line.split(":", 1) for line in (place / "status").read_text().splitlines())
    assert int(status["Umask"], 8) == 0o027
    assert int(status["VmRSS"].split()[0]) < 40_000
    mine = processes.inspect(pid)
    assert mine is not None and mine.session not in (os.getsid(0), pid)  # no terminal can be its own
    assert b"secret" not in (place / "environ").read_bytes()
    libraries = (place / "maps").read_text()
    assert not any(name in libraries for name in ("pydantic", "yaml", "pygit2", "sqlite3"))
    assert (scheduler.places.root.stat().st_mode & 0o077) == 0
    (prepared.directory / "go").touch()
    until_over(scheduler, prepared)
    until(lambda: not supervisors(scheduler), "it ends with its queue")
    assert scheduler.places.log.read_text() == ""


def test_supervisor_costs_nothing_while_tasks_run(scheduler: LocalScheduler, job_factory: JobFactory) -> None:
    prepared = job_factory(f"echo up > up\n{WAIT_FOR_GO}", memory_mb=100)
    submit(scheduler, prepared)
    until(lambda: prepared.read("up"))
    pid = supervisor(scheduler)

    def switches() -> int:
        status = Path(f"/proc/{pid}/status").read_text()
        return int(status.split("\nvoluntary_ctxt_switches:")[1].split()[0])

    before = switches()
    until(lambda: switches() - before >= 4)
    begin = os.times().elapsed
    before = switches()
    until(lambda: switches() - before >= 4)
    assert os.times().elapsed - begin > 0.5  # it wakes about twice a second to measure memory
    (prepared.directory / "go").touch()
    until_over(scheduler, prepared)


def test_waiting_jobs_hold_no_files_open(scheduler: LocalScheduler, job_factory: JobFactory) -> None:
    first = job_factory(f"echo up > up\n{WAIT_FOR_GO}", cpus=2)
    rest = [job_factory("true") for _ in range(40)]
    for prepared in (first, *rest):
        submit(scheduler, prepared)
    until(lambda: all((prepared.directory / journal.NAME).exists() for prepared in rest), "all were taken up")
    assert len(list(Path(f"/proc/{supervisor(scheduler)}/fd").iterdir())) < 20
    (first.directory / "go").touch()
    assert until_over(scheduler, rest[-1]).state == SUCCEEDED


def test_unreadable_entries_and_vanished_directories_do_not_stop_the_rest(
    scheduler: LocalScheduler, job_factory: JobFactory
) -> None:
    before = job_factory(f"echo up > up\n{WAIT_FOR_GO}", cpus=2)
    vanished, fine = job_factory("true"), job_factory("echo ran > ran")
    submit(scheduler, before)
    until(lambda: before.read("up"))
    scheduler.places.entry("broken").write_text("{")
    scheduler.places.entry("wrong").write_text(json.dumps({"job_id": "other", "directory": "relative"}))
    submit(scheduler, vanished)
    submit(scheduler, fine)
    _remove(vanished.directory)
    (before.directory / "go").touch()
    assert until_over(scheduler, fine).state == SUCCEEDED
    until(lambda: not queue.waiting(scheduler.places))
    assert not vanished.directory.exists()
    assert view(scheduler, vanished).known is False
    assert {path.name for path in scheduler.places.bad.iterdir()} == {"broken.json", "wrong.json"}


def test_deleted_state_folder_loses_no_truth(scheduler: LocalScheduler, job_factory: JobFactory) -> None:
    prepared = job_factory(f"echo up >> up\n{WAIT_FOR_GO}{ACCOUNT}", tasks=3)
    submit(scheduler, prepared)
    until(lambda: prepared.read("up").count("\n") == 2)
    kill_supervisor(scheduler)
    _remove(scheduler.places.root)
    current = view(scheduler, prepared)
    assert [current.tasks[n].state for n in range(3)] == [RUNNING, RUNNING, FAILED]
    assert "resubmit" in current.tasks[2].reason
    (prepared.directory / "go").touch()
    until(lambda: prepared.job.id not in marked_processes())
    current = view(scheduler, prepared)
    assert [current.tasks[n].state for n in range(3)] == [SUCCEEDED, SUCCEEDED, FAILED]


def test_job_is_known_and_stopped_from_an_environment_with_another_state_folder(
    scheduler: LocalScheduler, job_factory: JobFactory, tmp_path: Path, boot_id_file: Path
) -> None:
    prepared = job_factory("echo up >> up; sleep 600", tasks=3)
    submit(scheduler, prepared)
    until(lambda: prepared.read("up").count("\n") == 2)
    other = LocalScheduler(tmp_path / "other", boot_id_file=boot_id_file, ingest_command=(), linger_s=0.05)
    current = view(other, prepared)
    assert current.state == RUNNING and current.tasks.keys() == {0, 1}
    kill_supervisor(scheduler)
    assert view(other, prepared).tasks.keys() == {0, 1}
    other.cancel(prepared.handle, None)
    assert until_over(other, prepared).state == CANCELLED
    assert not supervisors(other)


def test_supervisor_whose_state_folder_was_deleted_takes_no_new_jobs(scheduler: LocalScheduler, job_factory: JobFactory) -> None:
    old = job_factory(f"echo up > up\n{WAIT_FOR_GO}{ACCOUNT}")
    submit(scheduler, old)
    until(lambda: old.read("up"))
    first = supervisor(scheduler)
    _remove(scheduler.places.root)
    new = job_factory("echo ran >> ran")
    submit(scheduler, new)
    assert until_over(scheduler, new).state == SUCCEEDED
    assert supervisors(scheduler) != [first]
    (old.directory / "go").touch()
    assert until_over(scheduler, old).state == SUCCEEDED
    assert new.read("ran") == "ran\n"
    until(lambda: not supervisors(scheduler))


def test_results_are_taken_in_one_at_a_time_seldom_and_after_the_last_task(surroundings: Path, boot_id_file: Path) -> None:
    book = surroundings / "ingested"
    program = surroundings / "ingest.sh"
    program.write_text(
        f"""#!/bin/sh
        mkdir {shlex.quote(str(book))}.busy || echo "two at once" >> {shlex.quote(str(book))}
        echo "begin $(ls {shlex.quote(str(surroundings))}/jobs/*/tasks/*/exit.json | wc -l) $(nice) $2" >> {shlex.quote(str(book))}
        sleep 0.1
        rmdir {shlex.quote(str(book))}.busy
        exit 1
        """
    )
    program.chmod(0o755)
    scheduler = LocalScheduler(boot_id_file=boot_id_file, ingest_command=(str(program), "--project"), linger_s=0.0)
    factory = JobFactory(surroundings / "jobs", scheduler)
    prepared = factory("sleep 0.02", tasks=20)
    submit(scheduler, prepared)
    assert until_over(scheduler, prepared).state == SUCCEEDED
    end_everything(scheduler)
    lines = book.read_text().splitlines()
    assert all(line.startswith("begin ") and line.endswith(f" 10 {factory.root}") for line in lines)
    assert 2 <= len(lines) < 20, "several tasks at once"
    assert lines[-1].split()[1] == "20"
    assert "ingest ended with status 1" in scheduler.places.log.read_text()


def _remove(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()

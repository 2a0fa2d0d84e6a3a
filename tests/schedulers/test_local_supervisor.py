"""The supervisor may die at any moment, the machine may restart, submitters may be killed: no task is lost and none runs twice."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import random
import shlex
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from local_support import end_everything, marked_processes, supervisor, supervisors
from scheduler_contract import JobFactory, Made, eventually, lives

from lossi import processes
from lossi.contract import records
from lossi.contract.records import CANCELLED, FAILED, FINAL_STATES, NODE_FAILED, QUEUED, RUNNING, SUCCEEDED, TIMED_OUT
from lossi.jobs.schedulers.base import JobView
from lossi.jobs.schedulers.local import journal, queue
from lossi.jobs.schedulers.local.adapter import LocalScheduler
from lossi.jobs.schedulers.local.journal import Journal, Started

ACCOUNT = """printf '{"task": %d, "state": "succeeded", "exit_code": 0}' $LOSSI_TASK > tasks/$LOSSI_TASK/exit.json\n"""
"""What the real runner does at its end; without it nobody knows how an adopted process ended."""
WAIT_FOR_GO = "until [ -e go ]; do sleep 0.02; done\n"


def view(scheduler: LocalScheduler, made: Made) -> JobView:
    return scheduler.poll([made.handle])[made.job.id]


def until_over(scheduler: LocalScheduler, made: Made) -> JobView:
    def over() -> JobView | None:
        seen = view(scheduler, made)
        ended = [task for task in seen.tasks.values() if task.state in FINAL_STATES]
        return seen if len(ended) == made.job.tasks else None

    return eventually(over, "the job is over")


def until(look: Callable[[], object], what: str = "") -> None:
    eventually(look, what)


def submit(scheduler: LocalScheduler, made: Made) -> None:
    scheduler.submit(made.job, made.directory)


def kill_supervisor(scheduler: LocalScheduler, number: signal.Signals = signal.SIGKILL) -> None:
    pid = supervisor(scheduler)
    os.kill(pid, number)
    until(lambda: not lives(str(pid)), "the supervisor is dead")


def child(code: str, scheduler: LocalScheduler, made: list[Made]) -> list[str]:
    """Return the argv of a process in which ``scheduler`` and ``made`` (job, directory) are at hand."""
    jobs = [(json.dumps(records.to_dict(one.job)), str(one.directory)) for one in made]
    head = f"""
        import json, os, signal, sys
        from pathlib import Path
        from lossi.jobs.schedulers.local.adapter import LocalScheduler
        from lossi.contract import records
        scheduler = LocalScheduler(Path({str(scheduler.places.root.parent)!r}), ingest_command=(), linger_s=0.2)
        made = [(records.from_dict(records.PreparedJob, json.loads(text)), Path(folder)) for text, folder in {jobs!r}]
    """
    return [sys.executable, "-c", textwrap.dedent(head) + textwrap.dedent(code)]


# -- death of the supervisor -------------------------------------------------------------------------------------------


def test_tasks_survive_the_supervisor_and_are_adopted(scheduler: LocalScheduler, job_factory: JobFactory) -> None:
    made = job_factory(f"echo $LOSSI_TASK >> began\n{WAIT_FOR_GO}echo $LOSSI_TASK >> ran\n{ACCOUNT}", tasks=6)
    submit(scheduler, made)
    until(lambda: made.read("began").count("\n") == 2)
    kill_supervisor(scheduler)
    running = marked_processes()[made.job.id]
    assert running
    seen = view(scheduler, made)
    assert [seen.tasks[n].state for n in (0, 1)] == [RUNNING, RUNNING]
    supervisor(scheduler)
    (made.directory / "go").touch()
    assert until_over(scheduler, made).state == SUCCEEDED
    assert sorted(made.read("ran").split()) == sorted(made.read("began").split()) == list("012345")


def test_adopted_tasks_take_up_their_slots(scheduler: LocalScheduler, job_factory: JobFactory) -> None:
    made = job_factory(f"echo up >> up\n{WAIT_FOR_GO}{ACCOUNT}", tasks=2)
    later = job_factory("echo ran > ran")
    submit(scheduler, made)
    until(lambda: made.read("up").count("\n") == 2)
    kill_supervisor(scheduler)
    submit(scheduler, later)
    supervisor(scheduler)
    assert view(scheduler, later).state == QUEUED
    (made.directory / "go").touch()
    until_over(scheduler, later)
    until_over(scheduler, made)


def test_limits_and_stops_reach_adopted_tasks(scheduler: LocalScheduler, job_factory: JobFactory) -> None:
    slow = job_factory("echo up > up; trap '' TERM; while :; do sleep 0.02; done", time_limit_s=2)
    stopped = job_factory("echo up > up; (setsid sleep 600 &); sleep 600")
    for made in (slow, stopped):
        submit(scheduler, made)
        until(lambda made=made: made.read("up"))
    kill_supervisor(scheduler)
    scheduler.cancel(stopped.handle, None)
    ended = until_over(scheduler, stopped)
    assert ended.state == CANCELLED and ended.tasks[0].reason.startswith("cancelled by ")
    ended = until_over(scheduler, slow)
    assert (ended.state, ended.tasks[0].reason) == (TIMED_OUT, "reached its time limit of 2 s")
    until(lambda: not {slow.job.id, stopped.job.id} & marked_processes().keys(), "no process is left")


def test_stop_that_the_supervisor_did_not_live_to_finish_is_finished(scheduler: LocalScheduler, job_factory: JobFactory) -> None:
    made = job_factory("trap 'echo told > told' TERM; echo up > up; while :; do sleep 0.02; done")
    submit(scheduler, made)
    until(lambda: made.read("up"))
    scheduler.cancel(made.handle, None)
    until(lambda: made.read("told"))
    kill_supervisor(scheduler)
    ended = until_over(scheduler, made)
    assert ended.state == CANCELLED and ended.tasks[0].reason.startswith("cancelled by ")


def test_no_task_is_lost_or_run_twice_however_often_the_supervisor_is_killed(
    scheduler: LocalScheduler, job_factory: JobFactory
) -> None:
    made = job_factory(f"echo $LOSSI_TASK >> ran\n{ACCOUNT}", tasks=60)
    submit(scheduler, made)

    def ran() -> int:
        view(scheduler, made)
        return made.read("ran").count("\n")

    for number in range(8):
        until(lambda number=number: ran() >= 6 * number, "it goes on")
        for pid in supervisors(scheduler):
            os.kill(pid, signal.SIGKILL)
    assert until_over(scheduler, made).state == SUCCEEDED
    assert sorted(map(int, made.read("ran").split())) == list(range(60))


def test_sigterm_ends_the_supervisor_but_no_task(scheduler: LocalScheduler, job_factory: JobFactory) -> None:
    made = job_factory(f"echo up > up\n{WAIT_FOR_GO}{ACCOUNT}")
    submit(scheduler, made)
    until(lambda: made.read("up"))
    kill_supervisor(scheduler, signal.SIGTERM)
    (made.directory / "go").touch()
    assert until_over(scheduler, made).state == SUCCEEDED


def test_task_that_ends_while_there_is_no_supervisor_is_told_truly(scheduler: LocalScheduler, job_factory: JobFactory) -> None:
    with_account = job_factory(f"echo up > up\n{WAIT_FOR_GO}{ACCOUNT}")
    without = job_factory(f"echo up > up\n{WAIT_FOR_GO}")
    for made in (with_account, without):
        submit(scheduler, made)
        until(lambda made=made: made.read("up"))
    kill_supervisor(scheduler)
    for made in (with_account, without):
        (made.directory / "go").touch()
    until(lambda: not {with_account.job.id, without.job.id} & marked_processes().keys())
    seen = scheduler.poll([with_account.handle, without.handle])  # one look is enough
    assert seen[with_account.job.id].tasks[0].state == SUCCEEDED
    lost = seen[without.job.id].tasks[0]
    assert lost.state == FAILED and "without a trace" in lost.reason
    account = records.load(records.TaskExit, without.directory / "tasks/0/exit.json")
    assert (account.state, account.reason, account.written_by) == (FAILED, lost.reason, "scheduler")


def test_leftovers_of_a_task_that_ended_without_a_supervisor_are_ended(
    scheduler: LocalScheduler, job_factory: JobFactory
) -> None:
    made = job_factory(f"(setsid sleep 600 &) ; echo up > up\n{WAIT_FOR_GO}{ACCOUNT}")
    submit(scheduler, made)
    until(lambda: made.read("up"))
    kill_supervisor(scheduler)
    (made.directory / "go").touch()
    until(lambda: (made.directory / "tasks/0/exit.json").exists())
    assert until_over(scheduler, made).state == SUCCEEDED
    until(lambda: made.job.id not in marked_processes())


def test_task_whose_start_was_on_record_but_that_never_ran_runs(
    scheduler: LocalScheduler, job_factory: JobFactory, boot_id_file: Path
) -> None:
    made = job_factory("echo ran >> ran")
    boot_id = boot_id_file.read_text().strip()
    dead = subprocess.Popen(["true"])
    dead.wait()
    book = Journal(made.directory / journal.NAME, scheduler.host)
    book.queued(1, scheduler.places.root)
    book.started(0, Started(dead.pid, 1, boot_id, 0.0, scheduler.host, journal.now()))
    assert book.flush(durable=True)
    book.close()
    (made.directory / "tasks/0").mkdir(parents=True)
    submit(scheduler, made)
    assert until_over(scheduler, made).state == SUCCEEDED
    assert made.read("ran") == "ran\n"


def test_line_that_a_crash_cut_off_is_passed_over(scheduler: LocalScheduler, job_factory: JobFactory) -> None:
    made = job_factory("exit 3")
    (made.directory / journal.NAME).write_text('{"event":"queued","tasks":1,"host":"x","time":"t"}\n{"event":"star')
    submit(scheduler, made)
    assert until_over(scheduler, made).tasks[0].exit_code == 3


# -- restart of the machine --------------------------------------------------------------------------------------------


def restart(scheduler: LocalScheduler, made: list[Made], boot_id_file: Path) -> None:
    """Do what a restart does: nothing of before lives, and the boot id is another."""
    kill_supervisor(scheduler)

    def gone() -> bool:
        living = marked_processes()
        pids = [pid for one in made for pid in living.get(one.job.id, [])]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not pids

    until(gone)
    boot_id_file.write_text("00000000-0000-0000-0000-000000000002\n")


def test_restart_in_the_middle_is_told_truly_and_the_rest_runs(
    scheduler: LocalScheduler, job_factory: JobFactory, boot_id_file: Path
) -> None:
    made = job_factory(f"echo $LOSSI_TASK >> began\n{WAIT_FOR_GO}{ACCOUNT}", tasks=4)
    submit(scheduler, made)
    until(lambda: made.read("began").count("\n") == 2)
    restart(scheduler, [made], boot_id_file)
    (made.directory / "go").touch()
    seen = view(scheduler, made)  # the first look after the restart
    for number in (0, 1):
        assert seen.tasks[number].state == NODE_FAILED
        assert seen.tasks[number].reason == "the machine was restarted while the task ran"
    seen = until_over(scheduler, made)
    assert [seen.tasks[n].state for n in range(4)] == [NODE_FAILED, NODE_FAILED, SUCCEEDED, SUCCEEDED]
    assert sorted(made.read("began").split()) == list("0123")
    account = records.load(records.TaskExit, made.directory / "tasks/0/exit.json")
    assert (account.state, account.written_by) == (NODE_FAILED, "scheduler")


def test_task_that_ended_just_before_a_restart_keeps_its_end(
    scheduler: LocalScheduler, job_factory: JobFactory, boot_id_file: Path
) -> None:
    made = job_factory(f"{ACCOUNT}echo up > up; sleep 600")
    submit(scheduler, made)
    until(lambda: made.read("up"))
    restart(scheduler, [made], boot_id_file)
    assert view(scheduler, made).tasks[0].state == SUCCEEDED


def test_process_number_of_before_the_restart_is_never_touched(
    scheduler: LocalScheduler, job_factory: JobFactory, boot_id_file: Path
) -> None:
    made = job_factory("echo up > up; sleep 600")
    submit(scheduler, made)
    until(lambda: made.read("up"))
    kill_supervisor(scheduler)
    # The process lives on, as another one with the same number and even the same start time would.
    pids = marked_processes()[made.job.id]
    boot_id_file.write_text("00000000-0000-0000-0000-000000000002\n")
    scheduler.cancel(made.handle, None)
    assert until_over(scheduler, made).tasks[0].state == NODE_FAILED
    end_everything(scheduler)
    assert all(lives(str(pid)) for pid in pids)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    until(lambda: made.job.id not in marked_processes())


def test_waiting_jobs_go_on_after_a_restart(scheduler: LocalScheduler, job_factory: JobFactory, boot_id_file: Path) -> None:
    first = job_factory(f"echo up > up\n{WAIT_FOR_GO}", cpus=2)
    second = job_factory("echo ran >> ran", tasks=2)
    submit(scheduler, first)
    submit(scheduler, second)
    until(lambda: first.read("up"))
    restart(scheduler, [first], boot_id_file)
    scheduler.poll([])
    assert until_over(scheduler, second).state == SUCCEEDED
    assert second.read("ran") == "ran\nran\n"


# -- submitters --------------------------------------------------------------------------------------------------------


def test_submitters_at_once_share_one_supervisor(scheduler: LocalScheduler, job_factory: JobFactory) -> None:
    made = [job_factory("echo ran >> ran; sleep 0.02") for _ in range(24)]
    code = """
        sys.stdin.read(1)
        for job, folder in made:
            scheduler.submit(job, folder)
    """
    starters = [subprocess.Popen(child(code, scheduler, made[n::4]), stdin=subprocess.PIPE) for n in range(4)]
    for starter in starters:
        assert starter.stdin is not None
        starter.stdin.close()
    for starter in starters:
        assert starter.wait(300) == 0
    for one in made:
        assert until_over(scheduler, one).state == SUCCEEDED
        assert one.read("ran") == "ran\n"
    assert len(supervisors(scheduler)) <= 1


def test_submission_while_the_supervisor_is_ending_is_not_lost(surroundings: Path, boot_id_file: Path) -> None:
    scheduler = LocalScheduler(boot_id_file=boot_id_file, ingest_command=(), linger_s=0.0)
    factory = JobFactory(surroundings / "jobs", scheduler)
    chance = random.Random(1)
    lifetimes: set[int] = set()
    made = factory("echo up > up; until [ -e go ]; do :; done")
    submit(scheduler, made)
    rounds = 0
    # Until both happened: it was found by the supervisor that was ending, and it started another.
    while rounds < 100 or not 5 < len(lifetimes) < rounds:
        rounds += 1
        assert rounds < 1000, f"{len(lifetimes)} supervisors"
        # Nobody polls, so that nobody but the two in question can start a supervisor.
        until(lambda made=made: made.read("up"), "the job was started")
        lifetimes.update(supervisors(scheduler))
        following = factory("echo up > up; until [ -e go ]; do :; done")
        (made.directory / "go").touch()
        # The supervisor has some milliseconds of life left; more on a busy machine.
        end = time.perf_counter() + chance.uniform(0.0, 0.008 * (1 + rounds // 100))
        while time.perf_counter() < end:
            pass
        submit(scheduler, following)
        made = following
    (made.directory / "go").touch()
    end_everything(scheduler)


def test_job_outlives_a_submitter_that_is_killed(scheduler: LocalScheduler, job_factory: JobFactory) -> None:
    made = job_factory("echo ran > ran")
    code = """
        scheduler.submit(*made[0])
        os.kill(os.getpid(), signal.SIGKILL)
    """
    assert subprocess.run(child(code, scheduler, [made]), check=False).returncode == -signal.SIGKILL
    until(lambda: made.read("ran"), "the job ran")


def test_submitter_killed_between_entry_and_start_loses_nothing(scheduler: LocalScheduler, job_factory: JobFactory) -> None:
    made = job_factory("echo ran > ran")
    code = """
        from lossi.jobs.schedulers.local import launch
        launch._start = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        scheduler.submit(*made[0])
    """
    assert subprocess.run(child(code, scheduler, [made]), check=False).returncode == -signal.SIGKILL
    assert scheduler.find(made.job.id) is not None
    assert view(scheduler, made).state == QUEUED
    assert until_over(scheduler, made).state == SUCCEEDED


def test_job_outlives_the_terminal(scheduler: LocalScheduler, job_factory: JobFactory) -> None:
    made = job_factory(f"echo up > up\n{WAIT_FOR_GO}echo ran > ran")
    code = """
        scheduler.submit(*made[0])
        signal.pause()
    """
    pid, terminal = pty.fork()
    if pid == 0:
        argv = child(code, scheduler, [made])
        os.execv(argv[0], argv)
    until(lambda: made.read("up"))
    os.close(terminal)  # the kernel sends SIGHUP to the session
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGHUP
    (made.directory / "go").touch()
    until(lambda: made.read("ran"), "the job went on")
    assert until_over(scheduler, made).state == SUCCEEDED


def test_blocked_and_ignored_signals_of_the_submitter_are_not_inherited(
    scheduler: LocalScheduler, job_factory: JobFactory
) -> None:
    made = job_factory("exec grep -E 'Sig(Blk|Ign)' /proc/self/status")
    code = """
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGCHLD])
        scheduler.submit(*made[0])
    """
    subprocess.run(child(code, scheduler, [made]), check=True)
    assert until_over(scheduler, made).state == SUCCEEDED
    known = sum(1 << (number - 1) for number in signal.valid_signals())  # two are the C library's own
    assert [int(line.split()[1], 16) & known for line in made.log().splitlines()] == [0, 0]


# -- the supervisor itself ---------------------------------------------------------------------------------------------


def test_supervisor_is_detached_light_and_alone(
    scheduler: LocalScheduler, job_factory: JobFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_KEY_BASE", "secret")
    made = job_factory(f"echo up > up\n{WAIT_FOR_GO}")
    submit(scheduler, made)
    until(lambda: made.read("up"))
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
    (made.directory / "go").touch()
    until_over(scheduler, made)
    until(lambda: not supervisors(scheduler), "it ends with its queue")
    assert scheduler.places.log.read_text() == ""


def test_supervisor_costs_nothing_while_tasks_run(scheduler: LocalScheduler, job_factory: JobFactory) -> None:
    made = job_factory(f"echo up > up\n{WAIT_FOR_GO}", memory_mb=100)
    submit(scheduler, made)
    until(lambda: made.read("up"))
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
    (made.directory / "go").touch()
    until_over(scheduler, made)


def test_waiting_jobs_hold_no_files_open(scheduler: LocalScheduler, job_factory: JobFactory) -> None:
    first = job_factory(f"echo up > up\n{WAIT_FOR_GO}", cpus=2)
    rest = [job_factory("true") for _ in range(40)]
    for made in (first, *rest):
        submit(scheduler, made)
    until(lambda: all((made.directory / journal.NAME).exists() for made in rest), "all were taken up")
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
    made = job_factory(f"echo up >> up\n{WAIT_FOR_GO}{ACCOUNT}", tasks=3)
    submit(scheduler, made)
    until(lambda: made.read("up").count("\n") == 2)
    kill_supervisor(scheduler)
    _remove(scheduler.places.root)
    seen = view(scheduler, made)
    assert [seen.tasks[n].state for n in range(3)] == [RUNNING, RUNNING, FAILED]
    assert "resubmit" in seen.tasks[2].reason
    (made.directory / "go").touch()
    until(lambda: made.job.id not in marked_processes())
    seen = view(scheduler, made)
    assert [seen.tasks[n].state for n in range(3)] == [SUCCEEDED, SUCCEEDED, FAILED]


def test_job_is_known_and_stopped_from_an_environment_with_another_state_folder(
    scheduler: LocalScheduler, job_factory: JobFactory, tmp_path: Path, boot_id_file: Path
) -> None:
    made = job_factory("echo up >> up; sleep 600", tasks=3)
    submit(scheduler, made)
    until(lambda: made.read("up").count("\n") == 2)
    other = LocalScheduler(tmp_path / "other", boot_id_file=boot_id_file, ingest_command=(), linger_s=0.05)
    seen = view(other, made)
    assert seen.state == RUNNING and seen.tasks.keys() == {0, 1}
    kill_supervisor(scheduler)
    assert view(other, made).tasks.keys() == {0, 1}
    other.cancel(made.handle, None)
    assert until_over(other, made).state == CANCELLED
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


# -- taking in results ---------------------------------------------------------------------------------------------------


def test_results_are_taken_in_one_at_a_time_seldom_and_after_the_last_task(surroundings: Path, boot_id_file: Path) -> None:
    book = surroundings / "taken in"
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
    made = factory("sleep 0.02", tasks=20)
    submit(scheduler, made)
    assert until_over(scheduler, made).state == SUCCEEDED
    end_everything(scheduler)
    lines = book.read_text().splitlines()
    assert all(line.startswith("begin ") and line.endswith(f" 10 {factory.root}") for line in lines)
    assert len(lines) in (2, 3)
    assert lines[-1].split()[1] == "20"
    assert "ingest ended with status 1" in scheduler.places.log.read_text()


def _remove(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()

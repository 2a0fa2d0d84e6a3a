"""Tasks survive the death of their supervisor; after a restart of the machine, their state is reported as it is."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path

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
from scheduler_jobs import JobFactory, Prepared, lives

from lossi.contract import records
from lossi.contract.states import CANCELLED, FAILED, NODE_FAILED, QUEUED, RUNNING, SUCCEEDED, TIMED_OUT
from lossi.jobs.schedulers.local import journal
from lossi.jobs.schedulers.local.adapter import LocalScheduler
from lossi.jobs.schedulers.local.journal import Journal, Started


def test_tasks_survive_the_supervisor_and_are_adopted(scheduler: LocalScheduler, job_factory: JobFactory) -> None:
    prepared = job_factory(f"echo $LOSSI_TASK >> began\n{WAIT_FOR_GO}echo $LOSSI_TASK >> ran\n{ACCOUNT}", tasks=6)
    submit(scheduler, prepared)
    until(lambda: prepared.read("began").count("\n") == 2)
    kill_supervisor(scheduler)
    running = marked_processes()[prepared.job.id]
    assert running
    current = view(scheduler, prepared)
    assert [current.tasks[n].state for n in (0, 1)] == [RUNNING, RUNNING]
    supervisor(scheduler)
    (prepared.directory / "go").touch()
    assert until_over(scheduler, prepared).state == SUCCEEDED
    assert sorted(prepared.read("ran").split()) == sorted(prepared.read("began").split()) == list("012345")


def test_adopted_tasks_take_up_their_slots(scheduler: LocalScheduler, job_factory: JobFactory) -> None:
    prepared = job_factory(f"echo up >> up\n{WAIT_FOR_GO}{ACCOUNT}", tasks=2)
    later = job_factory("echo ran > ran")
    submit(scheduler, prepared)
    until(lambda: prepared.read("up").count("\n") == 2)
    kill_supervisor(scheduler)
    submit(scheduler, later)
    supervisor(scheduler)
    assert view(scheduler, later).state == QUEUED
    (prepared.directory / "go").touch()
    until_over(scheduler, later)
    until_over(scheduler, prepared)


def test_limits_and_stops_reach_adopted_tasks(scheduler: LocalScheduler, job_factory: JobFactory) -> None:
    slow = job_factory("echo up > up; trap '' TERM; while :; do sleep 0.02; done", time_limit_s=2)
    stopped = job_factory("echo up > up; (setsid sleep 600 &); sleep 600")
    for prepared in (slow, stopped):
        submit(scheduler, prepared)
        until(lambda prepared=prepared: prepared.read("up"))
    kill_supervisor(scheduler)
    scheduler.cancel(stopped.handle, None)
    ended = until_over(scheduler, stopped)
    assert ended.state == CANCELLED and ended.tasks[0].reason.startswith("cancelled by ")
    ended = until_over(scheduler, slow)
    assert (ended.state, ended.tasks[0].reason) == (TIMED_OUT, "reached its time limit of 2 s")
    until(lambda: not {slow.job.id, stopped.job.id} & marked_processes().keys(), "no process is left")


def test_stop_that_the_supervisor_did_not_live_to_finish_is_finished(scheduler: LocalScheduler, job_factory: JobFactory) -> None:
    prepared = job_factory("trap 'echo told > told' TERM; echo up > up; while :; do sleep 0.02; done")
    submit(scheduler, prepared)
    until(lambda: prepared.read("up"))
    scheduler.cancel(prepared.handle, None)
    until(lambda: prepared.read("told"))
    kill_supervisor(scheduler)
    ended = until_over(scheduler, prepared)
    assert ended.state == CANCELLED and ended.tasks[0].reason.startswith("cancelled by ")


def test_no_task_is_lost_or_run_twice_however_often_the_supervisor_is_killed(
    scheduler: LocalScheduler, job_factory: JobFactory
) -> None:
    prepared = job_factory(f"echo $LOSSI_TASK >> ran\n{ACCOUNT}", tasks=60)
    submit(scheduler, prepared)

    def ran() -> int:
        view(scheduler, prepared)
        return prepared.read("ran").count("\n")

    for number in range(8):
        until(lambda number=number: ran() >= 6 * number, "it goes on")
        for pid in supervisors(scheduler):
            with contextlib.suppress(ProcessLookupError):  # it may end by itself just now
                os.kill(pid, signal.SIGKILL)
    ended = until_over(scheduler, prepared)
    assert (ended.state, ended.reason) == (SUCCEEDED, "")
    assert sorted(map(int, prepared.read("ran").split())) == list(range(60))


def test_sigterm_ends_the_supervisor_but_no_task(scheduler: LocalScheduler, job_factory: JobFactory) -> None:
    prepared = job_factory(f"echo up > up\n{WAIT_FOR_GO}{ACCOUNT}")
    submit(scheduler, prepared)
    until(lambda: prepared.read("up"))
    kill_supervisor(scheduler, signal.SIGTERM)
    (prepared.directory / "go").touch()
    assert until_over(scheduler, prepared).state == SUCCEEDED


def test_task_that_ends_while_there_is_no_supervisor_is_told_truly(scheduler: LocalScheduler, job_factory: JobFactory) -> None:
    with_account = job_factory(f"echo up > up\n{WAIT_FOR_GO}{ACCOUNT}")
    without = job_factory(f"echo up > up\n{WAIT_FOR_GO}")
    for prepared in (with_account, without):
        submit(scheduler, prepared)
        until(lambda prepared=prepared: prepared.read("up"))
    kill_supervisor(scheduler)
    for prepared in (with_account, without):
        (prepared.directory / "go").touch()
    until(lambda: not {with_account.job.id, without.job.id} & marked_processes().keys())
    views = scheduler.poll([with_account.handle, without.handle])  # one look is enough
    assert views[with_account.job.id].tasks[0].state == SUCCEEDED
    lost = views[without.job.id].tasks[0]
    assert lost.state == FAILED and "no exit record" in lost.reason
    account = records.load(records.TaskExit, without.directory / "tasks/0/exit.json")
    assert (account.state, account.reason, account.written_by) == (FAILED, lost.reason, "scheduler")


def test_leftovers_of_a_task_that_ended_without_a_supervisor_are_ended(
    scheduler: LocalScheduler, job_factory: JobFactory
) -> None:
    prepared = job_factory(f"(setsid sleep 600 &) ; echo up > up\n{WAIT_FOR_GO}{ACCOUNT}")
    submit(scheduler, prepared)
    until(lambda: prepared.read("up"))
    kill_supervisor(scheduler)
    (prepared.directory / "go").touch()
    until(lambda: (prepared.directory / "tasks/0/exit.json").exists())
    assert until_over(scheduler, prepared).state == SUCCEEDED
    until(lambda: prepared.job.id not in marked_processes())


def test_task_whose_start_was_on_record_but_that_never_ran_runs(
    scheduler: LocalScheduler, job_factory: JobFactory, boot_id_file: Path
) -> None:
    prepared = job_factory("echo ran >> ran")
    boot_id = boot_id_file.read_text().strip()
    dead = subprocess.Popen(["true"])
    dead.wait()
    book = Journal(prepared.directory / journal.NAME, scheduler.host)
    book.queued(1, scheduler.places.root)
    book.started(0, Started(dead.pid, 1, boot_id, 0.0, scheduler.host, journal.now()))
    assert book.flush(durable=True)
    book.close()
    (prepared.directory / "tasks/0").mkdir(parents=True)
    submit(scheduler, prepared)
    assert until_over(scheduler, prepared).state == SUCCEEDED
    assert prepared.read("ran") == "ran\n"


def test_line_that_a_crash_cut_off_is_passed_over(scheduler: LocalScheduler, job_factory: JobFactory) -> None:
    prepared = job_factory("exit 3")
    (prepared.directory / journal.NAME).write_text('{"event":"queued","tasks":1,"host":"x","time":"t"}\n{"event":"star')
    submit(scheduler, prepared)
    assert until_over(scheduler, prepared).tasks[0].exit_code == 3


def restart(scheduler: LocalScheduler, prepared: list[Prepared], boot_id_file: Path) -> None:
    """Do what a restart does: nothing of before lives, and the boot id is another."""
    kill_supervisor(scheduler)

    def gone() -> bool:
        living = marked_processes()
        pids = [pid for job in prepared for pid in living.get(job.job.id, [])]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not pids

    until(gone)
    boot_id_file.write_text("00000000-0000-0000-0000-000000000002\n")


def test_restart_in_the_middle_is_told_truly_and_the_rest_runs(
    scheduler: LocalScheduler, job_factory: JobFactory, boot_id_file: Path
) -> None:
    prepared = job_factory(f"echo $LOSSI_TASK >> began\n{WAIT_FOR_GO}{ACCOUNT}", tasks=4)
    submit(scheduler, prepared)
    until(lambda: prepared.read("began").count("\n") == 2)
    restart(scheduler, [prepared], boot_id_file)
    (prepared.directory / "go").touch()
    current = view(scheduler, prepared)  # the first look after the restart
    for number in (0, 1):
        assert current.tasks[number].state == NODE_FAILED
        assert current.tasks[number].reason == "the machine restarted while the task ran"
    current = until_over(scheduler, prepared)
    assert [current.tasks[n].state for n in range(4)] == [NODE_FAILED, NODE_FAILED, SUCCEEDED, SUCCEEDED]
    assert sorted(prepared.read("began").split()) == list("0123")
    account = records.load(records.TaskExit, prepared.directory / "tasks/0/exit.json")
    assert (account.state, account.written_by) == (NODE_FAILED, "scheduler")


def test_task_that_ended_just_before_a_restart_keeps_its_end(
    scheduler: LocalScheduler, job_factory: JobFactory, boot_id_file: Path
) -> None:
    prepared = job_factory(f"{ACCOUNT}echo up > up; sleep 600")
    submit(scheduler, prepared)
    until(lambda: prepared.read("up"))
    restart(scheduler, [prepared], boot_id_file)
    assert view(scheduler, prepared).tasks[0].state == SUCCEEDED


def test_process_number_of_before_the_restart_is_never_touched(
    scheduler: LocalScheduler, job_factory: JobFactory, boot_id_file: Path
) -> None:
    prepared = job_factory("echo up > up; sleep 600")
    submit(scheduler, prepared)
    until(lambda: prepared.read("up"))
    kill_supervisor(scheduler)
    # The process lives on, as another one with the same number and even the same start time would.
    pids = marked_processes()[prepared.job.id]
    boot_id_file.write_text("00000000-0000-0000-0000-000000000002\n")
    scheduler.cancel(prepared.handle, None)
    assert until_over(scheduler, prepared).tasks[0].state == NODE_FAILED
    end_everything(scheduler)
    assert all(lives(str(pid)) for pid in pids)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    until(lambda: prepared.job.id not in marked_processes())


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

"""Submitters of local jobs: several at once, killed ones, and what jobs inherit from them."""

from __future__ import annotations

import os
import pty
import random
import signal
import subprocess
import time
from pathlib import Path

from local_support import (
    WAIT_FOR_GO,
    child,
    end_everything,
    submit,
    supervisors,
    until,
    until_over,
    view,
)
from scheduler_jobs import JobFactory

from lossi.contract.states import QUEUED, SUCCEEDED
from lossi.jobs.schedulers.local.adapter import LocalScheduler


def test_submitters_at_once_share_one_supervisor(scheduler: LocalScheduler, job_factory: JobFactory) -> None:
    prepared = [job_factory("echo ran >> ran; sleep 0.02") for _ in range(24)]
    code = """
        sys.stdin.read(1)
        for job, folder in jobs:
            scheduler.submit(job, folder)
    """
    starters = [subprocess.Popen(child(code, scheduler, prepared[n::4]), stdin=subprocess.PIPE) for n in range(4)]
    for starter in starters:
        assert starter.stdin is not None
        starter.stdin.close()
    for starter in starters:
        assert starter.wait(300) == 0
    for job in prepared:
        assert until_over(scheduler, job).state == SUCCEEDED
        assert job.read("ran") == "ran\n"
    assert len(supervisors(scheduler)) <= 1


def test_submission_while_the_supervisor_is_ending_is_not_lost(surroundings: Path, boot_id_file: Path) -> None:
    scheduler = LocalScheduler(boot_id_file=boot_id_file, ingest_command=(), linger_s=0.0)
    factory = JobFactory(surroundings / "jobs", scheduler)
    chance = random.Random(1)
    lifetimes: set[int] = set()
    prepared = factory("echo up > up; until [ -e go ]; do :; done")
    submit(scheduler, prepared)
    rounds = 0
    # Until both happened: it was found by the supervisor that was ending, and it started another.
    while rounds < 100 or not 5 < len(lifetimes) < rounds:
        rounds += 1
        assert rounds < 1000, f"{len(lifetimes)} supervisors"
        # Nobody polls, so that nobody but the two in question can start a supervisor.
        until(lambda prepared=prepared: prepared.read("up"), "the job was started")
        lifetimes.update(supervisors(scheduler))
        following = factory("echo up > up; until [ -e go ]; do :; done")
        (prepared.directory / "go").touch()
        # The supervisor has some milliseconds of life left; more on a busy machine.
        end = time.perf_counter() + chance.uniform(0.0, 0.008 * (1 + rounds // 100))
        while time.perf_counter() < end:
            pass
        submit(scheduler, following)
        prepared = following
    (prepared.directory / "go").touch()
    end_everything(scheduler)


def test_job_outlives_a_submitter_that_is_killed(scheduler: LocalScheduler, job_factory: JobFactory) -> None:
    prepared = job_factory("echo ran > ran")
    code = """
        scheduler.submit(*jobs[0])
        os.kill(os.getpid(), signal.SIGKILL)
    """
    assert subprocess.run(child(code, scheduler, [prepared]), check=False).returncode == -signal.SIGKILL
    until(lambda: prepared.read("ran"), "the job ran")


def test_submitter_killed_between_entry_and_start_loses_nothing(scheduler: LocalScheduler, job_factory: JobFactory) -> None:
    prepared = job_factory("echo ran > ran")
    code = """
        from lossi.jobs.schedulers.local import launch
        launch._start = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        scheduler.submit(*jobs[0])
    """
    assert subprocess.run(child(code, scheduler, [prepared]), check=False).returncode == -signal.SIGKILL
    assert scheduler.find(prepared.job.id) is not None
    assert view(scheduler, prepared).state == QUEUED
    assert until_over(scheduler, prepared).state == SUCCEEDED


def test_job_outlives_the_terminal(scheduler: LocalScheduler, job_factory: JobFactory) -> None:
    prepared = job_factory(f"echo up > up\n{WAIT_FOR_GO}echo ran > ran")
    code = """
        scheduler.submit(*jobs[0])
        signal.pause()
    """
    pid, terminal = pty.fork()
    if pid == 0:
        argv = child(code, scheduler, [prepared])
        os.execv(argv[0], argv)
    until(lambda: prepared.read("up"))
    os.close(terminal)  # the kernel sends SIGHUP to the session
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGHUP
    (prepared.directory / "go").touch()
    until(lambda: prepared.read("ran"), "the job went on")
    assert until_over(scheduler, prepared).state == SUCCEEDED


def test_blocked_and_ignored_signals_of_the_submitter_are_not_inherited(
    scheduler: LocalScheduler, job_factory: JobFactory
) -> None:
    prepared = job_factory("exec grep -E 'Sig(Blk|Ign)' /proc/self/status")
    code = """
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGCHLD])
        scheduler.submit(*jobs[0])
    """
    subprocess.run(child(code, scheduler, [prepared]), check=True)
    assert until_over(scheduler, prepared).state == SUCCEEDED
    known = sum(1 << (number - 1) for number in signal.valid_signals())  # two are the C library's own
    assert [int(line.split()[1], 16) & known for line in prepared.log().splitlines()] == [0, 0]

"""However the runner ends, script.sh leaves an exit record and tells the scheduler."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from script_runs import LEAVES_RECORD, exit_record, make, names, run, wait_for

from lossi.contract import records


def test_files_of_an_earlier_attempt_are_removed(directory: Path, shell: str) -> None:
    folder = directory / "tasks/0"
    folder.mkdir(parents=True)
    for name in ("exit.json", "ending.json", "progress.json"):
        (folder / name).write_text("{}")
    program = "import os; print(sorted(os.listdir('tasks/0')), flush=True)\n" + LEAVES_RECORD
    run(shell, make(directory, program), SLURM_RESTART_COUNT="1")
    assert "['log']" in (folder / "log").read_text()


def test_ending_of_a_first_attempt_is_kept(directory: Path, shell: str) -> None:
    folder = directory / "tasks/0"
    folder.mkdir(parents=True)
    (folder / "ending.json").write_text("{}")
    run(shell, make(directory, LEAVES_RECORD))
    assert (folder / "ending.json").exists()


def test_files_are_readable_by_the_group_and_nobody_else(directory: Path, shell: str) -> None:
    run(shell, make(directory, LEAVES_RECORD))
    assert (directory / "tasks/0").stat().st_mode & 0o777 == 0o750
    assert (directory / "tasks/0/log").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("number", ["3", "-1", "01", "x", "1; touch evil", "$(touch evil)", "99999999999999999999999"])
def test_invalid_task_number_is_refused(directory: Path, shell: str, number: str) -> None:
    done = run(shell, make(directory, LEAVES_RECORD), LOSSI_TASK=number)
    assert done.returncode == 2
    assert "task" in done.stderr
    assert names(directory) == ["script.sh"]


def test_a_job_directory_that_was_removed_is_not_made_again(directory: Path, shell: str, tmp_path: Path) -> None:
    path = make(directory, LEAVES_RECORD)
    elsewhere = path.rename(tmp_path / "spooled.sh")
    directory.rmdir()
    done = run(shell, elsewhere)
    assert done.returncode == 1
    assert "was it removed?" in done.stderr
    assert not directory.exists()


@pytest.mark.parametrize(
    ("program", "code", "expected"),
    [
        ("raise SystemExit(7)", 7, ("failed", 7, None, "exit code 7")),
        ("import os; os.kill(os.getpid(), 9)", 137, ("failed", 137, 9, "killed by signal 9")),
        ("pass", 1, ("failed", 1, None, "without an exit record")),
    ],
)
def test_runner_without_exit_record_gets_one(
    directory: Path, shell: str, program: str, code: int, expected: tuple[str, int, int | None, str]
) -> None:
    done = run(shell, make(directory, program))
    left = exit_record(directory)
    assert done.returncode == code
    assert (left.state, left.exit_code, left.signal) == expected[:3]
    assert expected[3] in left.reason
    assert (left.written_by, left.task, left.attempt) == ("script", 0, 1)
    assert left.host
    assert left.started <= left.ended
    assert names(directory / "tasks/0") == ["exit.json", "log"]


def test_environment_that_cannot_start_is_reported(directory: Path, shell: str) -> None:
    done = run(shell, make(directory, "", argv=["/no/such/python", "x"]))
    assert done.returncode == 127
    assert "could not be started" in exit_record(directory).reason
    assert "/no/such/python" in (directory / "tasks/0/log").read_text()


def test_exit_record_of_an_earlier_attempt_is_ignored(directory: Path, shell: str) -> None:
    run(shell, make(directory, LEAVES_RECORD))
    run(shell, make(directory, "raise SystemExit(3)"), SLURM_RESTART_COUNT="1")
    assert (exit_record(directory).exit_code, exit_record(directory).attempt) == (3, 2)


WAITS = """
import json, os, signal, sys, time
def stop(*_):
    time.sleep(0.2)  # saves what it has
    open("stopped", "w").write("x")
    if {leaves}: open("tasks/0/exit.json", "w").write(json.dumps({{"task": 0, "state": "cancelled", "exit_code": 143}}))
    os._exit(143)
signal.signal(signal.SIGTERM, stop)
open("ready", "w").write(str(os.getpid()))
while True: time.sleep(0.05)
"""


@pytest.fixture
def started(directory: Path, shell: str) -> Iterator[subprocess.Popen[bytes]]:
    path = make(directory, WAITS.format(leaves="'KEEP' in os.environ"))
    processes: list[subprocess.Popen[bytes]] = []

    class Start:
        def __call__(self, **environment: str) -> subprocess.Popen[bytes]:
            process = subprocess.Popen(
                [shell, str(path)], env={"PATH": os.environ["PATH"], **environment}, start_new_session=True
            )
            processes.append(process)
            wait_for(directory / "ready")
            return process

    yield Start()  # type: ignore[misc]
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.mark.parametrize(
    ("number", "state"), [(signal.SIGTERM, "cancelled"), (signal.SIGINT, "cancelled"), (signal.SIGUSR1, "timed_out")]
)
def test_signal_stops_the_runner_and_waits_for_it(directory: Path, started, number: signal.Signals, state: str) -> None:  # type: ignore[no-untyped-def]
    process = started()
    process.send_signal(number)
    assert process.wait(300) == 143
    assert (directory / "stopped").exists()
    assert (exit_record(directory).state, exit_record(directory).written_by) == (state, "script")


def test_many_signals_are_one_stop(directory: Path, started) -> None:  # type: ignore[no-untyped-def]
    process = started()
    process.send_signal(signal.SIGUSR1)
    wait_for(directory / "tasks/0/ending.json")
    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
        process.send_signal(number)
    assert process.wait(300) == 143
    assert exit_record(directory).state == "timed_out"


def test_the_runner_can_read_that_the_time_limit_was_near(directory: Path, started) -> None:  # type: ignore[no-untyped-def]
    process = started(KEEP="1")
    process.send_signal(signal.SIGUSR1)
    process.wait(300)
    ending = records.load(records.Ending, directory / "tasks/0/ending.json")
    assert (ending.state, ending.reason) == ("timed_out", "stopped shortly before its time limit")


def test_ending_that_is_written_already_is_kept(directory: Path, started) -> None:  # type: ignore[no-untyped-def]
    process = started(KEEP="1")
    (directory / "tasks/0/ending.json").write_text('{"state": "cancelled"}')
    process.send_signal(signal.SIGUSR1)
    process.wait(300)
    assert records.load(records.Ending, directory / "tasks/0/ending.json").state == "cancelled"


def test_exit_record_of_a_stopped_runner_is_kept(directory: Path, started) -> None:  # type: ignore[no-untyped-def]
    process = started(KEEP="1")
    process.send_signal(signal.SIGTERM)
    assert process.wait(300) == 143
    assert (exit_record(directory).state, exit_record(directory).written_by) == ("cancelled", "runner")


def test_full_disk_leaves_no_partial_exit_record(directory: Path, shell: str) -> None:
    """The size of files is limited to what the log takes, so the exit record cannot be written."""
    path = make(directory, "raise SystemExit(7)")
    done = subprocess.run([shell, "-c", f'ulimit -f 0; exec {shell} "$0"', str(path)], capture_output=True, timeout=300)
    assert done.returncode != 0
    assert not (directory / "tasks/0/exit.json").exists()


@pytest.mark.root
@pytest.mark.parametrize("log", [False, True])
def test_full_filesystem_is_reported_to_the_scheduler(directory: Path, shell: str, log: bool) -> None:
    """The log of the task may be there already, or not be made at all."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    (directory / "tasks").mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k,nr_inodes=3", "tmpfs", str(directory / "tasks")])
    if done.returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        (directory / "tasks/0").mkdir()
        (directory / "tasks/0" / ("log" if log else "filler")).touch()
        process = run(shell, make(directory, "raise SystemExit(0)"))
        assert process.returncode == 1
        assert ("exit.json" if log else "tasks/0/log") in process.stderr
        assert names(directory / "tasks/0") == ["log" if log else "filler"]
    finally:
        subprocess.run(["umount", "-l", str(directory / "tasks")], check=True)


def test_job_folder_that_cannot_be_written_is_reported_to_the_scheduler(directory: Path, shell: str) -> None:
    path = make(directory, LEAVES_RECORD)
    (directory / "tasks").touch()
    done = run(shell, path)
    assert done.returncode == 1
    assert f"cannot make {directory}/tasks/0" in done.stderr

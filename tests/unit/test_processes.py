"""Running programs within limits, and telling a process from another that got its number."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import lossi
from lossi import processes
from lossi.processes import ProcessIdentity

PATH = {"PATH": os.defpath}


def sh(script: str, **options: object) -> processes.Finished:
    return processes.run(["/bin/sh", "-c", script], environment=PATH, **{"limit_s": 30, **options})  # type: ignore[arg-type]


def ends(pid: int) -> bool:
    """Return whether a process has ended, now or soon: a signal takes its time."""
    deadline = time.monotonic() + 30
    while (process := processes.inspect(pid)) is not None and not process.has_ended:
        if time.monotonic() > deadline:
            return False
        os.sched_yield()
    return True


def test_a_program_sees_only_the_environment_that_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    variables = dict(line.split("=", 1) for line in sh("env").stdout.decode().splitlines())
    assert set(variables) - {"PWD", "OLDPWD", "SHLVL", "_"} == {"PATH"}


def test_status_output_and_messages_are_told_apart() -> None:
    done = sh("cat; echo; echo first >&2; echo 'last one' >&2; exit 3", text=b"x" * 300_000)
    assert (done.status, len(done.stdout), done.last_line) == (3, 300_001, "last one")
    assert sh("exit 4").last_line == "exit code 4"
    assert sh("kill -9 $$").status == -9


def test_a_program_that_reads_nothing_and_ends_is_no_error() -> None:
    assert sh("exec 0<&-; echo done", text=b"x" * 300_000).stdout == b"done\n"


def test_what_a_program_leaves_behind_is_ended() -> None:
    done = sh("sleep 1000 >/dev/null 2>&1 & echo $!")
    assert ends(int(done.stdout))


def test_a_program_over_its_time_is_killed_with_all_it_started() -> None:
    with pytest.raises(processes.TimeLimitReached) as late:
        sh("sleep 1000 & echo $!; echo waiting >&2; wait", limit_s=3)
    assert ends(int(late.value.stdout))
    assert late.value.stderr == "waiting\n"


def test_a_program_that_closed_its_output_still_has_a_time_limit() -> None:
    with pytest.raises(processes.TimeLimitReached):
        sh("exec >&- 2>&-; sleep 1000", limit_s=0.2)


def test_output_beyond_the_limit_is_refused_and_of_messages_the_end_is_kept() -> None:
    with pytest.raises(processes.OutputLimitReached):
        sh("exec yes", most_bytes=100_000)
    done = sh("head -c 3000000 /dev/zero >&2; echo the end >&2")
    assert len(done.stderr) == processes.MOST_ERROR_BYTES
    assert done.stderr.endswith("the end\n")


def test_a_program_ends_with_the_block_that_reads_it() -> None:
    argv = ["/bin/sh", "-c", "sleep 1000 & echo $!; wait"]
    with (
        pytest.raises(ZeroDivisionError),
        processes.running(argv, environment=PATH, stdout=subprocess.PIPE) as child,
    ):
        assert child.stdout is not None
        pid = int(child.stdout.readline())
        raise ZeroDivisionError
    assert ends(child.pid)
    assert ends(pid)


def test_what_a_block_does_not_read_does_not_keep_the_program_waiting() -> None:
    with processes.running(["yes"], environment=PATH, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"y\n"
    assert child.returncode < 0


CONFINED = """
import os, resource, signal, sys
from lossi import processes
processes.confine(int(sys.argv[1]), parent_signal=signal.SIGKILL, memory_bytes=2**33, cpu_s=99, file_bytes=2**20)
names = ("AS", "CPU", "CORE", "FSIZE")
print(os.nice(0), *(resource.getrlimit(getattr(resource, "RLIMIT_" + name))[1] for name in names))
"""


def confined(parent: int) -> subprocess.CompletedProcess[str]:
    package = str(Path(lossi.__file__).parents[1])
    argv = [sys.executable, "-c", CONFINED, str(parent)]
    return subprocess.run(argv, env={"PYTHONPATH": package}, capture_output=True, text=True, check=False)


def test_a_confined_process_has_its_limits_and_the_lowest_priority() -> None:
    assert confined(os.getpid()).stdout.split() == ["19", str(2**33), "99", "0", str(2**20)]


def test_a_confined_process_whose_parent_is_gone_ends() -> None:
    done = confined(os.getpid() + 1)
    assert (done.returncode, done.stdout) == (1, "")


def test_an_identity_is_of_one_process_only() -> None:
    mine = ProcessIdentity.current()
    assert not mine.is_gone()
    assert dataclasses.replace(mine, boot="another").is_gone()
    assert dataclasses.replace(mine, started="1").is_gone()
    assert dataclasses.replace(mine, pid=2**22 + 1).is_gone()


def test_a_process_of_another_host_or_container_is_not_known_to_be_gone() -> None:
    mine = dataclasses.replace(ProcessIdentity.current(), started="1")
    assert not dataclasses.replace(mine, host="elsewhere").is_gone()
    assert not dataclasses.replace(mine, namespace="pid:[1]").is_gone()
    assert dataclasses.replace(mine, namespace="").is_gone()


OWN_WAYS = {
    "processes/children.py",
    "cli/environments.py",  # `lossi exec`: a terminal's program, which gets the terminal's signals
    "jobs/schedulers/local/ingest.py",  # the supervisor reaps all its children itself
    "jobs/schedulers/local/task.py",
    "ood/jupyter_node/session.py",  # standard library only, in Python 3.9
}


def test_programs_are_started_in_one_way() -> None:
    root = Path(lossi.__file__).parent
    starts = re.compile(r"subprocess\.(?:run|Popen|call|check_\w+)\(|posix_spawn\(|os\.(?:system|popen)\(")
    own = {str(path.relative_to(root)) for path in root.rglob("*.py") if starts.search(path.read_text("utf-8"))}
    assert {path for path in own if not path.startswith(("runner/", "bundle/"))} == OWN_WAYS

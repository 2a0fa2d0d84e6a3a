"""script.sh: what it says, and what it does in dash and in bash with a real program in the runner's place."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from syrupy.assertion import SnapshotAssertion
from syrupy.extensions.single_file import SingleFileSnapshotExtension, WriteMode

from lossi.errors import InvalidInput
from lossi.jobs import script
from lossi.jobs.script import Header
from lossi.runner import records

JOB_ID = "01aryz6s41tsv4rrffq69g5fav"
SHELLS = ("dash", "bash")

LEAVES_ACCOUNT = """
import json, os, sys
task = sys.argv[sys.argv.index("--task") + 1]
print("argv", sys.argv[1:]); print("PATH" in os.environ, os.environ["HOME"], flush=True)
exit = {"task": int(task), "state": "succeeded", "exit_code": 0}
open(f"tasks/{task}/exit.json", "w").write(json.dumps(exit))
"""


class ScriptFile(SingleFileSnapshotExtension):
    """Golden scripts are scripts, so that an editor and shellcheck read them."""

    _write_mode = WriteMode.TEXT
    file_extension = "sh"


@pytest.fixture
def golden(snapshot: SnapshotAssertion) -> SnapshotAssertion:
    return snapshot.use_extension(ScriptFile)


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    folder = tmp_path / "a project's 100%?" / JOB_ID
    folder.mkdir(parents=True)
    return folder


def make(directory: Path, program: str, *, tasks: int = 3, argv: list[str] | None = None, kind: str = "local") -> Path:
    """Write a script whose runner is a Python program."""
    text = script.render(Header(JOB_ID, directory, tasks, argv or [sys.executable, "-c", program], kind))
    path = directory / records.SCRIPT
    path.write_bytes(script.encoded(text))
    return path


def run(shell: str, path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [shell, str(path)], env={"PATH": os.environ["PATH"], **environment}, capture_output=True, text=True, timeout=60
    )


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def account(directory: Path, task: int = 0) -> records.TaskExit:
    return records.load(records.TaskExit, directory / "tasks" / str(task) / records.EXIT)


# -- what it says -------------------------------------------------------------------------------------------------------


def test_the_script_of_a_local_job(golden: SnapshotAssertion) -> None:
    argv = ["/opt/venv/bin/python", "/work/p/.lossi/jobs/x/runner.pyz", "run", "--job", "/work/p/.lossi/jobs/x"]
    assert script.render(Header(JOB_ID, Path("/work/p/.lossi/jobs/x"), 12, argv)) == golden


def test_the_script_of_a_job_with_directives_variables_and_odd_paths(golden: SnapshotAssertion) -> None:
    place = Path("/scratch/it's $(here) `now`/50% ?/\xe4")
    argv = [
        "apptainer",
        "exec",
        "--bind",
        f"{place}:{place}",
        "/images/a b.sif",
        "python3",
        f"{place}/runner.pyz",
        "run",
        "--job",
        str(place),
    ]
    header = Header(
        JOB_ID,
        place,
        10_000,
        argv,
        "apptainer",
        {"B": "two\nlines", "A": "$HOME; \"'"},
        ["#SBATCH --time=60", "#SBATCH --array=0-9999%50"],
    )
    assert script.render(header) == golden


def test_shellcheck_finds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "script.sh"
    path.write_text(
        script.render(Header(JOB_ID, Path("/a b"), 1, ["python3", "it's"], "apptainer", {"A": "b"}, ["#SBATCH -t 1"]))
    )
    done = subprocess.run([Path(sys.executable).with_name("shellcheck"), "--shell=sh", path], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize(
    "header",
    [
        Header("x; rm -rf /", Path("/j"), 1, ["p"]),
        Header(JOB_ID, Path("/j"), 1, ["p"], "x; rm -rf /"),
        Header(JOB_ID, Path("/j\0"), 1, ["p"]),
        Header(JOB_ID, Path("/j"), 1, ["p\0"]),
        Header(JOB_ID, Path("/j"), 1, ["p"], "local", {"A B": "x"}),
        Header(JOB_ID, Path("/j"), 1, ["p"], "local", {"A": "\0"}),
        Header(JOB_ID, Path("/j"), 1, ["p"], "local", {}, ["#SBATCH -t 1\nrm -rf /"]),
        Header(JOB_ID, Path("/j"), 1, ["p"], "local", {}, ["rm -rf /"]),
        Header(JOB_ID, Path("/j"), 1, ["p"], "local", {}, ["#!/bin/evil"]),
    ],
)
def test_what_cannot_be_written_into_a_script_is_refused(header: Header) -> None:
    with pytest.raises(InvalidInput):
        script.render(header)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30), max_size=4),
    st.sampled_from(SHELLS),
)
def test_any_argument_arrives_byte_for_byte_and_nothing_is_evaluated(
    tmp_path_factory: pytest.TempPathFactory, words: list[str], shell: str
) -> None:
    directory = tmp_path_factory.mktemp("job")
    path = make(
        directory, "", argv=[sys.executable, "-c", "import json, sys; json.dump(sys.argv[1:], open('seen', 'w'))", *words]
    )
    run(shell, path)
    assert json.loads((directory / "seen").read_text()) == [*words, "--task", "0", "--attempt", "1"]


def test_a_path_that_is_not_utf8_arrives(tmp_path: Path, shell: str) -> None:
    directory = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe"))
    directory.mkdir()
    done = run(shell, make(directory, LEAVES_ACCOUNT))
    assert done.returncode == 0, done.stderr
    assert account(directory).state == "succeeded"


# -- what it does -------------------------------------------------------------------------------------------------------


def test_it_starts_the_runner_for_its_task_and_keeps_its_account(directory: Path, shell: str) -> None:
    done = run(shell, make(directory, LEAVES_ACCOUNT), LOSSI_TASK="2")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert "argv ['--task', '2', '--attempt', '1']" in (directory / "tasks/2/log").read_text()
    assert account(directory, 2).written_by == "runner"
    assert names(directory / "tasks") == ["2"]


def test_it_needs_nothing_of_the_environment(directory: Path, shell: str) -> None:
    path = make(directory, LEAVES_ACCOUNT)
    done = subprocess.run(["/usr/bin/env", "-i", f"/bin/{shell}", str(path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    home = subprocess.run(["sh", "-c", 'getent passwd "$(id -u)" | cut -d: -f6'], capture_output=True, text=True).stdout.strip()
    assert f"True {home or '/'}" in (directory / "tasks/0/log").read_text()


def test_what_the_portal_carries_does_not_reach_the_runner(directory: Path, shell: str) -> None:
    program = "import os; print(sorted(os.environ), os.environ['LOSSI_JOB_ID'], os.environ['LOSSI_TASK'], flush=True)"
    run(
        shell,
        make(directory, program),
        PYTHONPATH="/evil",
        LD_PRELOAD="",
        SECRET_KEY_BASE="s3cret",
        RUBYOPT="-revil",
        BUNDLE_GEMFILE="x",
    )
    said = (directory / "tasks/0/log").read_text()
    assert f"{JOB_ID} 0" in said
    assert "PYTHONNOUSERSITE" in said
    for name in ("PYTHONPATH", "LD_PRELOAD", "SECRET_KEY_BASE", "RUBYOPT", "BUNDLE_GEMFILE"):
        assert name not in said


def test_a_container_gets_a_folder_of_its_own_and_the_variables_it_may_see(directory: Path, shell: str, tmp_path: Path) -> None:
    program = "import json, os; json.dump(dict(os.environ), open('seen', 'w')); os.stat(os.environ['APPTAINER_WORKDIR'])"
    temporary = tmp_path / "tmp of mine"
    temporary.mkdir()
    value = "two\nlines=$(touch pwned) '\""
    shown = {
        "SLURM_JOB_ID": "7",
        "CUDA_VISIBLE_DEVICES": "1,3",
        "OMP_NUM_THREADS": "2",
        "https_proxy": "http://p:1",
        "LOSSI_X": value,
    }
    hidden = {"SLURM_JWT": "secret", "AWS_SECRET_ACCESS_KEY": "secret", "MYVAR": "x"}
    run(shell, make(directory, program, kind="apptainer"), TMPDIR=str(temporary), **shown, **hidden)
    seen = json.loads((directory / "seen").read_text())
    for name, expected in {**shown, "LOSSI_JOB_ID": JOB_ID, "LOSSI_TASK": "0"}.items():
        assert seen[f"APPTAINERENV_{name}"] == expected
    for name in hidden:
        assert f"APPTAINERENV_{name}" not in seen
    assert seen["APPTAINER_WORKDIR"].startswith(f"{temporary}/lossi-0.")
    assert names(temporary) == [], "it is removed when the task has ended"
    assert not (directory / "pwned").exists()


def test_an_array_element_of_slurm_knows_its_task_and_attempt(directory: Path, shell: str) -> None:
    run(shell, make(directory, LEAVES_ACCOUNT), SLURM_ARRAY_TASK_ID="1", SLURM_RESTART_COUNT="2")
    assert "'--task', '1', '--attempt', '3'" in (directory / "tasks/1/log").read_text()


def test_what_it_makes_can_be_read_by_the_group_and_nobody_else(directory: Path, shell: str) -> None:
    run(shell, make(directory, LEAVES_ACCOUNT))
    assert (directory / "tasks/0").stat().st_mode & 0o777 == 0o750
    assert (directory / "tasks/0/log").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("number", ["3", "-1", "01", "x", "1; touch evil", "$(touch evil)", "99999999999999999999999"])
def test_a_number_that_is_no_task_is_refused(directory: Path, shell: str, number: str) -> None:
    done = run(shell, make(directory, LEAVES_ACCOUNT), LOSSI_TASK=number)
    assert done.returncode == 2
    assert "task" in done.stderr
    assert names(directory) == ["script.sh"]


def test_a_job_directory_that_was_removed_is_not_made_again(directory: Path, shell: str, tmp_path: Path) -> None:
    path = make(directory, LEAVES_ACCOUNT)
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
        ("pass", 1, ("failed", 1, None, "without leaving its account")),
    ],
)
def test_a_runner_that_leaves_no_account_gets_one(
    directory: Path, shell: str, program: str, code: int, expected: tuple[str, int, int | None, str]
) -> None:
    done = run(shell, make(directory, program))
    left = account(directory)
    assert done.returncode == code
    assert (left.state, left.exit_code, left.signal) == expected[:3]
    assert expected[3] in left.reason
    assert (left.written_by, left.task, left.attempt) == ("script", 0, 1)
    assert left.host
    assert left.started <= left.ended
    assert names(directory / "tasks/0") == ["exit.json", "log"]


def test_an_environment_that_cannot_be_started_is_said_so(directory: Path, shell: str) -> None:
    done = run(shell, make(directory, "", argv=["/no/such/python", "x"]))
    assert done.returncode == 127
    assert "could not be started" in account(directory).reason
    assert "/no/such/python" in (directory / "tasks/0/log").read_text()


def test_the_account_of_an_earlier_attempt_is_not_taken_for_this_one(directory: Path, shell: str) -> None:
    run(shell, make(directory, LEAVES_ACCOUNT))
    run(shell, make(directory, "raise SystemExit(3)"), SLURM_RESTART_COUNT="1")
    assert (account(directory).exit_code, account(directory).attempt) == (3, 2)


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


def wait_for(path: Path) -> None:
    end = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.005)


@pytest.mark.parametrize(
    ("number", "state"), [(signal.SIGTERM, "cancelled"), (signal.SIGINT, "cancelled"), (signal.SIGUSR1, "timed_out")]
)
def test_a_signal_stops_the_runner_and_is_waited_for(directory: Path, started, number: signal.Signals, state: str) -> None:  # type: ignore[no-untyped-def]
    process = started()
    process.send_signal(number)
    assert process.wait(20) == 143
    assert (directory / "stopped").exists()
    assert (account(directory).state, account(directory).written_by) == (state, "script")


def test_many_signals_are_one_stop(directory: Path, started) -> None:  # type: ignore[no-untyped-def]
    process = started()
    for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
        process.send_signal(number)
        time.sleep(0.02)
    assert process.wait(20) == 143
    assert account(directory).state == "timed_out"


def test_what_the_runner_says_of_its_stop_is_kept(directory: Path, started) -> None:  # type: ignore[no-untyped-def]
    process = started(KEEP="1")
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 143
    assert (account(directory).state, account(directory).written_by) == ("cancelled", "runner")


def test_a_full_disk_leaves_no_half_an_account(directory: Path, shell: str) -> None:
    """The size of files is limited to what the log takes, so the account cannot be written."""
    path = make(directory, "raise SystemExit(7)")
    done = subprocess.run([shell, "-c", f'ulimit -f 0; exec {shell} "$0"', str(path)], capture_output=True, timeout=60)
    assert done.returncode != 0
    assert not (directory / "tasks/0/exit.json").exists()

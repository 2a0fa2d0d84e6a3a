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
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from syrupy.assertion import SnapshotAssertion
from syrupy.extensions.single_file import SingleFileSnapshotExtension, WriteMode

from lossi.contract import records
from lossi.errors import InvalidInput
from lossi.jobs.submit import script
from lossi.jobs.submit.script import Header

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


def make(
    directory: Path, program: str, *, tasks: int = 3, argv: list[str] | None = None, kind: str = "local", **more: Any
) -> Path:
    """Write a script whose runner is a Python program."""
    text = script.render(Header(JOB_ID, directory, tasks, argv or [sys.executable, "-c", program], kind, **more))
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


def test_the_script_of_a_job_of_several_nodes_on_a_site_with_set_up_lines_and_scratch(golden: SnapshotAssertion) -> None:
    header = Header(
        JOB_ID,
        Path("/work/p/.lossi/jobs/x"),
        1,
        ["python3", "runner.pyz", "run"],
        nodes=4,
        setup=["module load apptainer", "export NCCL_SOCKET_IFNAME='hsn' # it's ours"],
        scratch="/run/nvme/job_$SLURM_JOB_ID/$USER's",
    )
    assert script.render(header) == golden


@pytest.mark.parametrize("more", [{}, {"nodes": 2, "setup": ["module load a", "x=$Y"], "scratch": "/scratch/$USER"}])
def test_shellcheck_finds_nothing(tmp_path: Path, more: dict[str, Any]) -> None:
    path = tmp_path / "script.sh"
    header = Header(JOB_ID, Path("/a b"), 1, ["python3", "it's"], "apptainer", {"A": "b"}, ["#SBATCH -t 1"], **more)
    path.write_text(script.render(header))
    # SC2016: what the site has written stays as it is until it is run.
    argv = [Path(sys.executable).with_name("shellcheck"), "--shell=sh", "--exclude=SC2016", path]
    done = subprocess.run(argv, capture_output=True, text=True)
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
        Header(JOB_ID, Path("/j"), 1, ["p"], setup=["module load a\nrm -rf /"]),
        Header(JOB_ID, Path("/j"), 1, ["p"], setup=["\0"]),
        Header(JOB_ID, Path("/j"), 1, ["p"], scratch="/scratch/$(id)"),
        Header(JOB_ID, Path("/j"), 1, ["p"], scratch="/scratch/$HOME"),
        Header(JOB_ID, Path("/j"), 1, ["p"], scratch="scratch"),
        Header(JOB_ID, Path("/j"), 1, ["p"], scratch="/a\nb"),
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


NAME = f"lossi-{JOB_ID}"


@pytest.mark.parametrize(
    ("array", "task"),
    [
        ({"SLURM_JOB_NAME": NAME}, 1),
        ({"SLURM_JOB_NAME": f"{NAME}+20"}, 21),
        ({"SLURM_JOB_NAME": f"{NAME}+0"}, 1),
        ({"SLURM_JOB_NAME": f"{NAME}+2x"}, 1),
        ({"SLURM_JOB_NAME": f"{NAME}+"}, 1),
        ({"SLURM_JOB_NAME": f"{NAME}+020"}, 1),
        ({"SLURM_JOB_NAME": f"{NAME}+$(touch evil)"}, 1),
        ({"SLURM_JOB_NAME": f"{NAME}+99999999999999999999"}, 1),
        ({"SLURM_JOB_NAME": f"x{NAME}+20"}, 1),
        ({"SLURM_JOB_NAME": "lossi-*+20"}, 1),
        ({"SLURM_JOB_NAME": "renamed", "SLURM_ARRAY_TASK_MAX": "29"}, 1),
        ({"SLURM_JOB_NAME": NAME, "SLURM_ARRAY_TASK_MAX": "9"}, 1),
    ],
)
def test_a_part_of_a_sweep_knows_by_its_name_where_it_begins(
    directory: Path, shell: str, array: dict[str, str], task: int
) -> None:
    done = run(shell, make(directory, LEAVES_ACCOUNT, tasks=30), SLURM_ARRAY_TASK_ID="1", **array)
    assert done.returncode == 0, done.stderr
    assert names(directory / "tasks") == [str(task)]
    assert not (directory / "evil").exists()


def test_a_part_of_a_sweep_that_was_renamed_does_not_run_another_parts_tasks(directory: Path, shell: str) -> None:
    array = {"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_MAX": "9", "SLURM_JOB_NAME": "mine now"}
    done = run(shell, make(directory, LEAVES_ACCOUNT, tasks=30), **array)
    assert done.returncode == 2
    assert "renamed" in done.stderr
    assert names(directory) == ["script.sh"]


def test_a_part_that_reaches_beyond_the_tasks_is_refused(directory: Path, shell: str) -> None:
    done = run(shell, make(directory, LEAVES_ACCOUNT), SLURM_ARRAY_TASK_ID="1", SLURM_JOB_NAME=f"{NAME}+2")
    assert (done.returncode, names(directory)) == (2, ["script.sh"])


SAYS_ENVIRONMENT = "import json, os; json.dump(dict(os.environ), open('seen', 'w'))\n" + LEAVES_ACCOUNT


def seen(directory: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads((directory / "seen").read_text())
    return found


def test_a_token_is_passed_on_to_nobody(directory: Path, shell: str) -> None:
    run(shell, make(directory, SAYS_ENVIRONMENT, setup=["export SLURM_JWT=again"]), SLURM_JWT="secret", SECRET_KEY_BASE="secret")
    assert not {"SLURM_JWT", "SECRET_KEY_BASE"} & set(seen(directory))
    assert "secret" not in json.dumps(seen(directory))


def test_sruns_of_the_job_get_its_environment_and_cores(directory: Path, shell: str) -> None:
    run(shell, make(directory, SAYS_ENVIRONMENT), SLURM_JOB_ID="7", SLURM_EXPORT_ENV="NONE", SLURM_CPUS_PER_TASK="3")
    assert (seen(directory)["SLURM_EXPORT_ENV"], seen(directory)["SRUN_CPUS_PER_TASK"]) == ("ALL", "3")


SETS_UP = [
    'module() { echo loading "$@" $NO_SUCH_VARIABLE; export LOADED="$*"; }',
    "module load 'a b'",
    "cd /; set -- other arguments; set -e; set -f; IFS=x; umask 000; task=9; folder=/; kind=none; PYTHONPATH=/evil; export PYTHONPATH",
    "cat # its standard input is empty",
]


def test_the_sites_lines_come_first_and_change_only_the_environment(directory: Path, shell: str) -> None:
    done = run(shell, make(directory, SAYS_ENVIRONMENT, setup=SETS_UP), LOSSI_TASK="2")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert account(directory, 2).state == "succeeded"
    log = (directory / "tasks/2/log").read_text()
    assert log.index("loading load a b") < log.index("argv ['--task', '2', '--attempt', '1']")
    assert seen(directory)["LOADED"] == "load a b"
    assert "PYTHONPATH" not in seen(directory)
    assert (directory / "seen").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("line", ["false", "exit 3", "exit 0", "if (", 'x="', "return 5", ". /no/such/file", "no_such_command"])
def test_a_site_line_that_fails_ends_the_task_and_says_which_it_was(
    directory: Path, shell: str, line: str, tmp_path: Path
) -> None:
    temporary = tmp_path / "temporary"
    done = run(shell, make(directory, LEAVES_ACCOUNT, setup=["true", line, "touch too-far"], scratch=str(temporary)))
    assert done.returncode not in (0, 137)
    left = account(directory)
    assert (left.state, left.exit_code, left.written_by) == ("failed", done.returncode, "script")
    assert left.reason.startswith("line 2 of the set-up of this site failed")
    assert not (directory / "too-far").exists()
    assert "argv" not in (directory / "tasks/0/log").read_text()


@pytest.mark.parametrize("kind", ["local", "apptainer"])
def test_a_task_has_a_private_folder_on_the_scratch_disk(directory: Path, shell: str, tmp_path: Path, kind: str) -> None:
    base = tmp_path / "scr 'x"
    base.mkdir()
    (base / "of another").touch()
    scratch = f"{base}/$USER/job_$SLURM_JOB_ID"
    done = run(shell, make(directory, SAYS_ENVIRONMENT, kind=kind, scratch=scratch), SLURM_JOB_ID="12", USER="$(touch evil)")
    assert done.returncode == 0, done.stderr
    user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    assert seen(directory)["TMPDIR"].startswith(f"{base}/{user}/job_12/lossi-0.")
    if kind == "apptainer":
        assert seen(directory)["APPTAINER_WORKDIR"] == seen(directory)["TMPDIR"]
    assert names(base) == sorted(["of another", user])
    assert names(base / user) == [], "what was made for the task is removed"


def test_a_scratch_disk_that_is_not_there_is_said_and_done_without(directory: Path, shell: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = run(shell, make(directory, SAYS_ENVIRONMENT, scratch=f"{tmp_path}/file/x"), TMPDIR=str(tmp_path))
    assert done.returncode == 0
    assert seen(directory)["TMPDIR"] == str(tmp_path)
    assert "has no" in (directory / "tasks/0/log").read_text()


def test_what_an_earlier_attempt_left_does_not_speak_for_this_one(directory: Path, shell: str) -> None:
    folder = directory / "tasks/0"
    folder.mkdir(parents=True)
    for name in ("exit.json", "ending.json", "progress.json"):
        (folder / name).write_text("{}")
    program = "import os; print(sorted(os.listdir('tasks/0')), flush=True)\n" + LEAVES_ACCOUNT
    run(shell, make(directory, program), SLURM_RESTART_COUNT="1")
    assert "['log']" in (folder / "log").read_text()


def test_a_first_attempt_may_have_been_told_to_stop_already(directory: Path, shell: str) -> None:
    folder = directory / "tasks/0"
    folder.mkdir(parents=True)
    (folder / "ending.json").write_text("{}")
    run(shell, make(directory, LEAVES_ACCOUNT))
    assert (folder / "ending.json").exists()


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


def test_the_runner_can_read_that_the_time_limit_was_near(directory: Path, started) -> None:  # type: ignore[no-untyped-def]
    process = started(KEEP="1")
    process.send_signal(signal.SIGUSR1)
    process.wait(20)
    told = records.load(records.Ending, directory / "tasks/0/ending.json")
    assert (told.state, told.reason) == ("timed_out", "stopped shortly before its time limit")


def test_who_has_said_already_why_it_stops_is_not_contradicted(directory: Path, started) -> None:  # type: ignore[no-untyped-def]
    process = started(KEEP="1")
    (directory / "tasks/0/ending.json").write_text('{"state": "cancelled"}')
    process.send_signal(signal.SIGUSR1)
    process.wait(20)
    assert records.load(records.Ending, directory / "tasks/0/ending.json").state == "cancelled"


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


@pytest.mark.root
@pytest.mark.parametrize("log", [False, True])
def test_a_full_filesystem_is_told_to_the_scheduler(directory: Path, shell: str, log: bool) -> None:
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
        told = run(shell, make(directory, "raise SystemExit(0)"))
        assert told.returncode == 1
        assert ("exit.json" if log else "tasks/0/log") in told.stderr
        assert names(directory / "tasks/0") == ["log" if log else "filler"]
    finally:
        subprocess.run(["umount", "-l", str(directory / "tasks")], check=True)


def test_a_job_folder_that_cannot_be_written_is_told_to_the_scheduler(directory: Path, shell: str) -> None:
    path = make(directory, LEAVES_ACCOUNT)
    (directory / "tasks").touch()
    done = run(shell, path)
    assert done.returncode == 1
    assert f"cannot make {directory}/tasks/0" in done.stderr


# -- several nodes ------------------------------------------------------------------------------------------------------

STAND_IN = Path(__file__).parents[2] / "srun.py"

RANKED = """
import json, os, signal, sys, time
task, rank = (sys.argv[sys.argv.index(name) + 1] for name in ("--task", "--rank"))
name = "exit.json" if rank == "0" else f"exit.rank{rank}.json"
def end(state, code):
    open(f"tasks/{task}/{name}", "w").write(json.dumps({"task": int(task), "state": state, "exit_code": code}))
    os._exit(code)
signal.signal(signal.SIGTERM, lambda *_: end("cancelled", 143))
def until_ended():
    path = "tasks/0/ranks.jsonl"
    while not (os.path.exists(path) and '{"ended"' in open(path).read()): time.sleep(0.02)
json.dump(dict(os.environ), open(f"seen{rank}.part", "w"))
os.rename(f"seen{rank}.part", f"seen{rank}")
print("rank", rank, flush=True)
"""


@pytest.fixture
def srun(tmp_path: Path) -> Path:
    """A folder for PATH with something that behaves like srun."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "srun"
    program.write_text(f"#!{sys.executable}\n{STAND_IN.read_text()}")
    program.chmod(0o755)
    return folder


def run_on_nodes(shell: str, path: Path, srun: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    slurm = {"SLURM_JOB_ID": "31234", "SLURM_EXPORT_ENV": "NONE", "PATH": f"{srun}:{os.environ['PATH']}"}
    return subprocess.run(
        [shell, str(path)], env={**slurm, **environment}, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
    )


def test_every_node_runs_the_runner_once(directory: Path, shell: str, srun: Path, tmp_path: Path) -> None:
    program = (
        RANKED
        + "if rank == '0':\n  while not all(os.path.exists(f'seen{n}') for n in '12'): time.sleep(0.02)\nend('succeeded', 0)"
    )
    path = make(directory, program, nodes=3, setup=["export FROM_SETUP=yes"], scratch=f"{tmp_path}/scratch")
    done = run_on_nodes(shell, path, srun, SLURM_ARRAY_TASK_ID="1", SLURM_JOB_NAME=f"{NAME}+1", SLURM_RESTART_COUNT="1")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    asked = json.loads((directory / "srun.json").read_text())
    assert asked["argv"] == ["/bin/sh", str(path)]
    expected = {"relative": "1", "nodes": "2", "ntasks": "2", "ntasks-per-node": "1", "kill-on-bad-exit": "0", "wait": "0"}
    assert asked["options"] == expected
    assert names(directory / "tasks/2") == ["exit.json", "log", "log.rank1", "log.rank2"]
    assert (directory / "tasks/2/log.rank2").read_text() == "rank 2\n"
    for rank in range(3):
        found = json.loads((directory / f"seen{rank}").read_text())
        assert (found["LOSSI_NODE_RANK"], found["LOSSI_NODES"], found["LOSSI_TASK"]) == (str(rank), "3", "2")
        assert (found["SLURM_PROCID"], found["SLURM_NODEID"], found["SLURM_NTASKS"]) == (str(rank), str(rank), "3")
        assert (found["MASTER_ADDR"], found["MASTER_PORT"]) == (os.uname().nodename, "21234")
        assert (found["SLURM_EXPORT_ENV"], found["FROM_SETUP"]) == ("ALL", "yes")
        assert found["TMPDIR"].startswith(f"{tmp_path}/scratch/lossi-2.")
        assert "LOSSI_ROLE" not in found
    assert not (tmp_path / "scratch").exists()


def test_the_accounts_of_further_nodes_reach_the_first(directory: Path, shell: str, srun: Path) -> None:
    """Also of a runner that leaves none itself."""
    program = """
if rank == "1": end("succeeded", 0)
if rank == "2": os._exit(9)
until_ended()
os.rename("tasks/0/ranks.jsonl", "ranks")
end("failed", 1)
"""
    done = run_on_nodes(shell, make(directory, RANKED + program, nodes=3), srun)
    assert done.returncode == 1
    lines = [json.loads(line) for line in (directory / "ranks").read_text().splitlines() if line.startswith("{")]
    found = {line["rank"]: line["exit"] for line in lines if "rank" in line}
    assert (found[1]["state"], found[2]["state"], found[2]["exit_code"], found[2]["written_by"]) == (
        "succeeded",
        "failed",
        9,
        "script",
    )
    assert lines[-1] == {"ended": 9}
    assert names(directory / "tasks/0") == ["exit.json", "log", "log.rank1", "log.rank2"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_reaches_every_node(directory: Path, shell: str, srun: Path, number: signal.Signals) -> None:
    path = make(directory, RANKED + "while True: time.sleep(0.02)", nodes=3)
    environment = {"SLURM_JOB_ID": "5", "PATH": f"{srun}:{os.environ['PATH']}"}
    process = subprocess.Popen([shell, str(path)], env=environment, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        for rank in range(3):
            wait_for(directory / f"seen{rank}")
        process.send_signal(number)
        assert process.wait(20) == 143
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert account(directory).state == "cancelled"
    assert names(directory / "tasks/0") == sorted(
        ["exit.json", "log", "log.rank1", "log.rank2", *(["ending.json"] if number == signal.SIGUSR1 else [])]
    )


def test_nodes_whose_first_has_ended_are_stopped(directory: Path, shell: str, srun: Path) -> None:
    program = """
while rank != "0": time.sleep(0.02)
while not os.path.exists("seen1"): time.sleep(0.02)
end("failed", 3)
"""
    assert run_on_nodes(shell, make(directory, RANKED + program, nodes=2), srun).returncode == 3


def test_several_nodes_without_slurm_are_refused(directory: Path, shell: str) -> None:
    done = run(shell, make(directory, LEAVES_ACCOUNT, nodes=2))
    assert (done.returncode, names(directory)) == (2, ["script.sh"])
    assert "only Slurm" in done.stderr


def test_a_missing_srun_is_told_to_the_runner(directory: Path, shell: str, tmp_path: Path) -> None:
    program = (
        RANKED
        + """
until_ended()
end("failed", 1)
"""
    )
    empty = tmp_path / "empty"
    empty.mkdir()
    path = make(directory, program, nodes=2)
    hidden = {"PATH": f"{empty}:/usr/bin:/bin", "SLURM_JOB_ID": "5"}
    text = path.read_text().replace("LOSSI_ROLE=rank srun", "LOSSI_ROLE=rank no-such-srun")
    path.write_text(text)
    assert subprocess.run([shell, str(path)], env=hidden, timeout=60, stdin=subprocess.DEVNULL).returncode == 1

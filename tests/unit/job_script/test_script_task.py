"""script.sh starts the runner: for which task, in which environment, with which folders."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from script_runs import JOB_ID, LEAVES_RECORD, NAME, SAYS_ENVIRONMENT, exit_record, make, names, run, seen


def test_runner_starts_for_its_task_and_its_exit_record_is_kept(directory: Path, shell: str) -> None:
    done = run(shell, make(directory, LEAVES_RECORD), LOSSI_TASK="2")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert "argv ['--task', '2', '--attempt', '1']" in (directory / "tasks/2/log").read_text()
    assert exit_record(directory, 2).written_by == "runner"
    assert names(directory / "tasks") == ["2"]


def test_an_empty_environment_is_enough(directory: Path, shell: str) -> None:
    path = make(directory, LEAVES_RECORD)
    done = subprocess.run(["/usr/bin/env", "-i", f"/bin/{shell}", str(path)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    home = subprocess.run(["sh", "-c", 'getent passwd "$(id -u)" | cut -d: -f6'], capture_output=True, text=True).stdout.strip()
    assert f"True {home or '/'}" in (directory / "tasks/0/log").read_text()


def test_variables_of_the_portal_do_not_reach_the_runner(directory: Path, shell: str) -> None:
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
    log = (directory / "tasks/0/log").read_text()
    assert f"{JOB_ID} 0" in log
    assert "PYTHONNOUSERSITE" in log
    for name in ("PYTHONPATH", "LD_PRELOAD", "SECRET_KEY_BASE", "RUBYOPT", "BUNDLE_GEMFILE"):
        assert name not in log


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
    variables = json.loads((directory / "seen").read_text())
    for name, expected in {**shown, "LOSSI_JOB_ID": JOB_ID, "LOSSI_TASK": "0"}.items():
        assert variables[f"APPTAINERENV_{name}"] == expected
    for name in hidden:
        assert f"APPTAINERENV_{name}" not in variables
    assert variables["APPTAINER_WORKDIR"].startswith(f"{temporary}/lossi-0.")
    assert names(temporary) == [], "it is removed when the task has ended"
    assert not (directory / "pwned").exists()


def test_an_array_element_of_slurm_knows_its_task_and_attempt(directory: Path, shell: str) -> None:
    run(shell, make(directory, LEAVES_RECORD), SLURM_ARRAY_TASK_ID="1", SLURM_RESTART_COUNT="2")
    assert "'--task', '1', '--attempt', '3'" in (directory / "tasks/1/log").read_text()


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
def test_array_chunk_knows_its_first_task_by_its_name(directory: Path, shell: str, array: dict[str, str], task: int) -> None:
    done = run(shell, make(directory, LEAVES_RECORD, tasks=30), SLURM_ARRAY_TASK_ID="1", **array)
    assert done.returncode == 0, done.stderr
    assert names(directory / "tasks") == [str(task)]
    assert not (directory / "evil").exists()


def test_renamed_array_chunk_does_not_run_tasks_of_another(directory: Path, shell: str) -> None:
    array = {"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_MAX": "9", "SLURM_JOB_NAME": "mine now"}
    done = run(shell, make(directory, LEAVES_RECORD, tasks=30), **array)
    assert done.returncode == 2
    assert "renamed" in done.stderr
    assert names(directory) == ["script.sh"]


def test_array_chunk_beyond_the_last_task_is_refused(directory: Path, shell: str) -> None:
    done = run(shell, make(directory, LEAVES_RECORD), SLURM_ARRAY_TASK_ID="1", SLURM_JOB_NAME=f"{NAME}+2")
    assert (done.returncode, names(directory)) == (2, ["script.sh"])


def test_tokens_are_not_passed_on(directory: Path, shell: str) -> None:
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


def test_setup_lines_come_first_and_change_only_the_environment(directory: Path, shell: str) -> None:
    done = run(shell, make(directory, SAYS_ENVIRONMENT, setup=SETS_UP), LOSSI_TASK="2")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert exit_record(directory, 2).state == "succeeded"
    log = (directory / "tasks/2/log").read_text()
    assert log.index("loading load a b") < log.index("argv ['--task', '2', '--attempt', '1']")
    assert seen(directory)["LOADED"] == "load a b"
    assert "PYTHONPATH" not in seen(directory)
    assert (directory / "seen").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("line", ["false", "exit 3", "exit 0", "if (", 'x="', "return 5", ". /no/such/file", "no_such_command"])
def test_setup_line_that_fails_ends_the_task_and_is_named(directory: Path, shell: str, line: str, tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    done = run(shell, make(directory, LEAVES_RECORD, setup=["true", line, "touch too-far"], scratch=str(temporary)))
    assert done.returncode not in (0, 137)
    left = exit_record(directory)
    assert (left.state, left.exit_code, left.written_by) == ("failed", done.returncode, "script")
    assert left.reason.startswith("line 2 of the site set-up failed")
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


def test_missing_scratch_disk_is_reported_and_not_used(directory: Path, shell: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = run(shell, make(directory, SAYS_ENVIRONMENT, scratch=f"{tmp_path}/file/x"), TMPDIR=str(tmp_path))
    assert done.returncode == 0
    assert seen(directory)["TMPDIR"] == str(tmp_path)
    assert "has no" in (directory / "tasks/0/log").read_text()

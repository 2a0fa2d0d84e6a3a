"""Scripts and commands, and what every task has in common: code, data, outputs, signals."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from runner_jobs import Job, Run, artifacts, processes_of, reached
from test_notebooks import HOSTILE

from lossi.contract import records

ECHO = b"""
import json, os, sys
print("arguments", json.dumps(sys.argv[1:]))
with open(os.environ["LOSSI_PARAMETERS"], "rb") as stream:
    print("parameters", json.loads(stream.read()))
"""
WAIT = b"""
import os, pathlib, sys, time
out = pathlib.Path(os.environ["LOSSI_OUTPUT_DIR"])
(out / "reached").touch()
while not (out / "go").exists():
    time.sleep(0.02)
"""


def arguments(run: Run) -> list[str]:
    match = re.search(r"^arguments (.*)$", run.log, re.MULTILINE)
    assert match, run.log
    values: list[str] = json.loads(match.group(1))
    return values


def test_a_script_gets_its_parameters_as_flags(prepare: Callable[..., Job]) -> None:
    values = {
        "lr": 0.001,
        "name": "a b'c\"$(touch pwned)\n",
        "deep": True,
        "none": None,
        "dash": "-x",
        "minus": -3,
        "list": [1, "a"],
    }
    job = prepare(
        {"src/train.py": ECHO},
        kind="script",
        parameters=[values],
        command=["--data={name}", "{unknown}"],
        working_directory="src",
    )
    run = job.run()
    assert run.exit.state == "succeeded", run.log
    assert arguments(run) == [
        f"--data={values['name']}",
        "{unknown}",
        *("--lr", "0.001"),
        *("--deep", "true"),
        "--dash=-x",
        *("--minus", "-3"),
        *("--list", '[1, "a"]'),
    ]
    (mlflow_run,) = run.runs()
    assert mlflow_run.data.tags["mlflow.source.name"] == "src/train.py"
    assert mlflow_run.data.tags["mlflow.source.type"] == "LOCAL"
    assert mlflow_run.data.params["dash"] == "-x"
    assert not list(Path(job.spec.project).rglob("pwned"))


def test_a_command_gets_its_parameters_in_place_and_in_a_file(prepare: Callable[..., Job]) -> None:
    values = {key: value for key, value in HOSTILE.items() if key not in ("lines", "surrogate", "large")}
    command = [sys.executable, "echo.py", "{shell}", "--q={quotes}", "{unicode}{yaml}", "{nested}", "{nothing}", "${HOME}", "{}"]
    run = prepare({"echo.py": ECHO}, kind="command", parameters=[values], command=command).run()
    assert run.exit.state == "succeeded", run.log
    assert arguments(run) == [
        values["shell"],
        f"--q={values['quotes']}",
        f"{values['unicode']}{values['yaml']}",
        json.dumps(values["nested"], ensure_ascii=False),
        "null",
        "${HOME}",
        "{}",
    ]


def test_the_parameter_file_holds_every_value_byte_for_byte(prepare: Callable[..., Job]) -> None:
    copy = b"import os, shutil; shutil.copy(os.environ['LOSSI_PARAMETERS'], os.environ['LOSSI_OUTPUT_DIR'] + '/got.json')"
    run = prepare({"copy.py": copy}, kind="command", parameters=[HOSTILE], command=[sys.executable, "copy.py"]).run()
    assert json.loads((run.folder / "out" / "got.json").read_bytes()) == HOSTILE
    assert run.exit.state == "succeeded", run.log
    (mlflow_run,) = run.runs()
    assert mlflow_run.data.params["large"] == HOSTILE["large"][:6000]
    assert mlflow_run.data.params["surrogate"] == "\\ud800 alone"


@pytest.mark.parametrize("key", ["large", "lines", "surrogate"])
def test_values_impossible_on_a_command_line_are_refused(prepare: Callable[..., Job], key: str) -> None:
    run = prepare({"a.py": ECHO}, kind="script", parameters=[{key: HOSTILE[key]}]).run()
    assert run.exit.state == "failed"
    assert "$LOSSI_PARAMETERS" in run.exit.reason
    assert "Traceback" not in run.log


def test_the_environment(prepare: Callable[..., Job]) -> None:
    show = b"import json, os; print('variables', json.dumps(dict(os.environ)))"
    job = prepare({"a.py": show}, kind="script", variables={"FROM_CATALOGUE": "yes"})
    run = job.run(MLFLOW_RUN_ID="theirs", MLFLOW_TRACKING_URI="http://127.0.0.1:1", MLFLOW_RUN_CONTEXT='{"mine": "1"}')
    got = json.loads(run.log.split("variables ")[1].splitlines()[0])
    assert got["LOSSI_JOB_ID"] == job.spec.id
    assert got["LOSSI_TASK"] == "0"
    assert got["LOSSI_PROJECT"] == job.spec.project
    assert got["LOSSI_OUTPUT_DIR"] == str(run.folder / "out")
    assert got["LOSSI_ENVIRONMENT"] == "here"
    assert got["FROM_CATALOGUE"] == "yes"
    assert got["OMP_NUM_THREADS"] == "1"
    assert got["MLFLOW_TRACKING_URI"].startswith(f"sqlite:///{job.environment['TMPDIR']}/lossi-")
    assert got["MLFLOW_EXPERIMENT_NAME"] == "digits"
    assert "MLFLOW_RUN_ID" not in got
    assert got["MLFLOW_DISABLE_TELEMETRY"] == got["DO_NOT_TRACK"].lower() == "true"
    assert json.loads(got["MLFLOW_RUN_CONTEXT"]).items() >= {"mine": "1", "lossi.job_id": job.spec.id, "lossi.task": "0"}.items()
    assert got["PATH"].split(":")[0] == str(Path(sys.executable).parent)
    assert got["TMPDIR"].startswith(job.environment["TMPDIR"])
    assert job.run(OMP_NUM_THREADS="7").log.count('"OMP_NUM_THREADS": "7"') == 1


def test_failing_script_reports_the_exception(prepare: Callable[..., Job]) -> None:
    script = b"import sys\nprint('on stdout')\ndef f():\n    raise KeyError('lr')\ntry:\n    1 / 0\nexcept ZeroDivisionError:\n    f()\n"
    run = prepare({"a.py": script}, kind="script").run()
    assert run.process.returncode == 1
    assert run.exit.error is not None
    assert (run.exit.error.name, run.exit.error.message) == ("KeyError", "'lr'")
    assert "in f" in run.exit.error.traceback
    assert run.exit.reason == "KeyError: 'lr'"
    assert run.runs()[0].info.status == "FAILED"


def test_exit_code_is_the_scripts(prepare: Callable[..., Job]) -> None:
    run = prepare({"a.py": b"import sys; print('giving up'); sys.exit(7)"}, kind="script").run()
    assert (run.process.returncode, run.exit.exit_code, run.exit.state) == (7, 7, "failed")
    assert run.exit.error is not None and (run.exit.error.name, run.exit.error.message) == ("exit code 7", "giving up")


def test_script_killed_by_a_signal(prepare: Callable[..., Job]) -> None:
    run = prepare({"a.py": b"import os; os.kill(os.getpid(), 11)"}, kind="script").run()
    assert (run.exit.signal, run.exit.exit_code, run.process.returncode) == (11, None, 139)
    assert run.exit.reason == "killed by signal 11 (SIGSEGV)"


def test_open_run_of_a_failing_script_is_failed(prepare: Callable[..., Job]) -> None:
    run = prepare({"a.py": b"import mlflow\nmlflow.start_run(run_name='open')\n1 / 0\n"}, kind="script").run()
    (mlflow_run,) = run.runs()
    assert (mlflow_run.info.run_name, mlflow_run.info.status) == ("open", "FAILED"), run.log


def test_stopped_script_can_clean_up(prepare: Callable[..., Job]) -> None:
    script = b"import signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: (print('goodbye', flush=True), sys.exit(0)))" + WAIT
    job = prepare({"a.py": script}, kind="script")
    run = job.start()
    run.until(reached)
    run.process.send_signal(signal.SIGTERM)
    run.wait()
    assert run.exit.state == "cancelled"
    assert "goodbye" in run.log


def test_processes_ignoring_sigterm_are_killed_after_the_grace_period(prepare: Callable[..., Job]) -> None:
    """A daemon in a session of its own, with neither parent nor marks, that ignores SIGTERM."""
    script = (
        b"""
import os, signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(1000)"], start_new_session=True)
"""
        + WAIT
    )
    job = prepare({"a.py": script}, kind="script")
    run = job.start(LOSSI_GRACE_S="1")
    run.until(reached)
    assert len(processes_of(job)) == 2
    run.process.send_signal(signal.SIGTERM)
    run.wait()
    assert (run.exit.state, run.exit.signal) == ("cancelled", 9)
    assert not processes_of(job)


def test_new_files_are_collected_up_to_the_limit(prepare: Callable[..., Job]) -> None:
    script = b"""
import os
os.makedirs("results/deep")
open("results/deep/new.csv", "w").write("1")
open("data.csv", "w").write("changed")
open("../above.txt", "w").write("above")
open("large.bin", "wb").write(bytes(2 << 20))
os.makedirs("__pycache__", exist_ok=True); open("__pycache__/x.pyc", "w").write("x")
os.symlink("/etc/passwd", "link")
os.mkfifo("pipe")
open(os.path.join(os.environ["LOSSI_OUTPUT_DIR"], "direct.txt"), "w").write("direct")
"""
    files = {"src/a.py": script, "src/data.csv": b"as it was", "src/same.csv": b"same"}
    job = prepare(files, kind="script", working_directory="src", output_limit_mb=1)
    run = job.run()
    out = run.folder / "out"
    files = {path.relative_to(out).as_posix(): path.read_text() for path in out.rglob("*") if path.is_file()}
    assert files == {"results/deep/new.csv": "1", "data.csv": "changed", "_project/above.txt": "above", "direct.txt": "direct"}
    assert run.exit.notes == ["not collected (the limit is 1 MiB): large.bin"]


def test_data_of_the_live_project_is_linked(prepare: Callable[..., Job], tmp_path: Path) -> None:
    data = tmp_path / "project" / "data" / "raw"
    data.mkdir(parents=True)
    (data / "big.csv").write_text("1,2")
    links = [
        records.DataLink("data/raw", str(data)),
        records.DataLink("gone", str(tmp_path / "gone")),
        records.DataLink("../x", "/etc"),
    ]
    job = prepare({"a.py": b"print(open('data/raw/big.csv').read())"}, kind="script", snapshot={"links": links[:2]})
    run = job.run()
    assert "1,2" in run.log
    assert any("gone" in note for note in run.exit.notes)
    bad = prepare({"a.py": b""}, kind="script", snapshot={"links": links}).run()
    assert bad.exit.state == "failed"
    assert "leads out of the project" in bad.exit.reason


def test_prepared_files_that_changed_are_refused(prepare: Callable[..., Job]) -> None:
    for name in (records.CODE, records.TASKS, records.TEMPLATE):
        job = prepare({"a.py": b"print('ran')"}, kind="script")
        with (job.directory / name).open("ab") as stream:
            stream.write(b"\n")
        run = job.run()
        assert run.exit.state == "failed"
        assert f"{name} changed since submission" in run.exit.reason
        assert "ran" not in run.log
        assert "Traceback" not in run.log


def test_a_hostile_archive_is_refused(prepare: Callable[..., Job], tmp_path: Path) -> None:
    job = prepare({"a.py": b"print('ran')"}, kind="script", digests={})
    with tarfile.open(job.directory / records.CODE, "a") as archive:
        member = tarfile.TarInfo("../../../escaped")
        archive.addfile(member)
    run = job.run()
    assert run.exit.state == "failed"
    assert "leads out of the project" in run.exit.reason
    assert not list(tmp_path.rglob("escaped"))
    assert run.runs()[0].info.status == "FAILED"  # one run per task, also where nothing ran


def test_broken_job_directories_end_with_a_reason(prepare: Callable[..., Job]) -> None:
    job = prepare({"a.py": b""}, kind="script")
    assert "no line for task 5" in job.run(5).exit.reason
    (job.directory / records.SPEC).write_text("{")
    run = job.run()
    assert run.exit.state == "failed"
    assert "Traceback" not in run.log
    (job.directory / records.SPEC).unlink()
    assert "spec.json does not exist" in job.run().exit.reason


def test_missing_interpreter(prepare: Callable[..., Job]) -> None:
    run = prepare({"a": b""}, kind="command", command=["no-such-program", "x"]).run()
    assert run.exit.reason == "cannot start 'no-such-program': No such file or directory"


def test_only_its_own_line_is_parsed(prepare: Callable[..., Job]) -> None:
    job = prepare({"a.py": ECHO}, kind="script", parameters=[{"n": 1}, {"n": 2}], digests={})
    lines = (job.directory / records.TASKS).read_text().splitlines()
    (job.directory / records.TASKS).write_text("this is not JSON\n" + lines[1] + "\n")
    assert arguments(job.run(1)) == ["--n", "2"]


UNTIL_SAMPLED = """
import json, os, pathlib, time
uses = pathlib.Path(os.environ["LOSSI_OUTPUT_DIR"]).with_name("use.jsonl")
while not any(WHAT for sample in map(json.loads, uses.read_text().splitlines() if uses.exists() else [])):
    pass
"""


def test_use_is_sampled(prepare: Callable[..., Job]) -> None:
    busy = UNTIL_SAMPLED.replace("WHAT", "sample['rss_mb'] > 200 and time.process_time() > 0.5")
    busy = "x = bytearray(b'x') * (200 << 20)\n" + busy
    run = prepare({"a.py": busy.encode()}, kind="script").run()
    samples = [json.loads(line) for line in (run.folder / records.USE).read_text().splitlines()]
    assert max(sample["rss_mb"] for sample in samples) > 200
    assert run.exit.max_rss_mb is not None and run.exit.max_rss_mb > 200
    assert run.exit.cpu_s is not None and run.exit.cpu_s > 0.3


SMI = """#!/bin/sh
echo "0, GPU-aaaa, NVIDIA A100-SXM4-40GB, 535.104.05, 10, 100"
echo "1, GPU-bbbb, NVIDIA A100-SXM4-40GB, 535.104.05, 80, 2048"
"""


def test_visible_gpus_are_sampled(prepare: Callable[..., Job], tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "nvidia-smi").write_text(SMI)
    (tools / "nvidia-smi").chmod(0o755)
    job = prepare({"a.py": UNTIL_SAMPLED.replace("WHAT", "sample.get('gpu_percent')").encode()}, kind="script")
    run = job.run(PATH=f"{tools}:{os.environ['PATH']}", CUDA_VISIBLE_DEVICES="1")
    assert (run.exit.gpu_utilisation, run.exit.gpu_memory_mb) == (80.0, 2048.0)
    assert (run.exit.gpu_type, run.exit.gpu_driver) == ("NVIDIA A100-SXM4-40GB", "535.104.05")
    (mlflow_run,) = run.runs()
    assert mlflow_run.data.tags["lossi.gpu_type"] == "NVIDIA A100-SXM4-40GB"
    assert mlflow_run.data.tags["lossi.gpu_driver"] == "535.104.05"
    assert job.run(PATH=f"{tools}:{os.environ['PATH']}", CUDA_VISIBLE_DEVICES="").exit.gpu_type is None


def test_slurm_facts_become_tags(prepare: Callable[..., Job]) -> None:
    run = prepare({"a.py": b""}, kind="script").run(
        SLURM_JOB_ID="1002", SLURM_ARRAY_JOB_ID="1000", SLURM_ARRAY_TASK_ID="2", SLURM_CLUSTER_NAME="c1"
    )
    tags = run.runs()[0].data.tags
    assert (tags["slurm.job_id"], tags["slurm.array_task_id"], tags["slurm.cluster"]) == ("1000", "2", "c1")


def test_the_runner_needs_nothing_but_the_standard_library(prepare: Callable[..., Job]) -> None:
    """Also on the oldest Python that images may have, where this machine has one."""
    job = prepare({"a.py": ECHO}, kind="script", parameters=[{"n": 1}])
    pythons = [sys.executable, *filter(None, [shutil.which("python3.9", path=os.defpath)])]
    pythons += [str(path) for path in Path("~/.pyenv/versions").expanduser().glob("3.9.*/bin/python3.9")]
    for python in pythons:
        argv = [python, "-I", "-S", str(job.directory / records.RUNNER), "run", "--job", str(job.directory), "--task", "0"]
        done = subprocess.run(argv, env=job.environment, capture_output=True, text=True, timeout=300)
        if "pyenv" in done.stderr and "command not found" in done.stderr:
            continue  # a shim without its Python
        assert done.returncode == 0, done.stderr
        assert 'arguments ["--n", "1"]' in done.stdout
        exit_file = records.load(records.TaskExit, job.directory / "tasks" / "0" / records.EXIT)
        assert (exit_file.state, exit_file.tracking_error, len(exit_file.run_ids)) == ("succeeded", "", 1)


def test_usage(runner_archive: Path) -> None:
    for arguments in (
        [],
        ["run"],
        ["run", "--task", "0"],
        ["run", "--job", "x", "--task", "x"],
        ["walk", "--job", "x", "--task", "0"],
    ):
        done = subprocess.run([sys.executable, str(runner_archive), *arguments], capture_output=True, text=True)
        assert done.returncode == 2
        assert "usage: python3 runner.pyz run" in done.stderr
        assert "Traceback" not in done.stderr


def test_artifacts_of_a_project_with_an_odd_path(prepare: Callable[..., Job], tmp_path: Path) -> None:
    """MLflow unquotes the paths of artifact locations."""
    odd = tmp_path / "project" / "100%25 of ?s"
    location = (odd / ".lossi" / "artifacts" / "1").as_uri()
    job = prepare({"a.py": b"import mlflow\nwith mlflow.start_run(): mlflow.log_text('hi', 'x.txt')"}, kind="script", digests={})
    job.write_spec(project=str(odd), tracking=records.TrackingTarget("odd", "1", location))
    run = job.run()
    assert run.exit.state == "succeeded", run.log
    (mlflow_run,) = run.runs()
    places = sorted(path.relative_to(odd).as_posix() for path in odd.rglob("x.txt"))
    assert places == [
        f".lossi/artifacts/{job.spec.id}.0/{mlflow_run.info.experiment_id}/{mlflow_run.info.run_id}/artifacts/x.txt"
    ]
    assert [item.path for item in run.client().list_artifacts(mlflow_run.info.run_id)] == ["x.txt"]
    assert artifacts(job).exists()

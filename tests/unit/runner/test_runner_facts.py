"""Outcomes, processes, GPUs, kernels, progress and the archive: small pure parts."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from lossi.contract.records import Ending, TaskError
from lossi.runner import archive, errors, gpus, kernels, main, outcome, processes, progress


def outcome_of(returncode: int, **changes: object) -> outcome.Outcome:
    facts: dict[str, object] = {"stopped": None, "error": None, "kernel_signal": None, "out_of_memory": False}
    return outcome.of_payload(returncode, **{**facts, **changes})  # type: ignore[arg-type]


def test_outcomes() -> None:
    assert (outcome_of(0).state, outcome_of(0).status) == ("succeeded", 0)
    assert (outcome_of(3).state, outcome_of(3).exit_code, outcome_of(3).status) == ("failed", 3, 3)
    assert (outcome_of(-9).signal, outcome_of(-9).status) == (9, 137)
    assert "out of memory" in outcome_of(-9).reason
    assert outcome_of(-9, out_of_memory=True).state == "out_of_memory"
    assert outcome_of(137, out_of_memory=True).state == "out_of_memory"
    assert outcome_of(1, out_of_memory=True).state == "failed"
    assert outcome_of(1, kernel_signal=9, out_of_memory=True).state == "out_of_memory"
    stopped = outcome_of(0, stopped=Ending("timed_out", "too long"))
    assert (stopped.state, stopped.reason, stopped.status) == ("timed_out", "too long", 1)
    raised = TaskError("ValueError", "x")
    assert outcome_of(1, stopped=Ending("cancelled"), error=raised).error == raised
    assert outcome_of(1, stopped=Ending("cancelled"), error=TaskError("KeyboardInterrupt", "")).error is None


TRACEBACK = """noise
Traceback (most recent call last):
  File "a.py", line 1, in <module>
    x()
    ~^^
pkg.errors.Bad: first
second line
"""


def test_errors_in_logs() -> None:
    error = outcome.error_in_log("\x1b[31m" + TRACEBACK, 1)
    assert error is not None
    assert (error.name, error.message) == ("pkg.errors.Bad", "first\nsecond line")
    assert error.traceback.startswith("Traceback")
    caught_before = outcome.error_in_log(TRACEBACK + "\ngoing on\nbye", 4)
    assert caught_before is not None and (caught_before.name, caught_before.message) == ("exit code 4", "bye")
    in_r = outcome.error_in_log("ok\nError in f(1) : no\n more\nCalls: f\nExecution halted\n", 1)
    assert in_r is not None and in_r.message == "no\n more\nCalls: f"
    assert outcome.error_in_log("", 1) is None
    killed = outcome.error_in_log("x", -9)
    assert killed is not None and killed.name == "signal 9"


def test_plain_text() -> None:
    assert errors.plain("\x1b[1;31mred\x1b[0m \x1b]8;;http://x\x07link\x1b]8;;\x1b\\ \ud800") == "red link \\ud800"


def test_stat_lines_with_any_name() -> None:
    line = b"12 (a) b (c)) S 7 12 13 0 -1 4194560 1 0 0 0 150 50 9 9 20 0 1 0 777 1000 3 18446744073709551615"
    process = processes.parse_stat(12, line)
    assert (process.pid, process.parent, process.session, process.state, process.started) == (12, 7, 13, "S", 777)
    assert process.cpu_s == 200 / os.sysconf("SC_CLK_TCK")
    assert process.rss_bytes == 3 * os.sysconf("SC_PAGE_SIZE")


def test_detached_processes_of_a_task_are_found_and_ended() -> None:
    """A grandchild in its own session is known only by its environment; one with another task's marks stays."""
    script = (
        "import subprocess, sys; print(subprocess.Popen(['sleep', '100'], start_new_session=True, stdout=subprocess.DEVNULL).pid)"
    )

    def detach(task: int) -> int:
        marks = {**os.environ, "LOSSI_JOB_ID": "01family", "LOSSI_TASK": str(task)}
        done = subprocess.run([sys.executable, "-c", script], env=marks, stdout=subprocess.PIPE, check=True, text=True)
        return int(done.stdout)

    mine, stranger = detach(3), detach(4)
    try:
        task = processes.TaskProcesses("01family", 3)
        assert mine in {process.pid for process in task.others()}
        assert stranger not in {process.pid for process in task.others()}
        assert os.getpid() in {process.pid for process in task.members()}
        assert os.getppid() not in {process.pid for process in task.members()}
        others = {process.pid for process in task.others()}
        if others == {mine}:  # under xdist or with other children this process has more children
            assert task.end(0.5) == 1
            assert mine not in processes.list_processes()
        assert stranger in processes.list_processes()
    finally:
        for pid in (mine, stranger):
            if pid in processes.list_processes():
                os.kill(pid, 9)


NVIDIA = """0, GPU-1a2b, NVIDIA A100-SXM4-40GB, 535.104.05, 35, 1024
1, GPU-3c4d, NVIDIA A100-SXM4-40GB, 535.104.05, [N/A], [Not Supported]
Unable to determine the device handle
"""
ROCM = """WARNING: something
{"card0": {"GPU use (%)": "7", "Unique ID": "0xabc", "VRAM Total Used Memory (B)": "2097152", "Card Series": "AMD Instinct MI250X"},
 "card1": {"GPU use (%)": "N/A", "Card series": "AMD Instinct MI250X"}, "system": {"Driver version": "6.3.6"}}"""


def test_gpu_tools() -> None:
    first, second = gpus.parse_nvidia(NVIDIA)
    assert (first.name, first.driver, first.percent, first.memory_mb) == ("NVIDIA A100-SXM4-40GB", "535.104.05", 35.0, 1024.0)
    assert (second.percent, second.memory_mb) == (None, None)
    card, other = gpus.parse_rocm(ROCM)
    assert (card.name, card.driver, card.percent, card.memory_mb) == ("AMD Instinct MI250X", "6.3.6", 7.0, 2.0)
    assert (other.percent, other.memory_mb) == (None, None)
    assert gpus.parse_rocm("no JSON") == gpus.parse_rocm("[1]") == gpus.parse_nvidia("") == []
    assert gpus.select_visible([first, second], ["1"]) == [second]
    assert gpus.select_visible([first, second], ["GPU-1a"]) == [first]
    assert gpus.select_visible([first, second], None) == [first, second]
    assert gpus.parse_visible("0, 2,-1,3") == ["0", "2"]
    assert gpus.parse_visible("") == gpus.parse_visible("NoDevFiles") == []


def test_kernels() -> None:
    installed = {"python3": "python", "a-python": "python", "ir": "r"}
    assert kernels.choose(installed, "a-python", "python") == ("a-python", "")
    assert kernels.choose(installed, None, "python") == ("python3", "")
    assert kernels.choose(installed, "mine", "r")[0] == "ir"
    assert "'mine'" in kernels.choose(installed, "mine", "r")[1]
    with pytest.raises(kernels.KernelError, match="no kernel for bash"):
        kernels.choose(installed, "mine", "bash")
    with pytest.raises(kernels.KernelError, match="Julia"):
        kernels.check_language("julia", False)
    with pytest.raises(kernels.KernelError, match="Python and R"):
        kernels.check_language("bash", True)
    kernels.check_language("bash", False)


def test_estimates() -> None:
    assert progress.estimate([], 4, 0) is None
    assert progress.estimate([2.0, 4.0], 4, 1.0) == 5.0
    assert progress.estimate([2.0, 4.0], 4, 60.0) == 0.0
    assert progress.estimate([1.0] * 5, 4, 0.0) == 0.0


def test_progress_is_not_written_for_every_cell(tmp_path: Path) -> None:
    file = progress.ProgressFile(tmp_path / "progress.json", 0, 1, "now")
    file.phase("running")
    written = (tmp_path / "progress.json").stat().st_ino
    for cell in range(100):
        file.event("cell", {"cell": cell, "first_line": "x"})
        file.flush()
    assert (tmp_path / "progress.json").stat().st_ino == written
    file.flush(force=True)
    assert (tmp_path / "progress.json").stat().st_ino != written
    progress.ProgressFile(tmp_path / "gone" / "progress.json", 0, 1, "now").phase("running")  # no error


def test_the_archive_is_the_same_for_the_same_sources(tmp_path: Path) -> None:
    first, second = archive.build(tmp_path / "a.pyz"), archive.build(tmp_path / "b.pyz")
    assert first == second
    assert (tmp_path / "a.pyz").read_bytes() == (tmp_path / "b.pyz").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.pyz") as packed:
        names = packed.namelist()
    assert "__main__.py" in names
    assert "lossi/contract/records.py" in names
    assert "lossi/runner/r_translator.py" in names
    assert "lossi/runner/archive.py" not in names


def test_the_runner_imports_only_the_standard_library(tmp_path: Path) -> None:
    archive.build(tmp_path / "runner.pyz")
    check = (
        "import sys; sys.path.insert(0, sys.argv[1]); import lossi.runner.task, lossi.runner.mlflow_client;"
        "print([n for n in sys.modules if n.split('.')[0] not in sys.stdlib_module_names and n.split('.')[0] not in ('lossi', '__main__')])"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", check, str(tmp_path / "runner.pyz")], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_the_command_line() -> None:
    assert main.parse_options(["run", "--job", "d", "--task", "3"]) == {"--job": "d", "--task": "3"}
    for bad in ([], ["run", "--job"], ["run", "--job", "d", "--task", "1", "--x", "y"], ["stop"]):
        with pytest.raises(ValueError, match="unknown"):
            main.parse_options(bad)
    with pytest.raises(KeyError):
        main.parse_options(["run", "--job", "d"])

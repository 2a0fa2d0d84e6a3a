"""Notebooks run with the environment's papermill and kernel."""

from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
from runner_jobs import WAIT, Job, Run, code, notebook, processes_of, reached

from lossi.contract import records

PARAMETERS = code("n = 1  # how often", "parameters")

HOSTILE = {
    "quotes": 'it\'s "so" \'\'\'and\'\'\' """so""" \\ \\\\ \\n \\',
    "lines": "one\ntwo\r\nthree\rfour\u2028five\u0085six\tseven\x00\x07\x1b[31m",
    "shell": "$(touch pwned) `touch pwned` ; touch pwned & ${HOME} $HOME %s {n} {{n}}",
    "unicode": "Zürich 🦑 \u202egnp.exe \ufeff \U0010ffff",
    "surrogate": "\ud800 alone",
    "yaml": "yes: [no, ~, !!python/object:os.system]",
    "large": "äx'\"\\\n" * 150_000,
    "empty": "",
    "whole": 2**63,
    "fraction": 0.1 + 0.2,
    "tiny": 5e-324,
    "minus_zero": -0.0,
    "flag": False,
    "nothing": None,
    "nested": {"a": [1, {"b'\n": [None, True, "$(id)"]}], "ü": {}},
}


def texts(run: Run) -> str:
    """Return the text printed by the cells of the output notebook."""
    outputs = [output for cell in run.output["cells"] for output in cell.get("outputs", ())]
    return "".join("".join(output.get("text", "")) for output in outputs)


def test_parameters_are_injected_and_the_output_is_saved(prepare: Callable[..., Job]) -> None:
    job = prepare(
        {"nb/train.ipynb": notebook(PARAMETERS, "print('hello', n)")}, parameters=[{"n": 2}, {"n": 3}], working_directory="nb"
    )
    run = job.run(1)
    assert run.process.returncode == 0, run.log
    assert run.exit.state == "succeeded"
    assert run.exit.exit_code == 0
    assert run.exit.task == 1
    assert run.exit.host == os.uname().nodename
    assert "hello 3" in run.log
    assert "hello 3" in texts(run)
    assert "Traceback" not in run.log
    assert run.exit.cpu_s is not None and run.exit.cpu_s > 0.2
    assert run.exit.max_rss_mb is not None and run.exit.max_rss_mb > 30


def test_values_arrive_byte_for_byte(prepare: Callable[..., Job]) -> None:
    names = ", ".join(HOSTILE)
    cell = f"import json, os\nopen(os.environ['LOSSI_OUTPUT_DIR'] + '/got.json', 'w').write(json.dumps(dict(zip({list(HOSTILE)!r}, ({names})))))"
    job = prepare({"a.ipynb": notebook(code("", "parameters"), cell)}, parameters=[HOSTILE])
    run = job.run()
    assert run.exit.state == "succeeded", run.log
    got = json.loads((run.folder / "out" / "got.json").read_bytes())
    assert got == HOSTILE
    assert repr(got["minus_zero"]) == "-0.0"
    assert not list(job.directory.parent.parent.parent.parent.rglob("pwned"))
    assert json.loads((run.folder / "output.ipynb").read_text("utf-8"))["cells"]  # the metadata can be stored as well


def test_nan_and_infinity_are_floats(prepare: Callable[..., Job]) -> None:
    values = {"a": math.nan, "b": math.inf, "c": -math.inf, "d": [math.nan, {"e": -math.inf}]}
    job = prepare(
        {"a.ipynb": notebook(code("a = b = c = 0.0; d = None", "parameters"), "print([a, b, c, d])")}, parameters=[values]
    )
    run = job.run()
    assert "[nan, inf, -inf, [nan, {'e': -inf}]]" in texts(run), run.log

    def refused(constant: str) -> Any:
        raise AssertionError(f"{constant} is no JSON: a browser could not open the notebook")

    json.loads((run.folder / "output.ipynb").read_text(), parse_constant=refused)
    assert run.runs()[0].data.params["a"] == "nan"


def test_progress_and_output_appear_while_it_runs(prepare: Callable[..., Job]) -> None:
    job = prepare({"a.ipynb": notebook("print('first')", "# about to wait\nwait = True" + WAIT, "print('last')")})
    run = job.start()
    run.until(reached)
    progress = run.until(lambda run: run.progress if run.progress and run.progress.cell == 2 else None)
    assert (progress.phase, progress.cells, progress.first_line) == ("running", 3, "wait = True")
    assert progress.estimate_s is not None
    run.until(lambda run: (run.folder / "output.ipynb").exists() and "first" in texts(run))
    assert "first" in run.log
    (run.folder / "out" / "go").touch()
    run.wait()
    assert run.progress is not None and run.progress.phase == "done"
    assert run.progress.cell == 3
    assert "last" in texts(run)


def test_failing_cell_is_reported_with_error_and_number(prepare: Callable[..., Job]) -> None:
    job = prepare(
        {"a.ipynb": notebook(PARAMETERS, "print('so far')", "def f():\n    raise ValueError('no such\\nthing')\nf()", "1")}
    )
    run = job.run()
    assert run.process.returncode == 1
    assert run.exit.state == "failed"
    assert run.exit.error is not None
    assert (run.exit.error.name, run.exit.error.message, run.exit.error.cell) == ("ValueError", "no such\nthing", 3)
    assert "line 2, in f" in run.exit.error.traceback
    assert "\x1b" not in run.exit.error.traceback
    assert run.exit.reason == "cell 3: ValueError: no such"
    assert "so far" in texts(run)
    assert "ValueError: no such" in run.log
    assert run.runs()[0].info.status == "FAILED"


def test_sys_exit_0_is_success_as_in_papermill(prepare: Callable[..., Job]) -> None:
    run = prepare({"a.ipynb": notebook("import sys; sys.exit(0)", "raise RuntimeError('not reached')")}).run()
    assert run.exit.state == "succeeded", run.log


def test_stopped_notebook_keeps_its_output(prepare: Callable[..., Job]) -> None:
    job = prepare({"a.ipynb": notebook("print('done before')", "print('half', flush=True)" + WAIT, "print('never')")})
    run = job.start()
    run.until(reached)
    os.killpg(run.process.pid, signal.SIGTERM)
    run.wait()
    assert run.exit.state == "cancelled", run.log
    assert "done before" in texts(run)
    assert "half" in texts(run)
    assert "never" not in texts(run)
    assert run.runs()[0].info.status == "KILLED"
    assert run.exit.error is None
    assert run.process.returncode != 0


def test_reason_for_stopping_comes_from_the_scheduler(prepare: Callable[..., Job]) -> None:
    job = prepare({"a.ipynb": notebook(WAIT)})
    run = job.start()
    run.until(reached)
    ending = records.Ending("timed_out", "the time limit of 60 s was reached")
    (run.folder / records.ENDING).write_bytes(records.dump(ending))
    run.process.send_signal(signal.SIGTERM)
    run.wait()
    assert (run.exit.state, run.exit.reason) == ("timed_out", "the time limit of 60 s was reached")


def test_kernel_that_ignores_the_interrupt_is_killed_within_the_grace_period(prepare: Callable[..., Job]) -> None:
    job = prepare({"a.ipynb": notebook("print('kept')", "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)" + WAIT)})
    run = job.start(LOSSI_GRACE_S="4")
    run.until(reached)
    run.process.send_signal(signal.SIGTERM)
    run.wait()
    assert run.exit.state == "cancelled", run.log
    assert "kept" in texts(run)
    assert not processes_of(job)


def test_stopped_before_it_began(prepare: Callable[..., Job]) -> None:
    job = prepare({"a.ipynb": notebook("print('never')")})
    folder = job.directory / "tasks" / "0"
    folder.mkdir(parents=True)
    (folder / records.ENDING).write_bytes(records.dump(records.Ending("cancelled", "cancelled by ada")))
    run = job.run()
    assert (run.exit.state, run.exit.reason) == ("cancelled", "cancelled by ada"), run.log
    assert "never" not in run.log


def test_dead_kernel_is_reported(prepare: Callable[..., Job]) -> None:
    run = prepare({"a.ipynb": notebook("print('kept', flush=True)", "import os; os.kill(os.getpid(), 9)")}).run()
    assert run.exit.state == "failed", run.log
    assert run.exit.error is not None
    assert run.exit.error.cell == 2
    assert "killed by signal 9 (SIGKILL), probably because it ran out of memory" in run.exit.error.message
    assert "kept" in texts(run)
    assert "signal 9" in json.dumps(run.output)
    assert "Traceback" not in run.log


def test_missing_kernel_is_replaced(prepare: Callable[..., Job]) -> None:
    job = prepare({"a.ipynb": notebook("print(6 * 7)", kernel="conda-env-mine-py")})
    job.write_spec(kernel="conda-env-mine-py")
    run = job.run()
    assert "42" in texts(run), run.log
    note = "kernel 'conda-env-mine-py' is not in this environment: 'python3' was used"
    assert note in run.exit.notes
    assert run.progress is not None and note in run.progress.notes


@pytest.mark.parametrize(
    ("language", "message"),
    [("julia", "Julia notebooks are not supported yet"), ("scala", "the environment has no kernel for scala; its kernels: ")],
)
def test_languages_that_cannot_run_are_refused(prepare: Callable[..., Job], language: str, message: str) -> None:
    job = prepare({"a.ipynb": notebook("1", kernel=f"{language}-4", language=language)}, language=language)
    job.write_spec(kernel=f"{language}-4")
    run = job.run()
    assert run.exit.state == "failed"
    assert message in run.exit.reason
    assert "Traceback" not in run.log


@pytest.mark.host("Rscript", "R")
def test_r_notebooks_get_their_values_and_report_their_errors(prepare: Callable[..., Job]) -> None:
    show = "cat(n + 1L, is.nan(x), flag, file = file.path(Sys.getenv('LOSSI_OUTPUT_DIR'), 'numbers'))\n"
    show += "writeBin(charToRaw(text), file.path(Sys.getenv('LOSSI_OUTPUT_DIR'), 'text'))"
    values = {"n": 4, "x": math.nan, "flag": True, "text": HOSTILE["quotes"] + HOSTILE["shell"] + "\u0085 Zürich 🦑\n"}
    job = prepare(
        {
            "a.ipynb": notebook(
                code("n <- 1L; x <- 0; flag <- FALSE; text <- ''", "parameters"),
                show,
                "stop('no\nmore')",
                kernel="ir",
                language="R",
            )
        },
        parameters=[values],
        language="R",
    )
    job.write_spec(kernel="ir")
    run = job.run()
    assert (run.folder / "out" / "numbers").read_text() == "5 TRUE TRUE", run.log
    assert (run.folder / "out" / "text").read_bytes() == values["text"].encode()
    assert run.exit.error is not None and (run.exit.error.cell, run.exit.state) == (3, "failed")
    assert "no\nmore" in run.exit.error.message
    assert run.runs()[0].data.params["n"] == "4"


def test_not_a_notebook(prepare: Callable[..., Job]) -> None:
    run = prepare({"a.ipynb": b"{"}).run()
    assert run.exit.state == "failed"
    assert run.exit.error is not None and "JSON" in run.exit.error.message


def test_no_tagged_cell_and_no_values(prepare: Callable[..., Job]) -> None:
    assert prepare({"a.ipynb": notebook("1")}).run().exit.state == "succeeded"


def test_names_with_special_characters(prepare: Callable[..., Job]) -> None:
    """Papermill formats paths; SQLite URIs end at a question mark."""
    job = prepare({"my {n} 100%20?/a {x} #1.ipynb": notebook(PARAMETERS, "import os; print(os.getcwd())")}, parameters=[{"n": 5}])
    job.write_spec(working_directory="my {n} 100%20?")
    run = job.run()
    assert run.exit.state == "succeeded", run.log
    assert "/my {n} 100%20?\n" in texts(run)
    assert run.runs()[0].data.tags["mlflow.source.name"] == "my {n} 100%20?/a {x} #1.ipynb"


def test_processes_that_are_left_behind_are_ended(prepare: Callable[..., Job]) -> None:
    leave = "import subprocess; subprocess.Popen(['sleep', '1000'], start_new_session=True)"
    job = prepare({"a.ipynb": notebook(leave)})
    run = job.run()
    assert run.exit.state == "succeeded"
    assert any("left running" in note for note in run.exit.notes), run.exit
    assert not processes_of(job)


def test_the_kernel_opens_no_port_and_leaves_the_home_alone(prepare: Callable[..., Job]) -> None:
    show = "import json, ipykernel.connect as c; print(json.loads(c.get_connection_info())['transport'])"
    job = prepare({"a.ipynb": notebook(show)})
    run = job.run()
    assert "ipc" in texts(run), run.log
    assert not list((job.directory.parents[3] / "home").rglob("*"))

"""Notebooks run with the environment's papermill and kernel."""

from __future__ import annotations

from collections.abc import Callable

from runner_jobs import Job, code, notebook

PARAMETERS = code("n = 1  # how often", "parameters")


def test_one_cell(prepare: Callable[..., Job]) -> None:
    job = prepare({"nb/train.ipynb": notebook(PARAMETERS, "print('hello', n)")}, parameters=[{"n": 3}], working_directory="nb")
    run = job.run()
    assert run.process.returncode == 0, run.log
    assert run.exit.state == "succeeded"
    assert "hello 3" in run.log
    print(run.log, run.exit, run.progress)
    run = run.runs()
    print(run)

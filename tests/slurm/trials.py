"""Programs of users that the tests of faults run: they log, wait for a sign, and go on."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from pathlib import Path
from typing import Any

from slurm_site import Site

_BEGIN = """import os, pathlib, time
import mlflow
attempt = int(os.environ["LOSSI_ATTEMPT"])
mlflow.start_run()
mlflow.log_metric("attempt", attempt, step=attempt)
print("attempt", attempt, "has begun", flush=True)
"""
_WAIT = """out = pathlib.Path(os.environ["LOSSI_OUTPUT_DIR"])
out.joinpath(f"begun-{attempt}").touch()
while not out.joinpath(f"go-{attempt}").exists():
    time.sleep(0.1)
"""
_END = """mlflow.log_metric("done", 1.0)
mlflow.end_run()
print("attempt", attempt, "has ended", flush=True)
"""
WAITING = _BEGIN + _WAIT + _END
"""A script that logs a metric and waits until it is let go."""

QUICK = "import os\nprint('hello from task', os.environ['LOSSI_TASK'])\n"


def notebook(*cells: str) -> str:
    """Return a Python notebook of these code cells."""
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    written = [
        {"cell_type": "code", "metadata": {}, "source": cell, "outputs": [], "execution_count": None, "id": f"c{number}"}
        for number, cell in enumerate(cells)
    ]
    return json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": kernel}, "cells": written})


CELLS = (_BEGIN, _WAIT, _END)
WAITING_NOTEBOOK = notebook(*CELLS)
"""The same as a notebook of three cells."""


def task_folder(site: Site, job_id: str, number: int = 0) -> Path:
    return site.project / ".lossi" / "jobs" / job_id / "tasks" / str(number)


def has_begun(site: Site, job_id: str, number: int = 0, attempt: int = 1) -> bool:
    """Return whether a waiting program has come to where it waits."""
    return (task_folder(site, job_id, number) / "out" / f"begun-{attempt}").exists()


def until_begun(site: Site, job_id: str, *numbers: int, attempt: int = 1) -> None:
    for number in numbers or (0,):
        site.cluster.wait(lambda: has_begun(site, job_id, number, attempt), f"attempt {attempt} of {job_id}.{number} waits")  # noqa: B023


def let_go(site: Site, job_id: str, *numbers: int, attempt: int = 1) -> None:
    for number in numbers or (0,):
        (task_folder(site, job_id, number) / "out" / f"go-{attempt}").touch()


def until_published(site: Site, job_id: str, *numbers: int) -> None:
    """Wait until what was logged so far has left the node."""

    def holds_metrics(number: int) -> bool:
        for path in sorted(task_folder(site, job_id, number).glob("tracking-*.db"), reverse=True):
            with (
                contextlib.suppress(sqlite3.Error),
                contextlib.closing(sqlite3.connect(f"file:{path}?immutable=1", uri=True)) as db,
            ):
                return bool(db.execute("SELECT EXISTS (SELECT 1 FROM metrics)").fetchone()[0])
        return False

    for number in numbers or (0,):
        site.cluster.wait(lambda: holds_metrics(number), "metrics are published")  # noqa: B023


def runs_of(site: Site, job_id: str) -> list[dict[str, Any]]:
    """Return the runs of a job by task: id, status, metrics, and the facts of its task."""
    table = site.lossi("runs", "list", "--filter", f"tags.`lossi.job_id` = '{job_id}'")["columns"]
    return [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]


def jobs_left(site: Site) -> list[str]:
    """Return the content of the folder of jobs."""
    folder = site.project / ".lossi" / "jobs"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []

"""The command as a user starts it: a process of its own, in a project of its own, on the real local scheduler."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


def cell(source: str, *tags: str) -> dict[str, Any]:
    """Return a code cell."""
    return {"cell_type": "code", "metadata": {"tags": list(tags)}, "source": source, "outputs": [], "execution_count": None}


def notebook(*cells: dict[str, Any]) -> str:
    """Return a Python notebook as text."""
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    numbered = [{**item, "id": f"c{number}"} for number, item in enumerate(cells)]
    return json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": kernel}, "cells": numbered})


@dataclass
class Lossi:
    """Runs the command in a project."""

    root: Path
    environment: dict[str, str]

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "lossi", *arguments],
            cwd=options.pop("cwd", self.root),
            env={**self.environment, **options.pop("env", {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )

    def __call__(self, *arguments: str, expect: int | None = 0, **options: Any) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments, **options)
        out, err = process.communicate(timeout=1500)
        # A log may hold the traceback of the user's own program; nothing else of ours may.
        assert "Traceback" not in (err if arguments[0] == "logs" else out + err), out + err
        if expect is not None:
            assert process.returncode == expect, f"{arguments}: {process.returncode}\n{out}\n{err}"
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def json(self, *arguments: str, expect: int | None = 0, **options: Any) -> Any:
        # Before `--`, behind which everything belongs to the command that is run.
        at = arguments.index("--") if "--" in arguments else len(arguments)
        return json.loads(self(*arguments[:at], "--json", *arguments[at:], expect=expect, **options).stdout)

    def until(self, job: str, wanted: Callable[[dict[str, Any]], bool], seconds: float = 300) -> dict[str, Any]:
        """Look at the job until ``wanted`` of it is true."""
        end = time.monotonic() + seconds
        while True:
            shown = self.json("jobs", "show", job, "--limit", "1000")
            if wanted(shown):
                return dict(shown)
            assert time.monotonic() < end, shown
            time.sleep(0.1)

    def until_ended(self, job: str, seconds: float = 300) -> dict[str, Any]:
        final = ("succeeded", "failed", "cancelled", "timed_out", "out_of_memory", "node_failed")
        return self.until(job, lambda shown: shown["job"]["state"] in final, seconds)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all tests: the empty store that MLflow makes takes it seconds."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def lossi(tmp_path: Path, cache: Path) -> Iterator[Lossi]:
    root = tmp_path / "a project"
    root.mkdir()
    lossi = Lossi(root, {**os.environ, "XDG_CACHE_HOME": str(cache), "LOSSI_ALLOW_LOCAL_SCHEDULER": "true"})
    lossi("project", "init", ".")
    yield lossi
    # The supervisor ends with its queue; what a failed test left behind is cancelled first.
    for job in lossi.json("jobs", "list", "--limit", "1000", expect=None).get("items", []):
        if job["state"] in ("queued", "running"):
            lossi("cancel", job["id"], expect=None)
            lossi.until_ended(job["id"])

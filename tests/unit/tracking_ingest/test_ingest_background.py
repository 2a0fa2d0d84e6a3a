"""A page ingests what fits into its budget; a child of low priority does the rest and ends with its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ingest_support import World

from lossi import tracking
from lossi.tracking.ingest import background


@pytest.fixture
def published(world: World) -> World:
    """A project with five finished tasks that are not ingested yet."""
    world.job(tasks=5)
    for number in range(5):
        task = world.task(number)
        run = task.log.run(f"run {number}")
        task.log.metric(run, "loss", float(number))
        task.finish(run)
    return world


def test_what_fits_into_the_budget_is_ingested_at_once(published: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOSSI_INGEST_BUDGET_S", "60")
    report = tracking.catch_up(published.project)
    assert (report.taken, report.remaining) == (5, 0)
    assert tracking.search(published.project).total == 5


def test_a_child_ingests_what_the_page_had_no_time_for(published: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOSSI_INGEST_BUDGET_S", "0")
    report = tracking.catch_up(published.project)
    assert report.remaining > 0
    child = background._child
    assert child is not None
    assert child.wait(timeout=300) == 0
    assert tracking.search(published.project).total == 5
    assert tracking.catch_up(published.project).remaining == 0


def test_only_one_child_at_a_time(published: World) -> None:
    first = background.start_child(published.project)
    assert first is not None
    os.kill(first.pid, signal.SIGSTOP)  # SIGSTOP: it must not end meanwhile
    try:
        assert background.start_child(published.project) is None
    finally:
        os.kill(first.pid, signal.SIGCONT)
        first.wait(timeout=300)


def test_the_child_sees_no_secrets(published: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2hunter2")
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    child = background.start_child(published.project)
    assert child is not None
    os.kill(child.pid, signal.SIGSTOP)
    try:
        environment = Path(f"/proc/{child.pid}/environ").read_bytes()
        assert b"hunter2hunter2" not in environment and b"PYTHONPATH" not in environment
    finally:
        os.kill(child.pid, signal.SIGCONT)
        child.wait(timeout=300)


def test_the_child_ends_with_its_parent(published: World) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from lossi.projects import Project; from lossi.tracking.ingest import background;"
        "child = background.start_child(Project(Path(sys.argv[1]))); os.kill(child.pid, signal.SIGSTOP);"
        "print(child.pid, flush=True); os._exit(0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(published.project.root)], stdout=subprocess.PIPE, check=True, text=True
    )
    pid = int(done.stdout)
    os.kill(pid, signal.SIGCONT)
    deadline = time.monotonic() + 300
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not alive(pid)
    assert tracking.search(published.project).total == 0, "it ended without ingesting"


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False

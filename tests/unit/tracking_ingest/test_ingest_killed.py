"""Ingest killed at any point, or called by many at once, ends with the same rows."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from ingest_support import World, dump

from lossi.projects import Project
from lossi.tracking.ingest import session
from lossi.tracking.ingest.entry import ingest_runs

POINTS = 40


def fill(world: World) -> World:
    """Fill a project with ended and running tasks of three jobs, with registries, datasets, models and traces."""
    with world.store() as store:
        store.register("digits", None, 1)
        store.experiment("tuning")
    for job in (1, 2, 3):
        world.job(job, tasks=10)
    for job in (1, 2, 3):
        for number in range(10):
            task = world.task(number, job)
            time_ms = 1000 * job + number
            run = task.log.run(f"run {job}.{number}", "tuning" if number % 2 else f"made by job {job}", time_ms)
            task.log.sql.execute("BEGIN")
            for step in range(60):
                task.log.metric(run, "loss", 1 / (step + 1), step, time_ms + step)
            for key in ("a", "b"):
                task.log.tag(run, key, "1")
            task.log.param(run, "lr", str(number))
            task.log.dataset(run, "digits", "abc")
            task.log.model_tag(task.log.model(f"net {job}.{number}", run, time_ms), "k", "v")
            task.log.alias("digits", f"job{job}", task.log.register("digits", run, time_ms))
            task.log.trace(f"call {job}.{number}", "tuning", time_ms)
            task.log.sql.execute("COMMIT")
            if number < 7:
                task.finish(run)
            else:
                task.publish()
    return world


def continue_tasks(world: World) -> None:
    """Continue the running tasks, and end some."""
    for job in (1, 2, 3):
        for number in range(7, 10):
            task = world.task(number, job)
            (run,) = (row[0] for row in task.log.sql.execute("SELECT run_uuid FROM runs"))
            task.log.metric(run, "loss", 0.001, 99, 1)
            task.log.tag(run, "a", "2")
            task.log.tag(run, "b", None)
            task.finish(run) if number < 9 else task.publish()


def fork(work: Callable[[], object]) -> int:
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return child


def wait_for(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def copy_to(project: Project, to: Path) -> Project:
    shutil.copytree(project.root, to, symlinks=True)
    return Project(to)


def files(project: Project) -> list[str]:
    """Every file but those that a killed process leaves, which the next one with work reuses or removes."""
    names = sorted(str(path.relative_to(project.root)) for path in project.home.rglob("*") if path.is_file())
    return [
        name for name in names if not name.startswith((".lossi/.ingest.lease.", ".lossi/ingest.lease", ".lossi/mlflow.db-mj"))
    ]


@pytest.mark.slow
def test_killed_at_any_point_and_repeated_gives_the_same_rows(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "BATCH", 5)
    fill(world)
    first = copy_to(world.project, tmp_path / "first")
    ingest_runs(world.project)
    expected_first = dump(world.project), files(world.project)
    continue_tasks(world)
    second = copy_to(world.project, tmp_path / "second")
    began = time.monotonic()
    whole = copy_to(second, tmp_path / "whole")
    assert wait_for(fork(lambda: ingest_runs(whole))) == 0
    duration = time.monotonic() - began
    ingest_runs(world.project)
    expected_second = dump(world.project), files(world.project)
    assert (dump(whole), files(whole)) == expected_second

    chance = random.Random(6)
    died = 0
    for point in range(POINTS):
        start, expected = ((first, expected_first), (second, expected_second))[point % 2]
        project = copy_to(start, tmp_path / f"point {point}")
        while True:
            child = fork(lambda project=project: ingest_runs(project))  # type: ignore[misc]
            time.sleep(chance.uniform(0, duration))
            os.kill(child, signal.SIGKILL)
            if wait_for(child) == 0:
                break
            died += 1
        report = ingest_runs(project)
        assert (report.busy, report.problems) == (False, ())
        assert files(project) == expected[1]
        assert dump(project) == expected[0]
        shutil.rmtree(project.root)
    assert died >= POINTS / 4


@pytest.mark.slow
def test_killed_between_any_two_statements(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also between the commit, the removal of files and its record."""
    monkeypatch.setattr(session, "BATCH", 5)
    fill(world)
    start = copy_to(world.project, tmp_path / "start")
    statements = 0
    deadly = -1
    real = session.connect

    def counting(*arguments: object, **more: object) -> object:
        connection = real(*arguments, **more)  # type: ignore[call-overload]

        def count(_: str) -> None:
            nonlocal statements
            statements += 1
            if statements == deadly:
                os.kill(os.getpid(), signal.SIGKILL)

        connection.set_trace_callback(count)
        return connection

    removed = Path.unlink

    def remove(path: Path, missing_ok: bool = False) -> None:
        nonlocal statements
        statements += 1
        if statements == deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        removed(path, missing_ok=missing_ok)

    monkeypatch.setattr(session, "connect", counting)
    monkeypatch.setattr(Path, "unlink", remove)
    ingest_runs(world.project)
    expected, total = (dump(world.project), files(world.project)), statements
    chance = random.Random(7)
    for point in [*range(total - 40, total, 4), *(chance.randrange(1, total) for _ in range(20))]:
        project = copy_to(start, tmp_path / f"point {point}")
        statements, deadly = 0, point
        assert wait_for(fork(lambda project=project: ingest_runs(project))) == -signal.SIGKILL  # type: ignore[misc]
        deadly = -1
        assert ingest_runs(project).problems == ()
        assert files(project) == expected[1]
        assert dump(project) == expected[0]
        shutil.rmtree(project.root)


def test_what_killed_processes_left_is_removed_after_a_while(world: World) -> None:
    names = (".ingest.lease.0123.part", ".ingest.lease.0123.stale", "mlflow.db-mj0123456789", "lossi.db-mj0123456789")
    for age in (0, 1000):
        for name in names:
            (world.project.home / name).write_bytes(b"")
            os.utime(world.project.home / name, (time.time() - age, time.time() - age))
        world.task(0, 1 + age).log.run(f"run {age}")
        world.task(0, 1 + age).finish()
        assert ingest_runs(world.project).taken == 1
        assert all((world.project.home / name).exists() == (age == 0) for name in names)


@pytest.mark.slow
def test_fifty_processes_at_once_ingest_everything_once(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "BATCH", 5)
    fill(world)
    project = copy_to(world.project, tmp_path / "many")
    ingest_runs(world.project)
    children = [fork(lambda: ingest_runs(project)) for _ in range(50)]
    assert [wait_for(child) for child in children] == [0] * 50
    report = ingest_runs(project)
    assert (report.busy, report.problems, report.remaining) == (False, (), 0)
    assert (dump(project), files(project)) == (dump(world.project), files(world.project))

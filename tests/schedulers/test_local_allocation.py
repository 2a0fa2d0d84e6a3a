"""The local scheduler inside a Slurm allocation: a queue of its own, an end with the allocation, and what others see of it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from local_support import end_everything, supervisor, supervisors
from scheduler_jobs import JobFactory, Prepared, eventually

from lossi.contract import records
from lossi.contract.states import has_ended
from lossi.jobs.schedulers.base import JobView
from lossi.jobs.schedulers.local import journal, machine, queue
from lossi.jobs.schedulers.local.adapter import LocalScheduler

Enter = Callable[[str | None], LocalScheduler]


@pytest.fixture
def enter(surroundings: Path, boot_id_file: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Enter]:
    """Return the scheduler as a process in a Slurm job sees it, or outside of all (None)."""
    prepared: list[tuple[str | None, LocalScheduler]] = []

    def become(slurm_id: str | None) -> LocalScheduler:
        for name in (*machine.PASSED_ON, *machine.GPU_VARIABLES):
            monkeypatch.delenv(name, raising=False)
        if slurm_id is not None:
            for name, value in {"SLURM_JOB_ID": slurm_id, "SLURMD_NODENAME": "n1", "SLURM_CPUS_ON_NODE": "2"}.items():
                monkeypatch.setenv(name, value)
        local = LocalScheduler(boot_id_file=boot_id_file, ingest_command=(), linger_s=0.05)
        local.places.make()
        prepared.append((slurm_id, local))
        return local

    yield become
    for slurm_id, _ in list(prepared):
        end_everything(become(slurm_id))
    monkeypatch.undo()


WAITS = "echo $$ >pid.$LOSSI_TASK; while [ ! -f go ]; do sleep 0.02; done"


def test_two_allocations_on_one_node_have_a_queue_and_a_supervisor_each(enter: Enter, tmp_path: Path) -> None:
    first = enter("101")
    mine = JobFactory(tmp_path / "jobs", first)(WAITS)
    first.submit(mine.job, mine.directory)
    its = supervisor(first)
    second = enter("102")
    other = JobFactory(tmp_path / "jobs", second)(WAITS)
    second.submit(other.job, other.directory)
    assert supervisor(second) != its
    assert (first.places.root.name, second.places.root.name) == (f"{first.host}.slurm-101", f"{first.host}.slurm-102")
    assert records.load(queue.Entry, second.places.entry(other.job.id)).allocation == "102"
    for prepared in (mine, other):
        (prepared.directory / "go").touch()
    eventually(lambda: second.poll([other.handle])[other.job.id].state == "succeeded", "the second has ended")
    eventually(lambda: second.poll([mine.handle])[mine.job.id].state == "succeeded", "the first has ended, as seen from it")


def test_tasks_end_in_order_when_their_allocation_does(enter: Enter, tmp_path: Path) -> None:
    """Slurm sends SIGTERM to all of them, the supervisor included."""
    local = enter("101")
    prepared = JobFactory(tmp_path / "jobs", local)(WAITS, tasks=3, max_parallel=1)
    local.submit(prepared.job, prepared.directory)
    eventually(lambda: prepared.read("pid.0"), "the first task runs")
    os.kill(supervisor(local), signal.SIGTERM)
    view = eventually(lambda: ended(local, prepared), "all have ended")
    reason = "the Slurm job 101, in which it ran, has ended"
    assert [(view.tasks[task].state, view.tasks[task].reason) for task in range(3)] == [
        ("cancelled", reason),
        ("cancelled", f"{reason} before it started"),
        ("cancelled", f"{reason} before it started"),
    ]
    assert records.load(records.TaskExit, prepared.directory / "tasks/0/exit.json").reason == reason


def test_tasks_end_in_order_when_what_slurm_has_started_ends(
    enter: Enter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without control groups Slurm does not find a supervisor."""
    batch = subprocess.Popen(["sleep", "600"])
    local = enter("101")
    monkeypatch.setenv("SLURM_TASK_PID", str(batch.pid))
    prepared = JobFactory(tmp_path / "jobs", local)(WAITS, tasks=2, max_parallel=1)
    local.submit(prepared.job, prepared.directory)
    eventually(lambda: prepared.read("pid.0"), "the first task runs")
    batch.kill()
    batch.wait()
    outside = enter(None)
    view = eventually(lambda: ended(outside, prepared), "all have ended")
    assert {view.tasks[task].state for task in range(2)} == {"cancelled"}
    eventually(lambda: not supervisors(local), "the supervisor has ended")


def test_what_is_submitted_while_the_allocation_ends_is_not_started(enter: Enter, tmp_path: Path) -> None:
    local = enter("101")
    factory = JobFactory(tmp_path / "jobs", local)
    first, second = factory("trap 'sleep 0.3; exit' TERM; " + WAITS), factory("touch ran")
    local.submit(first.job, first.directory)
    eventually(lambda: first.read("pid.0"), "the first task runs")
    os.kill(supervisor(local), signal.SIGTERM)
    local.submit(second.job, second.directory)
    view = eventually(lambda: ended(local, second), "it is given up")
    assert view.state == "cancelled"
    assert not (second.directory / "ran").exists()


def ended(local: LocalScheduler, prepared: Prepared) -> JobView | None:
    view = local.poll([prepared.handle])[prepared.job.id]
    return view if has_ended(view.state) else None


def gone(local: LocalScheduler, prepared: Prepared, *tasks: int) -> None:
    """End all that runs without a word, as Slurm does when a batch script has ended."""
    for pid in (supervisor(local), *(int(prepared.read(f"pid.{task}")) for task in tasks)):
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: not supervisors(local), "the supervisor has ended")


def test_a_dead_allocation_is_seen_as_such_from_elsewhere(enter: Enter, tmp_path: Path) -> None:
    inside = enter("101")
    prepared = JobFactory(tmp_path / "jobs", inside)(WAITS, tasks=4, max_parallel=2)
    inside.submit(prepared.job, prepared.directory)
    eventually(lambda: prepared.read("pid.0") and prepared.read("pid.1"), "two tasks run")
    outside = enter(None)
    assert outside.poll([prepared.handle])[prepared.job.id].state == "running"
    gone(inside, prepared, 0, 1)
    left = records.TaskExit(0, "succeeded", 0, ended="2026-01-01T00:00:00Z")
    (prepared.directory / "tasks/0/exit.json").write_bytes(records.dump(left))
    assert outside.poll([prepared.handle])[prepared.job.id].state == "running", "it may only be slow to show"
    assert supervisors(inside) == [], "what is started outside would not end with the allocation"
    past = time.time() - 2 * journal.SILENT_S
    os.utime(prepared.directory / journal.NAME, (past, past))
    view = outside.poll([prepared.handle])[prepared.job.id]
    reason = f"the Slurm job 101, in which it ran on {outside.host}, has ended"
    assert [(view.tasks[task].state, view.tasks[task].reason) for task in range(4)] == [
        ("succeeded", ""),
        ("failed", f"{reason}, and it left no exit record"),
        ("cancelled", f"{reason} before it started"),
        ("cancelled", f"{reason} before it started"),
    ]
    assert view.state == "failed"
    assert supervisors(inside) == []
    (prepared.directory / "go").touch()


def test_a_living_allocation_gives_signs_of_life(enter: Enter, tmp_path: Path) -> None:
    inside = enter("101")
    prepared = JobFactory(tmp_path / "jobs", inside)(WAITS)
    inside.submit(prepared.job, prepared.directory)
    supervisor(inside)
    eventually(lambda: prepared.read("pid.0"), "the task runs")
    os.kill(supervisor(inside), signal.SIGKILL)
    past = time.time() - 2 * journal.SILENT_S
    os.utime(prepared.directory / journal.NAME, (past, past))

    def beats() -> bool:
        inside.poll([prepared.handle])  # from inside another supervisor is started
        return (prepared.directory / journal.NAME).stat().st_mtime > past + 1

    eventually(beats, "the journal is touched")
    assert enter(None).poll([prepared.handle])[prepared.job.id].state == "running"
    (prepared.directory / "go").touch()


def test_a_job_in_an_allocation_can_be_cancelled_from_elsewhere(enter: Enter, tmp_path: Path) -> None:
    inside = enter("101")
    prepared = JobFactory(tmp_path / "jobs", inside)(WAITS)
    inside.submit(prepared.job, prepared.directory)
    eventually(lambda: prepared.read("pid.0"), "the task runs")
    outside = enter(None)
    outside.cancel(prepared.handle, None)
    assert eventually(lambda: ended(outside, prepared), "it has ended").state == "cancelled"
    assert outside.find(prepared.job.id) is not None

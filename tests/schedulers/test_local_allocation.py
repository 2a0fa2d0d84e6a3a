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
from scheduler_jobs import JobFactory, Made, eventually

from lossi.contract import records
from lossi.contract.states import has_ended
from lossi.jobs.schedulers.base import JobView
from lossi.jobs.schedulers.local import journal, machine, queue
from lossi.jobs.schedulers.local.adapter import LocalScheduler

Enter = Callable[[str | None], LocalScheduler]


@pytest.fixture
def enter(surroundings: Path, boot_id_file: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Enter]:
    """Return the scheduler as a process in a Slurm job sees it, or outside of all (None)."""
    made: list[tuple[str | None, LocalScheduler]] = []

    def become(slurm_id: str | None) -> LocalScheduler:
        for name in (*machine.PASSED_ON, *machine.GPU_VARIABLES):
            monkeypatch.delenv(name, raising=False)
        if slurm_id is not None:
            for name, value in {"SLURM_JOB_ID": slurm_id, "SLURMD_NODENAME": "n1", "SLURM_CPUS_ON_NODE": "2"}.items():
                monkeypatch.setenv(name, value)
        local = LocalScheduler(boot_id_file=boot_id_file, ingest_command=(), linger_s=0.05)
        local.places.make()
        made.append((slurm_id, local))
        return local

    yield become
    for slurm_id, _ in list(made):
        end_everything(become(slurm_id))
    monkeypatch.undo()


WAITS = "echo $$ >pid.$LOSSI_TASK; while [ ! -f go ]; do sleep 0.02; done"


def test_two_allocations_on_one_node_have_a_queue_and_a_supervisor_each(enter: Enter, tmp_path: Path) -> None:
    first = enter("101")
    one = JobFactory(tmp_path / "jobs", first)(WAITS)
    first.submit(one.job, one.directory)
    its = supervisor(first)
    second = enter("102")
    other = JobFactory(tmp_path / "jobs", second)(WAITS)
    second.submit(other.job, other.directory)
    assert supervisor(second) != its
    assert (first.places.root.name, second.places.root.name) == (f"{first.host}.slurm-101", f"{first.host}.slurm-102")
    assert records.load(queue.Entry, second.places.entry(other.job.id)).allocation == "102"
    for made in (one, other):
        (made.directory / "go").touch()
    eventually(lambda: second.poll([other.handle])[other.job.id].state == "succeeded", "the second has ended")
    eventually(lambda: second.poll([one.handle])[one.job.id].state == "succeeded", "the first has ended, as seen from it")


def test_tasks_end_in_order_when_their_allocation_does(enter: Enter, tmp_path: Path) -> None:
    """Slurm sends SIGTERM to all of them, the supervisor included."""
    local = enter("101")
    made = JobFactory(tmp_path / "jobs", local)(WAITS, tasks=3, max_parallel=1)
    local.submit(made.job, made.directory)
    eventually(lambda: made.read("pid.0"), "the first task runs")
    os.kill(supervisor(local), signal.SIGTERM)
    view = eventually(lambda: ended(local, made), "all have ended")
    reason = "the Slurm job 101, in which it ran, has ended"
    assert [(view.tasks[task].state, view.tasks[task].reason) for task in range(3)] == [
        ("cancelled", reason),
        ("cancelled", f"{reason} before it started"),
        ("cancelled", f"{reason} before it started"),
    ]
    assert records.load(records.TaskExit, made.directory / "tasks/0/exit.json").reason == reason


def test_tasks_end_in_order_when_what_slurm_has_started_ends(
    enter: Enter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without control groups Slurm does not find a supervisor."""
    batch = subprocess.Popen(["sleep", "600"])
    local = enter("101")
    monkeypatch.setenv("SLURM_TASK_PID", str(batch.pid))
    made = JobFactory(tmp_path / "jobs", local)(WAITS, tasks=2, max_parallel=1)
    local.submit(made.job, made.directory)
    eventually(lambda: made.read("pid.0"), "the first task runs")
    batch.kill()
    batch.wait()
    outside = enter(None)
    view = eventually(lambda: ended(outside, made), "all have ended")
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


def ended(local: LocalScheduler, made: Made) -> JobView | None:
    view = local.poll([made.handle])[made.job.id]
    return view if has_ended(view.state) else None


def gone(local: LocalScheduler, made: Made, *tasks: int) -> None:
    """End all that runs without a word, as Slurm does when a batch script has ended."""
    for pid in (supervisor(local), *(int(made.read(f"pid.{task}")) for task in tasks)):
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: not supervisors(local), "the supervisor has ended")


def test_a_dead_allocation_is_seen_as_such_from_elsewhere(enter: Enter, tmp_path: Path) -> None:
    inside = enter("101")
    made = JobFactory(tmp_path / "jobs", inside)(WAITS, tasks=4, max_parallel=2)
    inside.submit(made.job, made.directory)
    eventually(lambda: made.read("pid.0") and made.read("pid.1"), "two tasks run")
    outside = enter(None)
    assert outside.poll([made.handle])[made.job.id].state == "running"
    gone(inside, made, 0, 1)
    left = records.TaskExit(0, "succeeded", 0, ended="2026-01-01T00:00:00Z")
    (made.directory / "tasks/0/exit.json").write_bytes(records.dump(left))
    assert outside.poll([made.handle])[made.job.id].state == "running", "it may only be slow to show"
    assert supervisors(inside) == [], "what is started outside would not end with the allocation"
    past = time.time() - 2 * journal.SILENT_S
    os.utime(made.directory / journal.NAME, (past, past))
    view = outside.poll([made.handle])[made.job.id]
    said = f"the Slurm job 101, in which it ran on {outside.host}, has ended"
    assert [(view.tasks[task].state, view.tasks[task].reason) for task in range(4)] == [
        ("succeeded", ""),
        ("failed", f"{said}, and it left no exit record"),
        ("cancelled", f"{said} before it started"),
        ("cancelled", f"{said} before it started"),
    ]
    assert view.state == "failed"
    assert supervisors(inside) == []
    (made.directory / "go").touch()


def test_a_living_allocation_gives_signs_of_life(enter: Enter, tmp_path: Path) -> None:
    inside = enter("101")
    made = JobFactory(tmp_path / "jobs", inside)(WAITS)
    inside.submit(made.job, made.directory)
    supervisor(inside)
    eventually(lambda: made.read("pid.0"), "the task runs")
    os.kill(supervisor(inside), signal.SIGKILL)
    past = time.time() - 2 * journal.SILENT_S
    os.utime(made.directory / journal.NAME, (past, past))

    def beats() -> bool:
        inside.poll([made.handle])  # from inside another supervisor is started
        return (made.directory / journal.NAME).stat().st_mtime > past + 1

    eventually(beats, "the journal is touched")
    assert enter(None).poll([made.handle])[made.job.id].state == "running"
    (made.directory / "go").touch()


def test_a_job_in_an_allocation_can_be_cancelled_from_elsewhere(enter: Enter, tmp_path: Path) -> None:
    inside = enter("101")
    made = JobFactory(tmp_path / "jobs", inside)(WAITS)
    inside.submit(made.job, made.directory)
    eventually(lambda: made.read("pid.0"), "the task runs")
    outside = enter(None)
    outside.cancel(made.handle, None)
    assert eventually(lambda: ended(outside, made), "it has ended").state == "cancelled"
    assert outside.find(made.job.id) is not None

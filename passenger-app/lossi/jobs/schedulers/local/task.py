"""A started task: its process, stopping it, and what it leaves in its folder.

Imported by the supervisor alone. Writes only ``tasks/<n>/ending.json`` and, if the task wrote none, ``exit.json``.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from lossi import processes
from lossi.contract import records
from lossi.contract.records import Ending, TaskExit
from lossi.errors import LossiError
from lossi.files import atomic
from lossi.jobs.schedulers.local import verdict
from lossi.jobs.schedulers.local.journal import Started, now
from lossi.jobs.schedulers.local.queue import Entry
from lossi.jobs.schedulers.local.task_processes import DEFAULT_SIGNALS, Member

GATE = 'cd -- "$1" && read -r go && exec /bin/sh "$1/script.sh" >>"$2" 2>&1 </dev/null'
"""Waits until its start is recorded. If the supervisor dies before, the pipe ends and the task never runs.

The log is opened by the same command, so a started task without a log is one that never ran.
"""
SWEEP_LIMIT_S = 30.0
"""How long to wait for processes that SIGKILL does not end (stuck in the kernel), in seconds."""

clock = time.monotonic


class Task:
    """A started task. Its process is a child of this supervisor, or was adopted from one that died."""

    def __init__(self, entry: Entry, number: int, begun: Started, *, child: bool) -> None:
        self.entry = entry
        self.number = number
        self.begun = begun
        self.child = child
        self.folder = task_folder(entry, number)
        self.member = Member(entry.job_id, number, begun.pid, begun.start)
        self.status: int | None = None
        """Wait status, once the process was reaped."""
        self.gone = False
        self.restarted = False
        self.ending: Ending | None = None
        """Why it was told to stop; None if it was not, or had ended before."""
        self.kill_at: float | None = None
        self.sweep_until: float | None = None
        self.used_mb = 0.0
        self.pidfd: int | None = None
        self._gate: int | None = None

    @property
    def deadline(self) -> float | None:
        """The monotonic time at which its time limit is reached."""
        limit = self.entry.time_limit_s
        return None if limit is None or self.kill_at is not None else self.begun.clock + limit

    @property
    def never_ran(self) -> bool:
        """Whether its supervisor died before letting it run."""
        return not self.child and not self.restarted and self.folder.is_dir() and not (self.folder / records.LOG).exists()

    def release(self) -> None:
        """Let the process run the script: its start is recorded."""
        if self._gate is not None:
            with contextlib.suppress(OSError):  # killed meanwhile: its end will be noticed
                os.write(self._gate, b"go\n")
            self.abandon()

    def abandon(self) -> None:
        """Let the waiting process end without running the script."""
        if self._gate is not None:
            os.close(self._gate)
            self._gate = None

    def adopt(self, boot_id: str) -> None:
        """Find the process that another supervisor started, or that it is gone."""
        self.restarted = self.begun.boot_id != boot_id
        self.ending = records.load_optional(Ending, self.folder / records.ENDING)
        if not self.restarted:
            self.pidfd = processes.open_pidfd(self.begun.pid, self.begun.start)
        if self.pidfd is None:
            self.gone = True
            # Its number may belong to someone else by now.
            self.member = Member(self.entry.job_id, self.number)
        elif self.ending is not None:
            self._terminate()

    def stop(self, state: str, reason: str, say: Callable[[str], None]) -> bool:
        """Tell it to end, and write the reason for the runner; return False if it was told already."""
        if self.kill_at is not None or self.gone:
            return False
        if not (self.folder / records.EXIT).exists():  # otherwise it has ended by itself and only cleans up
            self.ending = Ending(state, reason)
            try:
                atomic.write(self.folder / records.ENDING, records.dump(self.ending))
            except LossiError as error:
                say(f"task {self.entry.job_id}.{self.number}: {error}")
        self._terminate()
        return True

    def settle(self, say: Callable[[str], None]) -> verdict.Verdict:
        """Return how it ended, and correct exit.json if it differs."""
        path = self.folder / records.EXIT
        exit_file = records.load_optional(TaskExit, path)
        end = verdict.of_end(exit_file, self.ending, self.status, restarted=self.restarted)
        fixed = verdict.corrected(
            exit_file,
            end,
            task=self.number,
            host=self.begun.host,
            started=self.begun.time,
            ended=now(),
            elapsed_s=self._elapsed(),
        )
        if fixed is not None:
            try:
                atomic.write(path, records.dump(fixed))
            except LossiError as error:
                say(f"task {self.entry.job_id}.{self.number}: {error}")
        return end

    def close(self) -> None:
        """Close the descriptors."""
        self.abandon()
        if self.pidfd is not None:
            os.close(self.pidfd)
            self.pidfd = None

    def _elapsed(self) -> float:
        return 0.0 if self.restarted else round(max(0.0, clock() - self.begun.clock), 3)

    def _terminate(self) -> None:
        self.kill_at = clock() + self.entry.grace_s
        if not self.child and not processes.alive(self.begun.pid, self.begun.start):
            return
        for number in (signal.SIGTERM, signal.SIGCONT):  # a stopped process gets its SIGTERM when it continues
            with contextlib.suppress(OSError):
                os.killpg(self.begun.pid, number)


def task_folder(entry: Entry, number: int) -> Path:
    """Return ``<job>/tasks/<n>``."""
    return Path(entry.directory) / records.TASK_FOLDER / str(number)


def start_waiting(entry: Entry, number: int, gpus: Sequence[str], boot_id: str) -> Task:
    """Start a task's process; it waits for `Task.release` before its first instruction.

    Raises
    ------
    OSError
        If its folder cannot be made or the process cannot be started.
    """
    folder = task_folder(entry, number)
    for missing in (folder.parent, folder):  # not the job directory: a deleted one stays deleted
        missing.mkdir(exist_ok=True)
    read_end, write_end = os.pipe()
    try:
        pid = os.posix_spawn(
            "/bin/sh",
            ["/bin/sh", "-c", GATE, "lossi-task", entry.directory, str(folder / records.LOG)],
            environment(entry, number, gpus),
            file_actions=[(os.POSIX_SPAWN_DUP2, read_end, 0)],
            setsid=True,
            setsigmask=(),
            setsigdef=DEFAULT_SIGNALS,
        )
    except OSError:
        os.close(write_end)
        raise
    finally:
        os.close(read_end)
    process = processes.inspect(pid)  # a child that was not reaped: its line exists even if it has ended
    start = process.start if process is not None else 0
    task = Task(entry, number, Started(pid, start, boot_id, clock(), entry.host, now(), tuple(gpus)), child=True)
    task._gate = write_end
    return task


def environment(entry: Entry, number: int, gpus: Sequence[str]) -> dict[str, str]:
    """Return the complete environment of a task's script."""
    visible = ",".join(gpus)
    return {
        **entry.environment,
        "LOSSI_JOB_ID": entry.job_id,
        "LOSSI_TASK": str(number),
        "OMP_NUM_THREADS": str(entry.cpus),
        # nvidia-smi numbers by PCI bus, CUDA by default the fastest first.
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": visible,
        "ROCR_VISIBLE_DEVICES": visible,
    }

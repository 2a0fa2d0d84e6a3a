"""``<job>/local.jsonl``: what happened to each task, line after line, written by the supervisor alone.

It is in the job directory, so that it stays with a project that is moved or copied. Lines (all with
``event`` and ``time``)::

    queued    tasks, host, queue, allocation          the supervisor that keeps this queue has seen the job
    started   task, pid, start, boot, clock, host, gpus   durable before the task's first instruction
    requeued  task                                    the supervisor died before it started; it never ran
    ending    task, state, reason                     told to stop
    ended     task | ranges, state, exit_code, signal, reason

Later lines win. A truncated line is ignored. In a Slurm allocation the supervisor touches the file every
`BEAT_S`: nobody outside can see whether the processes of an allocation are alive.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lossi.contract.states import RUNNING
from lossi.jobs.schedulers.base import TaskView

NAME = "local.jsonl"
BEAT_S = 30.0
SILENT_S = 300.0
"""After this time without a sign of life the allocation has ended: ten beats, for filesystems with late times."""
WAITING_WORD, RUNNING_WORD, STOPPING_WORD, ENDED_WORD = "WAITING", "RUNNING", "STOPPING", "ENDED"


def now() -> str:
    """Return the time in UTC, ISO 8601 with milliseconds."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")


@dataclass(frozen=True, slots=True)
class Started:
    """A task's process at its start."""

    pid: int
    start: int
    """Clock ticks since boot."""
    boot_id: str
    clock: float
    """Seconds of CLOCK_MONOTONIC, which all processes share until the machine restarts."""
    host: str
    time: str
    gpus: tuple[str, ...] = ()


class History:
    """The content of a journal, read incrementally: reading it again costs only the new lines."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.host: str | None = None
        self.allocation = ""
        """The Slurm job in which the tasks run."""
        self.queue: Path | None = None
        """State folder of the supervisor; submitters with another environment may use another."""
        self.started: dict[int, Started] = {}
        """Tasks that run according to the last line."""
        self.views: dict[int, TaskView] = {}
        """Tasks that run or have ended."""
        self.ended = 0
        self._file: tuple[int, int] | None = None
        self._offset = 0

    def update(self) -> bool:
        """Read what was added since the last call; return False if there is no journal.

        Raises
        ------
        OSError
            If it exists and cannot be read.
        """
        try:
            with self.path.open("rb") as stream:
                status = os.fstat(stream.fileno())
                if self._file != (status.st_dev, status.st_ino) or status.st_size < self._offset:
                    self.__init__(self.path)  # type: ignore[misc]  # another file of the same name: start again
                    self._file = (status.st_dev, status.st_ino)
                stream.seek(self._offset)
                data = stream.read()
        except (FileNotFoundError, NotADirectoryError):
            return False
        whole = data.rfind(b"\n") + 1
        self._offset += whole
        for line in data[:whole].splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):
                self._take(json.loads(line))
        return True

    def silent_s(self) -> float:
        """Return for how many seconds the supervisor has shown no sign of life (by this machine's clock)."""
        try:
            return time.time() - self.path.stat().st_mtime
        except OSError:
            return 0.0

    def _take(self, line: dict[str, Any]) -> None:
        event = line["event"]
        if event == "queued":
            self.host = line["host"]
            self.queue = Path(line["queue"])
            self.allocation = line.get("allocation", "")
        elif event == "started":
            gpus = tuple(line.get("gpus", ()))
            begun = Started(line["pid"], line["start"], line["boot"], line["clock"], line["host"], line["time"], gpus)
            self.started[line["task"]] = begun
            self.views[line["task"]] = TaskView(RUNNING, RUNNING_WORD, host=begun.host, started=begun.time)
        elif event == "requeued":
            self.started.pop(line["task"], None)
            self.views.pop(line["task"], None)
        elif event == "ending":
            begun = self.started[line["task"]]
            self.views[line["task"]] = TaskView(RUNNING, STOPPING_WORD, line["reason"], host=begun.host, started=begun.time)
        elif event == "ended":
            self._take_end(line)

    def _take_end(self, line: dict[str, Any]) -> None:
        def view(begun: Started | None) -> TaskView:
            return TaskView(
                state=line["state"],
                scheduler_state=ENDED_WORD,
                reason=line.get("reason", ""),
                exit_code=line.get("exit_code"),
                signal=line.get("signal"),
                host=begun.host if begun else None,
                started=begun.time if begun else None,
                ended=line["time"],
            )

        never_started = view(None)
        for first, last in line.get("ranges") or [(line["task"], line["task"])]:
            for task in range(first, last + 1):
                begun = self.started.pop(task, None)
                before = self.views.get(task)
                if before is None or before.ended is None:
                    self.ended += 1
                self.views[task] = view(begun) if begun else never_started


class Journal:
    """The writer of a journal. Lines are kept until `flush`; while the disk is full they are tried again."""

    def __init__(self, path: Path, host: str) -> None:
        self.path = path
        self._host = host
        self._descriptor: int | None = None
        self._pending: list[bytes] = []
        self._unsynced = False

    def queued(self, tasks: int, queue: Path, allocation: str = "") -> None:
        """Note that the job was seen."""
        line = {"event": "queued", "tasks": tasks, "host": self._host, "queue": str(queue)}
        self._add(line | ({"allocation": allocation} if allocation else {}))

    def beat(self) -> None:
        """Show a sign of life."""
        with contextlib.suppress(OSError):
            os.utime(self.path)

    def started(self, task: int, begun: Started) -> None:
        """Note a task's process; must be durable before the task may run."""
        line = {"event": "started", "task": task, "pid": begun.pid, "start": begun.start, "boot": begun.boot_id}
        line |= {"clock": round(begun.clock, 3), "host": begun.host, "time": begun.time}
        self._add(line | ({"gpus": list(begun.gpus)} if begun.gpus else {}))

    def requeued(self, task: int) -> None:
        """Note that a task did not start after all."""
        self._add({"event": "requeued", "task": task})

    def ending(self, task: int, state: str, reason: str) -> None:
        """Note that a task was told to stop."""
        self._add({"event": "ending", "task": task, "state": state, "reason": reason})

    def ended(self, task: int, state: str, exit_code: int | None, number: int | None, reason: str) -> None:
        """Note how a task ended."""
        line = {"event": "ended", "task": task, "state": state, "exit_code": exit_code, "signal": number, "reason": reason}
        self._add({key: value for key, value in line.items() if value not in (None, "")})

    def never_started(self, tasks: Sequence[int], state: str, reason: str) -> None:
        """Note the end of waiting tasks (ascending numbers) in one line."""
        self._add({"event": "ended", "ranges": list(_ranges(tasks)), "state": state, "reason": reason})

    def flush(self, *, durable: bool = False) -> bool:
        """Write the kept lines; return whether all are in the file (with ``durable``: on disk)."""
        if not self._pending and not (durable and self._unsynced):
            return True
        try:
            descriptor = self._opened()
            while self._pending:
                data = b"".join(self._pending)
                written = os.write(descriptor, data)
                # After a short write the rest starts a new line; the truncated one is ignored and written again.
                self._pending = [] if written == len(data) else [b"\n", *_from_line(self._pending, written)]
                self._unsynced = True
            if durable and self._unsynced:
                os.fdatasync(descriptor)
                self._unsynced = False
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _opened(self) -> int:
        if self._descriptor is None:
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            self._descriptor = os.open(self.path, flags, 0o640)
            size = os.fstat(self._descriptor).st_size
            if size and os.pread(self._descriptor, 1, size - 1) != b"\n":
                self._pending.insert(0, b"\n")
        return self._descriptor

    def _add(self, line: dict[str, Any]) -> None:
        line.setdefault("time", now())
        self._pending.append(json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n")


def _from_line(lines: Iterable[bytes], written: int) -> list[bytes]:
    """Return the lines that are not complete within the first ``written`` bytes."""
    rest: list[bytes] = []
    end = 0
    for line in lines:
        end += len(line)
        if end > written:
            rest.append(line)
    return rest


def _ranges(tasks: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield the runs of consecutive numbers as (first, last)."""
    first = last = None
    for task in tasks:
        if last is not None and task == last + 1:
            last = task
            continue
        if first is not None and last is not None:
            yield first, last
        first = last = task
    if first is not None and last is not None:
        yield first, last

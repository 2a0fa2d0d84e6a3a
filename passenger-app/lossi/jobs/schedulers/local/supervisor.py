"""The supervisor: one process per user and host that starts, limits, stops and records the tasks in the queue.

Started by `launch` with the lock; ends a moment after its queue is empty. Single-threaded: it sleeps until a child ends, the
FIFO is written, an adopted process ends or a time is due. Everything it knows is also on disk, so it may be killed at any
moment: the next one reads the journals and continues. It imports little, because it must be ready within a tenth of a second.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import selectors
import signal
import socket
import time
import traceback
from collections.abc import Iterator
from pathlib import Path

from lossi import processes
from lossi.contract.states import TIMED_OUT
from lossi.jobs.schedulers.local import queue, task_processes
from lossi.jobs.schedulers.local.capacity import Capacity
from lossi.jobs.schedulers.local.daemon import prepare_process, rotate_log, say
from lossi.jobs.schedulers.local.ingest import Ingest
from lossi.jobs.schedulers.local.job import Job
from lossi.jobs.schedulers.local.machine import allocation
from lossi.jobs.schedulers.local.queue import Holder, Places
from lossi.jobs.schedulers.local.task import SWEEP_LIMIT_S, Task, start_waiting
from lossi.jobs.schedulers.local.tenancy import Tenancy

SLOW_POLL_S = 2.0
"""Interval of checks for what the FIFO does not tell (a cancel.json written on another host)."""
RETRY_S = 0.02
"""Interval of checks of processes that were sent SIGKILL."""
HOLD_S = 2.0
"""Pause after a start failed: the disk is full or no process can be made."""
BATCH = 64
"""Maximum tasks started before everything else is checked again."""

clock = time.monotonic


class Supervisor:
    """Runs the queue of one host."""

    def __init__(self, places: Places, lock: int, boot_id: str, linger_s: float) -> None:
        self.places = places
        self.lock = lock
        self.boot_id = boot_id
        self.linger_s = linger_s
        self.jobs: dict[str, Job] = {}
        self.table = task_processes.Table()
        self.capacity = Capacity(self.table)
        self.ingest = Ingest(say)
        self.tenancy = Tenancy(allocation(os.environ))
        self.ready = self.unread = False
        """Whether the queue has entries that cannot be read now."""
        self.next_look = 0.0
        self.idle_since = clock()
        self.selector = selectors.DefaultSelector()

    # -- the loop ----------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Run until the queue is empty and stays so."""
        self._listen()
        while True:
            try:
                self._step()
            except Exception:  # tasks are running and must not be left alone
                say(traceback.format_exc())
                time.sleep(0.5)
            if self._may_end() and self._end():
                return
            self._wait()

    def _step(self) -> None:
        self._reap()
        self._look()
        self.tenancy.step(self.jobs.values(), say)
        self._enforce()
        self._start()
        self._finish_jobs()
        running = any(job.running for job in self.jobs.values())
        if not running:
            self._end_strays()
        self.ingest.step(clock(), quiet=not running)
        if not self.ready and not any(task.gone for task in self._tasks()):
            me = processes.inspect(os.getpid())
            queue.write_holder(self.lock, Holder(os.getpid(), me.start if me else 0, self.boot_id, os.uname().nodename))
            self.ready = True

    def _tasks(self) -> Iterator[Task]:
        for job in self.jobs.values():
            yield from job.running.values()

    def _listen(self) -> None:
        with contextlib.suppress(FileExistsError):
            os.mkfifo(self.places.wake, 0o600)
        # For reading and writing, so that it never reaches its end.
        self.fifo = os.open(self.places.wake, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self.selector.register(self.fifo, selectors.EVENT_READ)
        self.signals, writer = socket.socketpair()
        self.signals.setblocking(False)
        writer.setblocking(False)
        signal.set_wakeup_fd(writer.detach(), warn_on_full_buffer=False)
        self.selector.register(self.signals, selectors.EVENT_READ)

    def _wait(self) -> None:
        due = min(self._due())
        cancelled: set[str] = set()
        for key, _ in self.selector.select(max(0.0, due - clock())):
            if key.fd == self.fifo:
                with contextlib.suppress(BlockingIOError):
                    cancelled.update(os.read(self.fifo, 65536).decode("ascii", "replace").split())
                self._read_queue()
            elif key.fd == self.signals.fileno():
                with contextlib.suppress(BlockingIOError):
                    self.signals.recv(65536)
            else:  # an adopted process has ended
                self.selector.unregister(key.fd)
                key.data.gone = True
        for job_id in cancelled & self.jobs.keys():
            self.jobs[job_id].look_for_cancel(say)

    def _due(self) -> Iterator[float]:
        """Yield the monotonic times at which something is due."""
        yield self.next_look
        if not self.jobs and not self.ingest.busy:
            yield self.idle_since + self.linger_s
        ingest = self.ingest.due()
        if ingest is not None:
            yield ingest
        for job in self.jobs.values():
            if job.waiting and job.held_until > clock():
                yield job.held_until
        for task in self._tasks():
            if task.gone:
                yield clock() + RETRY_S
            elif task.kill_at is not None:
                yield task.kill_at
            elif task.deadline is not None:
                yield task.deadline
            if task.entry.memory_mb is not None:
                yield self.capacity.next_sample

    def _may_end(self) -> bool:
        if self.jobs or self.ingest.busy or self.unread:
            self.idle_since = clock()
            return False
        return clock() >= self.idle_since + self.linger_s

    def _end(self) -> bool:
        """Release the lock; return False if a job arrived meanwhile and the lock was taken again."""
        if not self._reigns():
            return True
        queue.forget_old(self.places)
        queue.write_holder(self.lock, None)
        fcntl.flock(self.lock, fcntl.LOCK_UN)
        # Whoever added a job before the line above relies on this check; whoever does so after it starts another supervisor.
        if not queue.waiting(self.places):
            return True
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True  # another supervisor has been started for it
        self.ready = False
        self.next_look = 0.0
        return False

    def _reigns(self) -> bool:
        """Return whether others see the lock that is held here; not after the state folder was deleted."""
        try:
            return os.path.samestat(self.places.lock.stat(), os.fstat(self.lock))
        except FileNotFoundError:
            return False

    # -- the queue ---------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Check now and then for what the FIFO does not tell."""
        if clock() < self.next_look:
            return
        self.next_look = clock() + SLOW_POLL_S
        self._read_queue()
        for job in self.jobs.values():
            job.look_for_cancel(say)
        rotate_log(self.places.log)

    def _read_queue(self) -> None:
        if not self._reigns():  # new entries belong to another supervisor; running tasks are finished here
            return
        new = queue.waiting(self.places) - self.jobs.keys()
        self.unread = False
        for job_id in new:
            try:
                self._take_up(job_id)
            except OSError as error:
                say(f"job {job_id} waits: {error}")
                self.unread = True
        if new:
            self.jobs = dict(sorted(self.jobs.items(), key=lambda item: item[1].order))
            # The user sets the number of slots: the latest one counts.
            self.capacity.slots = next((job.entry.slots for job in reversed(self.jobs.values())), 1)

    def _take_up(self, job_id: str) -> None:
        try:
            job = Job(queue.read(self.places, job_id))
        except FileNotFoundError:
            return
        except ValueError as error:
            say(f"entry {job_id} is set aside: {error}")
            queue.set_aside(self.places, job_id)
            return
        try:
            job.load(self.boot_id, self.places.root)
        except (FileNotFoundError, NotADirectoryError):
            say(f"job {job_id} is dropped: its directory is gone")
            queue.finish(self.places, job_id)
            return
        for task in job.running.values():
            if task.pidfd is not None:
                self.selector.register(task.pidfd, selectors.EVENT_READ, task)
        self.jobs[job_id] = job
        job.look_for_cancel(say)

    def _finish_jobs(self) -> None:
        for job in list(self.jobs.values()):
            written = job.journal.flush(durable=job.over)
            if not job.running:
                job.journal.close()  # thousands of jobs may wait
            doubtful = not written or job.held_until > 0
            if doubtful and not job.running and not job.folder.is_dir():
                say(f"job {job.entry.job_id} is dropped: its directory is gone")
            elif not job.over or not written:
                continue
            try:
                queue.finish(self.places, job.entry.job_id)
            except FileNotFoundError:  # the state folder was deleted
                pass
            except OSError as error:
                say(f"entry {job.entry.job_id} stays in the queue: {error}")
                continue
            del self.jobs[job.entry.job_id]

    # -- starting ----------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        """Start what fits, in order: later tasks may pass a throttled one, but not one that waits for room."""
        begun: list[tuple[Job, Task]] = []
        for job in self.jobs.values():
            if job.waiting and not job.throttled:
                job.look_for_cancel(say)
            while job.waiting and not job.throttled and clock() >= job.held_until:
                gpus = self.capacity.gpus_for(job.entry, list(self._tasks()))
                if gpus is None or len(begun) == BATCH:
                    return self._release(begun)
                self._prepare(job, gpus, begun)
        self._release(begun)

    def _prepare(self, job: Job, gpus: list[str], begun: list[tuple[Job, Task]]) -> None:
        number = job.waiting.popleft()
        try:
            task = start_waiting(job.entry, number, gpus, self.boot_id)
        except OSError as error:
            say(f"task {job.entry.job_id}.{number} waits: {error}")
            job.waiting.appendleft(number)
            job.held_until = clock() + HOLD_S
            return
        job.running[number] = task
        job.journal.started(number, task.begun)
        begun.append((job, task))

    def _release(self, begun: list[tuple[Job, Task]]) -> None:
        """Record the starts, then let them run: no crash can make a task run twice."""
        recorded = {id(job): job.journal.flush(durable=True) for job in {id(job): job for job, _ in begun}.values()}
        for job, task in begun:
            if recorded[id(job)]:
                task.release()
            else:
                say(f"task {job.entry.job_id}.{task.number} waits: cannot write {job.journal.path}")
                job.requeue(task.number, say)
                job.held_until = clock() + HOLD_S
        if len(begun) == BATCH:
            self.next_look = clock()  # there may be room for more

    # -- limits and ends ---------------------------------------------------------------------------------------------

    def _reap(self) -> None:
        """Reap every child that has ended, including orphans of tasks."""
        leaders = {task.begun.pid: task for task in self._tasks() if task.child}
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            task = leaders.get(pid)
            if task is not None and not task.gone:
                task.status = status
                task.gone = True
            else:
                self.ingest.reaped(pid, status)

    def _enforce(self) -> None:
        """Stop tasks over their limits, kill those that do not stop, record those that have ended."""
        self.capacity.enforce_memory(self.jobs.values(), say)
        for job in list(self.jobs.values()):
            for task in list(job.running.values()):
                if task.gone:
                    self._clear(job, task)
                elif task.kill_at is not None and clock() >= task.kill_at:
                    self.table.refresh()
                    task_processes.kill(self.table.members(task.member))
                    task.kill_at = clock() + RETRY_S
                elif task.deadline is not None and clock() >= task.deadline:
                    job.stop(task, TIMED_OUT, f"reached its time limit of {task.entry.time_limit_s} s", say)

    def _clear(self, job: Job, task: Task) -> None:
        """Kill what a task left behind; if nothing is left, record its end."""
        if task.never_ran:
            job.requeue(task.number, say)
            return
        left = self._left_behind(task)
        if left:
            task.sweep_until = task.sweep_until or clock() + SWEEP_LIMIT_S
            task_processes.kill(left)
            if clock() < task.sweep_until:
                return
            say(f"task {job.entry.job_id}.{task.number}: processes {[p.pid for p in left]} cannot be ended")
        job.settle(task, say)
        self.ingest.note(job.entry)

    def _left_behind(self, task: Task) -> list[processes.Process]:
        if task.restarted:
            return []
        if task.child and not task_processes.unknown_children(self._own_children()):
            return []  # this process is the subreaper: what the task left would be its child by now
        self.table.refresh()
        return self.table.members(task.member)

    def _own_children(self) -> set[int | None]:
        return {self.ingest.pid, *(task.begun.pid for task in self._tasks() if task.child and not task.gone)}

    def _end_strays(self) -> None:
        """Kill orphans that hid from their task (an empty environment in their own session): no task is left."""
        strays = task_processes.unknown_children(self._own_children()) - {task_processes.NOT_KNOWN}
        if strays:
            self.table.refresh()
            task_processes.kill(self.table.descendants(strays))


def main(arguments: list[str]) -> None:
    """Run with the state folder, the descriptor of the lock, the file of the boot id and the seconds to linger."""
    root, lock, boot_id_file, linger = arguments
    os.set_inheritable(int(lock), False)
    prepare_process()
    Supervisor(Places(Path(root)), int(lock), processes.boot_id(Path(boot_id_file)), float(linger)).run()

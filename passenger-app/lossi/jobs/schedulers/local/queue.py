"""The queue on disk: one small file per submitted job, the supervisor's lock and the pipe that wakes it.

Everything is in ``<state>/local/<host>/``, which only the user can read (0700); each Slurm allocation has its own queue,
``<host>.slurm-<id>/``, because processes from outside do not end with it::

    queue/<job id>.json   an `Entry`: accepted, not all of its tasks have ended
    done/<job id>.json    the same after the last task ended, kept for `KEPT_DAYS`
    bad/                  entries that could not be read
    lock                  held (flock) while a supervisor is alive; contains the `Holder`
    cancel.lock           held while a cancel.json is merged
    wake                  FIFO: one line per event
    supervisor.log        messages of the supervisor

Imported by the adapter and by the supervisor: standard library and `contract.records` only.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lossi.contract import records
from lossi.files import atomic

KEPT_DAYS = 30
"""How long a finished job can be found by its id, so that an interrupted submission is never repeated."""
SUFFIX = ".json"
ALLOCATION = ".slurm-"


@dataclass(frozen=True)
class Entry:
    """A submitted job, with all that the supervisor needs."""

    job_id: str
    directory: str
    """Absolute path of the job directory."""
    project: str
    user: str
    tasks: int
    submitted: str
    """ISO 8601 in UTC."""
    order: int
    """Nanoseconds since the epoch at submission: the queue's order."""
    host: str
    cpus: int = 1
    memory_mb: int | None = None
    gpus: int = 0
    time_limit_s: int | None = None
    max_parallel: int | None = None
    slots: int = 1
    """Slots of the machine as the user set them at submission; the latest entry counts."""
    grace_s: float = 10.0
    gpu_ids: list[str] = field(default_factory=list)
    """The machine's GPUs, as CUDA_VISIBLE_DEVICES names them."""
    allocation: str = ""
    """Id of the Slurm job in whose allocation the tasks run."""
    environment: dict[str, str] = field(default_factory=dict)
    """The environment of the tasks, without what differs between them."""
    ingest: list[str] = field(default_factory=list)
    """argv that ingests finished results into the project's store; empty: none."""
    ingest_environment: dict[str, str] = field(default_factory=dict)
    format: int = records.FORMAT


@dataclass(frozen=True)
class Holder:
    """Content of the lock: the supervisor that is ready."""

    pid: int
    start: int
    """Clock ticks since boot."""
    boot_id: str
    host: str


@dataclass(frozen=True)
class Places:
    """Where the local scheduler of one host keeps its files."""

    root: Path

    @property
    def queue(self) -> Path:
        """Entries of jobs that have not ended."""
        return self.root / "queue"

    @property
    def done(self) -> Path:
        """Entries of jobs that have ended."""
        return self.root / "done"

    @property
    def bad(self) -> Path:
        """Entries that cannot be read."""
        return self.root / "bad"

    @property
    def lock(self) -> Path:
        """Held by the supervisor."""
        return self.root / "lock"

    @property
    def wake(self) -> Path:
        """The FIFO that the supervisor reads."""
        return self.root / "wake"

    @property
    def log(self) -> Path:
        """The supervisor's messages."""
        return self.root / "supervisor.log"

    def make(self) -> None:
        """Create the folders.

        Raises
        ------
        Unavailable, Forbidden
            If the state folder cannot be written.
        """
        for folder in (self.root, self.queue, self.done):
            try:
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            except OSError as error:
                raise atomic.explained(error, folder) from error

    def entry(self, job_id: str) -> Path:
        """Return the path of a waiting or running job's entry."""
        return self.queue / (job_id + SUFFIX)

    def finished(self, job_id: str) -> Path:
        """Return the path of an ended job's entry."""
        return self.done / (job_id + SUFFIX)


def folder_name(host: str, allocation: str) -> str:
    """Return the name of the queue's folder on a host, in a Slurm allocation ("" outside of one)."""
    return f"{host}{ALLOCATION}{allocation}" if allocation else host


def waiting(places: Places) -> set[str]:
    """Return the ids of the jobs that have not ended."""
    try:
        names = os.listdir(places.queue)  # noqa: PTH208 - names only
    except FileNotFoundError:
        return set()
    return {name.removesuffix(SUFFIX) for name in names if name.endswith(SUFFIX) and not name.startswith(".")}


def find(places: Places, job_id: str) -> Entry | None:
    """Return the entry of a job that was submitted here, whether or not it has ended."""
    if not job_id.replace("-", "").replace("_", "").isalnum():
        return None
    # The supervisor moves an entry from the first to the second, never back: it cannot be missed.
    for path in (places.entry(job_id), places.finished(job_id)):
        entry = records.load_optional(Entry, path)
        if entry is not None:
            return entry
    return None


def finish(places: Places, job_id: str) -> None:
    """Remove a job whose tasks have all ended from the queue."""
    os.utime(places.entry(job_id))
    places.entry(job_id).replace(places.finished(job_id))


def set_aside(places: Places, job_id: str) -> None:
    """Remove an unreadable entry from the queue, without losing it."""
    places.bad.mkdir(exist_ok=True, mode=0o700)
    places.entry(job_id).replace(places.bad / (job_id + SUFFIX))


def forget_old(places: Places) -> None:
    """Delete entries of jobs that ended more than `KEPT_DAYS` days ago, and equally old queues of allocations."""
    oldest = time.time() - KEPT_DAYS * 86400
    with contextlib.suppress(OSError):
        for path in places.done.iterdir():
            if path.stat().st_mtime < oldest:
                path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        for folder in places.root.parent.glob(f"*{ALLOCATION}*"):
            if folder != places.root and max(folder.stat().st_mtime, (folder / "queue").stat().st_mtime) < oldest:
                import shutil

                shutil.rmtree(folder)


def wake(places: Places, job_id: str = "") -> None:
    """Tell the supervisor, if there is one, that a job was added or cancelled."""
    with contextlib.suppress(OSError):  # there is none, or its pipe is full: it will check anyway
        descriptor = os.open(places.wake, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            os.write(descriptor, job_id.encode("ascii") + b"\n")
        finally:
            os.close(descriptor)


def try_lock(places: Places) -> int | None:
    """Take the supervisor's lock; return its descriptor, or None if a supervisor (or its starter) has it.

    The lock belongs to the open file, so a child that inherits the descriptor shares it; it ends with the last of them. Whoever
    takes it must start a supervisor or be one: the holder reads the queue once more after releasing the lock, and so finds
    any entry that was written while it held the lock.

    Raises
    ------
    Unavailable, Forbidden
        If the state folder cannot be written or does not support locks.
    """
    try:
        descriptor = os.open(places.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise atomic.explained(error, places.lock) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError as error:
        os.close(descriptor)
        raise atomic.explained(error, places.lock) from error
    return descriptor


def holder(places: Places) -> Holder | None:
    """Return the supervisor that is ready, None while there is none or it is starting."""
    return records.load_optional(Holder, places.lock)


def write_holder(descriptor: int, who: Holder | None) -> None:
    """Write the holder into the lock; None: not ready."""
    os.ftruncate(descriptor, 0)
    if who is not None:
        os.pwrite(descriptor, records.dump(who), 0)


@contextlib.contextmanager
def cancelling(places: Places) -> Iterator[None]:
    """Hold the lock for merging requests to cancel."""
    places.make()
    path = places.root / "cancel.lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise atomic.explained(error, path) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def read(places: Places, job_id: str) -> Entry:
    """Return the entry of a job in the queue.

    Raises
    ------
    OSError
        If it cannot be read.
    ValueError
        If it is not an entry of this job.
    """
    entry = records.load(Entry, places.entry(job_id))
    if entry.job_id != job_id or entry.tasks < 1 or not entry.directory.startswith("/"):
        raise ValueError(f"entry {job_id} does not match its name or has no job directory")
    return entry


def add(places: Places, entry: Entry) -> bool:
    """Put a job into the queue; return False if it was there already.

    Raises
    ------
    Unavailable, Forbidden
        If the state folder cannot be written.
    """
    data = json.dumps(records.to_dict(entry), ensure_ascii=True, indent=1).encode("ascii")
    return atomic.create_exclusive(places.entry(entry.job_id), data, mode=0o600)

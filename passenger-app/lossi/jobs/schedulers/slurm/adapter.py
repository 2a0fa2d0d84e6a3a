"""The port over any door to Slurm: submits a job's parts, looks at the queue and the accounting, cancels.

Asks seldom: the queue once per ``poll_interval_s`` for all jobs of the user whatever their number, the accounting only for
tasks that have left the queue and are not settled. Touches ``cancel.json`` and the user's cache folder.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter

from lossi import settings
from lossi.clusters import Cluster
from lossi.contract import records
from lossi.contract.records import CancelRequest, PreparedJob, Resources, SubmissionRecord
from lossi.contract.states import CANCELLED, FINAL_STATES, QUEUED, RUNNING, UNKNOWN, has_ended
from lossi.errors import LossiError, NotSupported, Unavailable
from lossi.jobs import ulid
from lossi.jobs.schedulers import cancellation
from lossi.jobs.schedulers.base import (
    FORGOTTEN,
    Capabilities,
    Condition,
    Handle,
    JobView,
    NotSubmitted,
    Scheduler,
    SessionOptions,
    TaskView,
)
from lossi.jobs.schedulers.slurm import accounts, array_chunks, directives, queue_view, request, states
from lossi.jobs.schedulers.slurm.array_chunks import Part
from lossi.jobs.schedulers.slurm.cache import Answer, Cache
from lossi.jobs.schedulers.slurm.client import SlurmClient
from lossi.jobs.schedulers.slurm.description import Description
from lossi.jobs.schedulers.slurm.preflight import limits
from lossi.jobs.schedulers.slurm.preflight.findings import Known
from lossi.jobs.schedulers.slurm.queue_view import Sight
from lossi.jobs.schedulers.slurm.records import AccountingRow, QueueRow
from lossi.jobs.schedulers.slurm.request import SlurmRequest
from lossi.jobs.times import seconds, utc

LAG_S = 30.0
"""How long the database may not know a job that the queue has dropped, and the queue one that was just accepted."""
ACCOUNTING_S = 10.0
"""The database is asked for a job's missing tasks at most this often."""
MOST_ASKED = 2000
"""Tasks whose accounting is asked for at once; the others wait for the next look."""

_QUEUE = TypeAdapter(list[QueueRow])


@dataclass
class _Looked:
    """One job of a poll on its way: what the queue says, and the tasks that it does not know."""

    handle: Handle
    parts: list[Part]
    seen: Sight
    database: bool
    """Whether a database keeps what has left the queue."""
    absent: dict[int, list[int]] = field(default_factory=dict)
    """By Slurm's id of the part: numbers within the part."""


class SlurmScheduler(Scheduler):
    """Jobs on a Slurm cluster.

    Parameters
    ----------
    target
        The cluster.
    client
        The door; by default the one that the cluster names.
    cache
        Where answers are kept; by default below the user's cache folder.
    """

    def __init__(self, target: Cluster, client: SlurmClient, cache: Cache | None = None) -> None:
        self._target = target
        self.client = client
        folder = settings.cache_dir() / "clusters" / f"{target.name}-{os.uname().nodename}"
        self._cache = cache or Cache(folder, wait_s=target.deadline_s)
        self._description = Description(target, client, self._cache)

    @property
    def name(self) -> str:
        """The door's name: ``slurm_cli``, ``slurm_rest`` or ``slurm_pyslurm``."""
        return self._target.scheduler

    @property
    def cluster(self) -> str:
        """Name of the cluster."""
        return self._target.name

    @property
    def target(self) -> Cluster:
        """The cluster."""
        return self._target

    @property
    def capabilities(self) -> Capabilities:
        """What Slurm does; how much it gives is found out when a job is at hand (`preview`)."""
        return Capabilities(
            accounting=True,
            dependencies=True,
            requeue=True,
            sessions=True,
            facts=self._description.accounts(),
            exit_grace_s=self._target.exit_grace_s,
            notice_s=2 * self._target.poll_interval_s + LAG_S,
        )

    def directives(self, job: PreparedJob, directory: Path) -> list[str]:
        """Return the ``#SBATCH`` lines."""
        return directives.lines(self._requests(job, directory)[0])

    def preview(self, job: PreparedJob, directory: Path) -> list[str]:
        """Return the argv of the first submission.

        Raises
        ------
        InvalidInput, Forbidden
            When the cluster could never run the job; names the limit.
        """
        wanted = self._requests(job, directory)[0]
        limits.raise_refused(self._findings(wanted, job.tasks))
        return self.client.arguments(wanted)

    def warnings(self, job: PreparedJob, directory: Path) -> list[str]:
        """Return what would keep the job waiting, and what may not be as meant."""
        return limits.warnings(self._findings(self._requests(job, directory)[0], job.tasks))

    def expected_start(self, job: PreparedJob, directory: Path) -> str | None:
        """Return Slurm's own estimate; None where it gives none, or its door has no such question."""
        try:
            return self.client.expected_start(self._requests(job, directory)[0])[0]
        except LossiError:
            return None

    def session_options(self, resources: Resources) -> SessionOptions:
        """Return sbatch's options; the resources are checked against the site file only.

        Raises
        ------
        Forbidden, InvalidInput
            If they exceed a limit of the site file.
        """
        wanted = request.session(resources, self._target)
        limits.raise_refused(limits.findings(wanted, 1, Known(self._target)))
        return SessionOptions(wanted.partition, wanted.account, resources.time_limit_s, directives.session_options(wanted))

    def dependency(self, earlier: Sequence[tuple[Condition, SubmissionRecord, int]]) -> str:
        """Return what ``--dependency`` says, such as ``afterok:12:13``."""
        return array_chunks.dependency([(condition, record.scheduler_id, tasks) for condition, record, tasks in earlier])

    def submit(self, job: PreparedJob, directory: Path) -> SubmissionRecord:
        """Hand a job over, as one array or, beyond MaxArraySize, as several.

        The part that bears the job's plain name is submitted last: where it exists, all exist.
        """
        try:
            known = self.find(job.id)
        except Unavailable as error:
            raise NotSubmitted(error.what, why=error.why, hint=error.hint, **error.details) from error
        if known is not None:
            return known
        accepted: list[Part] = []
        wanted = self._requests(job, directory)
        try:
            for part, one in reversed(list(zip(self._parts(job), wanted, strict=True))):
                accepted.insert(0, Part(part.offset, part.tasks, self.client.submit(one)))
        except Unavailable:
            raise  # whether it was accepted is found out with `find`, which cancels what is incomplete
        except LossiError:
            self._give_back(accepted)
            raise
        finally:
            self._cache.expire("queue")
        return self._record(array_chunks.dump(accepted), time.time(), self.client.arguments(wanted[0]))

    def find(self, job_id: str) -> SubmissionRecord | None:
        """Return the record of a job that the queue or the database has; one that was accepted in part is cancelled."""
        made = ulid.moment(job_id) if ulid.is_ulid(job_id) else time.time() - 86400
        found = [_part_of(slurm_id, name) for slurm_id, name in self._named(f"{request.NAME}{job_id}", made)]
        if not found:
            return None
        if not any(part.offset == 0 for part in found):
            self._give_back(found)
            return None
        return self._record(array_chunks.dump(sorted(found, key=lambda part: part.offset)), time.time(), [])

    def poll(self, jobs: Sequence[Handle]) -> dict[str, JobView]:
        """Return what the queue and the accounting say, each asked at most once."""
        database = self._description.accounts()
        queue = self._queue(database)
        by_id: dict[int, list[QueueRow]] = {}
        for row in queue.value:
            by_id.setdefault(row.job_id, []).append(row)
        looked = [self._look(handle, by_id, queue.as_of, database) for handle in jobs if _is_readable(handle)]
        rows, asked = self._accounting(looked) if database else ([], set())
        return {one.handle.job_id: self._view(one, rows, one.handle.job_id in asked, queue) for one in looked}

    def cancel(self, handle: Handle, tasks: Sequence[int] | None) -> None:
        """Cancel by Slurm's ids, then say so in ``cancel.json``."""
        wanted: dict[int, Sequence[int] | None] = {}
        for part in array_chunks.parse(handle.scheduler_id, handle.tasks):
            inside = None if tasks is None else sorted(n - part.offset for n in set(tasks) if 0 <= n - part.offset < part.tasks)
            if inside is None or handle.tasks == 1:
                wanted[part.slurm_id] = None
            elif inside:
                wanted[part.slurm_id] = inside
        self.client.cancel(wanted)
        self._cache.expire("queue")
        self._cache.expire(_accounting_name(handle.job_id))
        cancellation.note(handle, tasks, when=utc(time.time()), user=accounts.user_name(os.geteuid()))

    # -- submitting --------------------------------------------------------------------------------------------------

    def _named(self, prefix: str, made: float) -> list[tuple[int, str]]:
        """Return what bears such a name; of what is so young that the queue cannot have dropped it, the queue knows all."""
        age = None
        with suppress(LossiError):
            age = self._description.configuration().min_job_age_s
        if age is None or not 0 <= time.time() - made < age - LAG_S:
            return self.client.named(prefix, utc(made - 60))
        rows = [row for row in self.client.queue(ended=True) if row.name.startswith(prefix)]
        return sorted({row.job_id: row.name for row in rows if not states.is_rejected(row.state, row.node_list)}.items())

    def _parts(self, job: PreparedJob) -> list[Part]:
        most = None
        if job.tasks > 1:
            with suppress(Unavailable):  # then Slurm itself says that the array is too large
                most = self._description.configuration().max_array_size
        return array_chunks.split(job.tasks, most)

    def _requests(self, job: PreparedJob, directory: Path) -> list[SlurmRequest]:
        all_parts = self._parts(job)
        shares = array_chunks.throttles(all_parts, job.max_parallel)
        return [request.build(job, directory, self._target, part, share) for part, share in zip(all_parts, shares, strict=True)]

    def _findings(self, wanted: SlurmRequest, tasks: int) -> list[limits.Finding]:
        return limits.findings(wanted, tasks, self._description.known(lambda: self._queue(self._description.accounts()).value))

    def _give_back(self, accepted: Sequence[Part]) -> None:
        if accepted:
            with suppress(LossiError):
                self.client.cancel({part.slurm_id: None for part in accepted})

    def _record(self, scheduler_id: str, submitted: float, argv: list[str]) -> SubmissionRecord:
        return SubmissionRecord(self.name, scheduler_id, utc(submitted), self.cluster, argv)

    # -- asking ------------------------------------------------------------------------------------------------------

    def _queue(self, database: bool) -> Answer[list[QueueRow]]:
        ask = functools.partial(self.client.queue, ended=not database)
        return self._cache.get("queue", self._target.poll_interval_s, _QUEUE, ask)

    def _look(self, handle: Handle, by_id: Mapping[int, Sequence[QueueRow]], as_of: float, database: bool) -> _Looked:
        found = array_chunks.parse(handle.scheduler_id, handle.tasks)
        looked = _Looked(handle, found, queue_view.of_queue(by_id, found, as_of), database)
        if as_of >= (handle.submitted or 0.0):
            for part in found:
                absent = looked.seen.absent(part, handle.settled)
                if absent:
                    looked.absent[part.slurm_id] = [number - part.offset for number in absent]
        return looked

    def _accounting(self, looked: Sequence[_Looked]) -> tuple[list[AccountingRow], set[str]]:
        """Return the accounting of what has left the queue, and the jobs that were asked for."""
        wanted: dict[int, Sequence[int] | None] = {}
        asked: set[str] = set()
        left = MOST_ASKED
        for one in looked:
            if not one.absent or left <= 0 or not self._is_due(one.handle.job_id):
                continue
            asked.add(one.handle.job_id)
            for slurm_id, numbers in one.absent.items():
                wanted[slurm_id] = None if one.handle.tasks == 1 else numbers[: max(left, 0)]
                left -= len(numbers)
        if not wanted:
            return [], set()
        moments = [one.handle.submitted for one in looked if one.handle.job_id in asked]
        since = None if None in moments else utc(min(moment for moment in moments if moment is not None) - 60)
        try:
            return self.client.accounting(wanted, since=since), asked
        except (Unavailable, NotSupported):
            return [], set()  # their own account settles what can be settled; the rest waits

    def _is_due(self, job_id: str) -> bool:
        """Return whether the accounting of a job may be asked for now, and note that it is."""
        now = time.time()
        interval = min(ACCOUNTING_S, self._target.poll_interval_s)
        return self._cache.get(_accounting_name(job_id), interval, TypeAdapter(float), lambda: now).value == now

    def _view(self, one: _Looked, rows: Iterable[AccountingRow], asked: bool, queue: Answer[list[QueueRow]]) -> JobView:
        seen, handle = one.seen, one.handle
        tasks = dict(seen.tasks)
        accounted = [row for row in rows if row.job_id in one.absent]
        for number, attempts in queue_view.of_accounting(accounted, one.parts).items():
            if number not in tasks and number not in handle.settled:
                view = accounts.view(attempts, units_per_gpu=self._units)
                # The database lags behind: a task that has left the queue is not running whatever it still says.
                if has_ended(view.state):
                    tasks[number] = _worded(view)
        if asked or not one.database:
            tasks.update(self._never_started(one, tasks, queue.as_of))
        if not one.database:
            tasks.update(_forgotten(one, tasks))
        just_submitted = queue.as_of < (handle.submitted or 0.0)
        live = {view.state for view in tasks.values()} - FINAL_STATES
        young = queue.as_of < (handle.submitted or 0.0) + LAG_S
        known = bool(tasks or seen.waiting or accounted or handle.settled or young or not asked)
        if live - {QUEUED}:
            state = RUNNING
        elif live or seen.waiting or just_submitted:
            state = QUEUED
        else:
            state = UNKNOWN  # of tasks that are neither in the queue nor accounted for, nothing is known
        waiting = [range(handle.tasks)] if just_submitted else seen.waiting
        reason = seen.reason if not just_submitted else "it was just submitted"
        return JobView(known, state, seen.word, reason, tasks, waiting, queue.as_of, self._stale(queue), seen.expected_start)

    def _never_started(self, one: _Looked, known: Mapping[int, TaskView], as_of: float) -> dict[int, TaskView]:
        """Return the array tasks that were cancelled one by one while they waited: Slurm keeps no record of those at all.

        Through Lossi, ``cancel.json`` says who did it. Otherwise that the rest of the array is known has to do; such a word is
        not the last one yet.
        """
        folder = one.handle.directory / records.TASK_FOLDER
        absent = {number + part.offset for part in one.parts for number in one.absent.get(part.slurm_id, ())}
        missing = {number for number in absent if number not in known and not (folder / str(number)).exists()}
        asked = records.load_optional(CancelRequest, one.handle.directory / records.CANCEL)
        if asked is not None and as_of >= (seconds(asked.requested) or as_of) + self._target.exit_grace_s:
            named = missing if asked.tasks is None else missing.intersection(asked.tasks)
            reason = f"cancelled by {asked.user} before it started"
            ended = TaskView(CANCELLED, "CANCELLED", reason, ended=asked.requested, facts={"elapsed_s": 0.0}, accounted=True)
            return dict.fromkeys(named, ended)
        others = known or one.seen.waiting or one.handle.settled
        if asked is None and others and one.database and as_of >= (one.handle.submitted or 0.0) + LAG_S:
            vanished = TaskView(
                CANCELLED, reason="it was taken out of the queue before it started", ended=utc(as_of), as_of=as_of
            )
            return dict.fromkeys(missing, vanished)
        return {}

    def _units(self, gpu_type: str | None) -> int:
        kinds = [kind for partition in self._target.partitions for kind in partition.gpu_types]
        return next((kind.units_per_gpu for kind in kinds if gpu_type in (None, "", kind.name)), 1)

    def _stale(self, queue: Answer[list[QueueRow]]) -> str:
        if not queue.problem:
            return ""
        return f"cluster {self.cluster!r}: {queue.problem}; shown as it was at {utc(queue.as_of)[11:19]} UTC"


def _is_readable(handle: Handle) -> bool:
    """Return whether the record of a submission is one; a damaged one leaves its job to its own accounts."""
    try:
        return bool(array_chunks.parse(handle.scheduler_id, handle.tasks))
    except ValueError:
        return False


def _forgotten(one: _Looked, known: Mapping[int, TaskView]) -> dict[int, TaskView]:
    """Return the tasks of which nobody knows how they ended: the queue has dropped them, and they have left no account."""
    absent = (number + part.offset for part in one.parts for number in one.absent.get(part.slurm_id, ()))
    folder = one.handle.directory / records.TASK_FOLDER
    return {
        number: TaskView(UNKNOWN, reason=FORGOTTEN)
        for number in absent
        if number not in known and not (folder / str(number) / records.EXIT).exists()
    }


def _worded(view: TaskView) -> TaskView:
    if view.state == CANCELLED and view.started is None and view.reason:
        return dataclasses.replace(view, reason=f"{view.reason} before it started")
    return view


def _part_of(slurm_id: int, name: str) -> Part:
    offset = name.rpartition("+")[2] if "+" in name else "0"
    return Part(int(offset) if offset.isdecimal() else 0, 0, slurm_id)


def _accounting_name(job_id: str) -> str:
    return f"accounting-{job_id}"

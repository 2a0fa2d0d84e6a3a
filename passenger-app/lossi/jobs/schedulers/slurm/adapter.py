"""The port over any client of Slurm: submits a job's chunks, reads the queue and the accounting, cancels.

Asks seldom: the queue once per ``poll_interval_s`` for all jobs of the user, the accounting only for tasks that have left the
queue and are not settled. Touches ``cancel.json`` and the user's cache folder.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from pydantic import TypeAdapter

from lossi import settings
from lossi.clusters import Cluster
from lossi.contract.records import PreparedJob, Resources, SubmissionRecord
from lossi.errors import LossiError, NotSupported, Unavailable
from lossi.jobs import ulid
from lossi.jobs.schedulers import cancellation
from lossi.jobs.schedulers.base import Capabilities, Condition, Handle, JobView, NotSubmitted, Scheduler, SessionOptions
from lossi.jobs.schedulers.slurm import accounts, array_chunks, directives, polling, request, states
from lossi.jobs.schedulers.slurm.array_chunks import ArrayChunk
from lossi.jobs.schedulers.slurm.cache import Answer, Cache
from lossi.jobs.schedulers.slurm.client import SlurmClient
from lossi.jobs.schedulers.slurm.description import Description
from lossi.jobs.schedulers.slurm.polling import LAG_S, Poll, PolledJob
from lossi.jobs.schedulers.slurm.preflight import limits
from lossi.jobs.schedulers.slurm.preflight.findings import Known
from lossi.jobs.schedulers.slurm.records import AccountingRow, QueueRow
from lossi.jobs.schedulers.slurm.request import SlurmRequest
from lossi.jobs.times import utc

ACCOUNTING_S = 10.0
"""Minimum interval between two questions to the database about a job's missing tasks."""
MOST_ASKED = 2000
"""Tasks whose accounting is asked for at once; the others wait for the next poll."""

_QUEUE = TypeAdapter(list[QueueRow])


class SlurmScheduler(Scheduler):
    """Jobs on a Slurm cluster.

    Parameters
    ----------
    target
        The cluster.
    client
        How to talk to it.
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
        """The client's name: ``slurm_cli``, ``slurm_rest`` or ``slurm_pyslurm``."""
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
        """What Slurm can do; `preview` checks how much a cluster gives to a job."""
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
            If the cluster could never run the job; names the limit.
        """
        first = self._requests(job, directory)[0]
        limits.raise_refused(self._findings(first, job.tasks))
        return self.client.arguments(first)

    def warnings(self, job: PreparedJob, directory: Path) -> list[str]:
        """Return what would keep the job waiting, and what may not be as meant."""
        return limits.warnings(self._findings(self._requests(job, directory)[0], job.tasks))

    def expected_start(self, job: PreparedJob, directory: Path) -> str | None:
        """Return Slurm's own estimate; None if it gives none, or the client cannot ask for it."""
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
        session = request.session(resources, self._target)
        limits.raise_refused(limits.findings(session, 1, Known(self._target)))
        return SessionOptions(session.partition, session.account, resources.time_limit_s, directives.session_options(session))

    def dependency(self, earlier: Sequence[tuple[Condition, SubmissionRecord, int]]) -> str:
        """Return the value of ``--dependency``, such as ``afterok:12:13``."""
        return array_chunks.dependency([(condition, record.scheduler_id, tasks) for condition, record, tasks in earlier])

    def submit(self, job: PreparedJob, directory: Path) -> SubmissionRecord:
        """Submit a job as one array or, beyond MaxArraySize, as several.

        The chunk that has the job's plain name comes last: if it exists, all exist.
        """
        try:
            known = self.find(job.id)
        except Unavailable as error:
            raise NotSubmitted(error.what, why=error.why, hint=error.hint, **error.details) from error
        if known is not None:
            return known
        accepted: list[ArrayChunk] = []
        requests = self._requests(job, directory)
        try:
            for chunk, chunk_request in reversed(list(zip(self._chunks(job), requests, strict=True))):
                accepted.insert(0, ArrayChunk(chunk.offset, chunk.tasks, self.client.submit(chunk_request)))
        except Unavailable:
            raise  # `find` tells whether it was accepted, and cancels what is incomplete
        except LossiError:
            self._cancel_chunks(accepted)
            raise
        finally:
            self._cache.expire("queue")
        return self._record(accepted, self.client.arguments(requests[0]))

    def find(self, job_id: str) -> SubmissionRecord | None:
        """Return the record of a job in the queue or the database; one that was accepted in part is cancelled."""
        created = ulid.moment(job_id) if ulid.is_ulid(job_id) else time.time() - 86400
        chunks = [request.chunk_of(slurm_id, name) for slurm_id, name in self._named(f"{request.NAME}{job_id}", created)]
        if not chunks:
            return None
        if not any(chunk.offset == 0 for chunk in chunks):
            self._cancel_chunks(chunks)
            return None
        return self._record(sorted(chunks, key=lambda chunk: chunk.offset), [])

    def poll(self, jobs: Sequence[Handle]) -> dict[str, JobView]:
        """Return what the queue and the accounting say, each asked at most once."""
        database = self._description.accounts()
        queue = self._queue(database)
        by_id: dict[int, list[QueueRow]] = {}
        for row in queue.value:
            by_id.setdefault(row.job_id, []).append(row)
        poll = Poll(queue.as_of, database, self._target.exit_grace_s, self._units_per_gpu)
        polled = [PolledJob(handle, by_id, poll) for handle in jobs if polling.is_readable(handle)]
        rows, accounted = self._accounting(polled) if database else ([], set())
        stale = self._stale(queue)
        return {job.handle.job_id: job.view(rows, asked=job.handle.job_id in accounted, stale=stale) for job in polled}

    def cancel(self, handle: Handle, tasks: Sequence[int] | None) -> None:
        """Cancel by Slurm's ids, then write ``cancel.json``."""
        numbers: dict[int, Sequence[int] | None] = {}
        for chunk in array_chunks.parse(handle.scheduler_id, handle.tasks):
            inside = None if tasks is None else sorted(number - chunk.offset for number in set(tasks) if number in chunk.numbers)
            if inside is None or handle.tasks == 1:
                numbers[chunk.slurm_id] = None
            elif inside:
                numbers[chunk.slurm_id] = inside
        self.client.cancel(numbers)
        self._cache.expire("queue")
        self._cache.expire(_accounting_name(handle.job_id))
        cancellation.note(handle, tasks, when=utc(time.time()), user=accounts.user_name(os.geteuid()))

    # -- submitting --------------------------------------------------------------------------------------------------

    def _named(self, prefix: str, created: float) -> list[tuple[int, str]]:
        """Return the jobs whose name begins so; if so young that the queue cannot have dropped any, only the queue is asked."""
        age = None
        with suppress(LossiError):
            age = self._description.configuration().min_job_age_s
        if age is None or not 0 <= time.time() - created < age - LAG_S:
            return self.client.named(prefix, utc(created - 60))
        rows = [row for row in self.client.queue(ended=True) if row.name.startswith(prefix)]
        return sorted({row.job_id: row.name for row in rows if not states.is_rejected(row.state, row.node_list)}.items())

    def _chunks(self, job: PreparedJob) -> list[ArrayChunk]:
        most = None
        if job.tasks > 1:
            with suppress(Unavailable):  # then Slurm itself says if the array is too large
                most = self._description.configuration().max_array_size
        return array_chunks.split(job.tasks, most)

    def _requests(self, job: PreparedJob, directory: Path) -> list[SlurmRequest]:
        chunks = self._chunks(job)
        throttles = array_chunks.throttles(chunks, job.max_parallel)
        return [request.build(job, directory, self._target, chunk, most) for chunk, most in zip(chunks, throttles, strict=True)]

    def _findings(self, first: SlurmRequest, tasks: int) -> list[limits.Finding]:
        return limits.findings(first, tasks, self._description.known(lambda: self._queue(self._description.accounts()).value))

    def _cancel_chunks(self, chunks: Sequence[ArrayChunk]) -> None:
        if chunks:
            with suppress(LossiError):
                self.client.cancel({chunk.slurm_id: None for chunk in chunks})

    def _record(self, chunks: Sequence[ArrayChunk], argv: list[str]) -> SubmissionRecord:
        return SubmissionRecord(self.name, array_chunks.dump(chunks), utc(time.time()), self.cluster, argv)

    # -- asking ------------------------------------------------------------------------------------------------------

    def _queue(self, database: bool) -> Answer[list[QueueRow]]:
        ask = functools.partial(self.client.queue, ended=not database)
        return self._cache.get("queue", self._target.poll_interval_s, _QUEUE, ask)

    def _accounting(self, polled: Sequence[PolledJob]) -> tuple[list[AccountingRow], set[str]]:
        """Return the accounting of tasks that have left the queue, and the ids of the jobs that were asked about."""
        numbers: dict[int, Sequence[int] | None] = {}
        gone: list[PolledJob] = []
        left = MOST_ASKED
        for job in polled:
            if not job.absent or left <= 0 or not self._is_due(job.handle.job_id):
                continue
            gone.append(job)
            for chunk, absent in job.absent.items():
                inside = [number - chunk.offset for number in absent[: max(left, 0)]]
                numbers[chunk.slurm_id] = None if job.handle.tasks == 1 else inside
                left -= len(absent)
        if not numbers:
            return [], set()
        since = None if any(job.handle.submitted is None for job in gone) else utc(min(job.submitted for job in gone) - 60)
        try:
            return self.client.accounting(numbers, since=since), {job.handle.job_id for job in gone}
        except (Unavailable, NotSupported):
            return [], set()  # exit records settle what they can; the rest waits

    def _is_due(self, job_id: str) -> bool:
        """Return whether the accounting of a job may be asked for now, and note that it is."""
        now = time.time()
        interval = min(ACCOUNTING_S, self._target.poll_interval_s)
        return self._cache.get(_accounting_name(job_id), interval, TypeAdapter(float), lambda: now).value == now

    def _units_per_gpu(self, gpu_type: str | None) -> int:
        types = [known for partition in self._target.partitions for known in partition.gpu_types]
        return next((known.units_per_gpu for known in types if gpu_type in (None, "", known.name)), 1)

    def _stale(self, queue: Answer[list[QueueRow]]) -> str:
        if not queue.problem:
            return ""
        return f"cluster {self.cluster!r}: {queue.problem}; shown as it was at {utc(queue.as_of)[11:19]} UTC"


def _accounting_name(job_id: str) -> str:
    return f"accounting-{job_id}"

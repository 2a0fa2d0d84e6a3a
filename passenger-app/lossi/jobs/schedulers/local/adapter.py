"""The adapter of the local scheduler: puts jobs into the queue, reads journals, requests stops.

Used by the web process, the command and notebooks. Touches the state folder and, in the job directory, ``cancel.json``; starts
only the supervisor.
"""

from __future__ import annotations

import functools
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import lossi
from lossi import processes, settings
from lossi.contract import records
from lossi.contract.records import Ending, PreparedJob, SubmissionRecord, TaskExit
from lossi.contract.states import (
    CANCELLED,
    FAILED,
    FINAL_STATES,
    NODE_FAILED,
    OUT_OF_MEMORY,
    PREEMPTED,
    QUEUED,
    RUNNING,
    SUCCEEDED,
    TIMED_OUT,
    has_ended,
)
from lossi.errors import Forbidden, InvalidInput, LossiError
from lossi.jobs.schedulers import cancellation
from lossi.jobs.schedulers.base import Capabilities, Handle, JobView, Scheduler, TaskView
from lossi.jobs.schedulers.local import launch, machine, queue, verdict
from lossi.jobs.schedulers.local.journal import ENDED_WORD, NAME, RUNNING_WORD, SILENT_S, WAITING_WORD, History, Started, now
from lossi.jobs.schedulers.local.queue import Entry, Places

READY_TIMEOUT_S = 2.0
"""How long `poll` waits for a new supervisor to find out what became of running tasks."""
INGEST_COMMAND = (sys.executable, "-m", "lossi.tracking.ingest", "--project")
WORST_FIRST = (
    FAILED,
    NODE_FAILED,
    OUT_OF_MEMORY,
    TIMED_OUT,
    PREEMPTED,
    CANCELLED,
    SUCCEEDED,
)
LOST_PLACE = "its place in the queue was lost before it started: resubmit it"


class LocalScheduler(Scheduler):
    """Tasks on this machine.

    Parameters
    ----------
    state
        Folder of the queues, one below it per host.
    boot_id_file
        File with the id of the machine's current boot.
    ingest_command
        argv that runs when tasks have ended, with the project's path added; empty: nothing runs.
    linger_s
        How long a supervisor outlives its queue, in seconds.
    """

    name = "local"
    cluster = None

    def __init__(
        self,
        state: Path | None = None,
        *,
        boot_id_file: Path = processes.BOOT_ID_FILE,
        ingest_command: Sequence[str] = INGEST_COMMAND,
        linger_s: float = launch.LINGER_S,
    ) -> None:
        self.host = os.uname().nodename
        here = machine.allocation(os.environ)
        self.allocation = "" if here is None else here.job_id
        self._state = state if state is not None else settings.state_dir() / "local"
        self.places = Places(self._state / queue.folder_name(self.host, self.allocation))
        self._boot_id_file = boot_id_file
        self._ingest_command = list(ingest_command)
        self._linger_s = linger_s

    @property
    def capabilities(self) -> Capabilities:
        """What one task can get on this machine; more cores than there are means all of them."""
        return Capabilities(max_gpus=len(machine.gpu_ids()), max_nodes=1, max_memory_mb=machine.total_memory_mb())

    def preview(self, job: PreparedJob, directory: Path) -> list[str]:
        """Return the argv of each task.

        Raises
        ------
        Forbidden
            If jobs may not run on this machine.
        InvalidInput
            If the job requests more than the machine has.
        """
        check_allowed(settings.load(), os.environ)
        self._check_resources(job)
        return ["/bin/sh", str(directory / records.SCRIPT)]

    def submit(self, job: PreparedJob, directory: Path) -> SubmissionRecord:
        """Put a job into the queue.

        Raises
        ------
        Forbidden, InvalidInput
            As `preview`.
        Unavailable
            If the state folder cannot be written; nothing was submitted.
        """
        self.preview(job, directory)
        known = queue.find(self.places, job.id)
        if known is None:
            self.places.make()
            known = self._entry(job, directory, settings.load())
            if not queue.add(self.places, known):
                known = queue.find(self.places, job.id) or known
        # From here on the job is accepted: the next poll corrects what goes wrong now.
        self._ensure_supervisor(self.places)
        queue.wake(self.places)
        return self._record(known)

    def find(self, job_id: str) -> SubmissionRecord | None:
        """Return the record of a job in the queue of any host that shares the state folder, or that ended recently."""
        entry = queue.find(self.places, job_id) or self._elsewhere(job_id)
        return None if entry is None else self._record(entry)

    def poll(self, jobs: Sequence[Handle]) -> dict[str, JobView]:
        """Return the views from the journals; starts a supervisor if jobs wait without one."""
        homes = {handle.job_id: self._home(self._read(handle)) for handle in jobs}
        waiting = {places: queue.waiting(places) for places in {self.places, *homes.values()}}
        problems = {places: self._ensure_supervisor(places) for places, ids in waiting.items() if ids}
        for places in waiting:
            if any(handle.job_id in waiting[places] and self._started(handle) for handle in jobs):
                launch.until_ready(places, READY_TIMEOUT_S)
        # The journal is read after the queue: an entry goes when its journal is complete.
        views: dict[str, JobView] = {}
        for handle in jobs:
            home = homes[handle.job_id]
            views[handle.job_id] = self._view(handle, handle.job_id in waiting[home], problems.get(home, ""))
        return views

    def cancel(self, handle: Handle, tasks: Sequence[int] | None) -> None:
        """Request a stop; the supervisor acts within some hundredths of a second.

        Raises
        ------
        InvalidInput
            If the job has no such task.
        Unavailable, Forbidden
            If the request cannot be written.
        """
        wrong = [task for task in tasks or () if not 0 <= task < handle.tasks]
        if wrong:
            raise InvalidInput(f"job {handle.job_id} has no task {wrong[0]}", hint=f"its tasks are 0 to {handle.tasks - 1}")
        history = self._read(handle)
        home = self._home(history)
        if history is not None and _all_ended(history, range(handle.tasks) if tasks is None else tasks):
            return
        with queue.cancelling(home):
            cancellation.note(handle, tasks, when=now(), user=processes.user().name)
        if handle.job_id in queue.waiting(home):
            self._ensure_supervisor(home)
            queue.wake(home, handle.job_id)

    # -- submitting --------------------------------------------------------------------------------------------------

    def _entry(self, job: PreparedJob, directory: Path, chosen: settings.Settings) -> Entry:
        environment = launch.clean_environment()
        own = {name: value for name, value in os.environ.items() if name.startswith("XDG_") or name == "LOSSI_SITE"}
        return Entry(
            job_id=job.id,
            directory=str(directory),
            project=job.project,
            user=job.user,
            tasks=job.tasks,
            submitted=now(),
            order=time.time_ns(),
            host=self.host,
            allocation=self.allocation,
            cpus=job.resources.cpus,
            memory_mb=job.resources.memory_mb,
            gpus=job.resources.gpus,
            time_limit_s=job.resources.time_limit_s,
            max_parallel=job.max_parallel,
            slots=chosen.local_slots or machine.cores(),
            grace_s=chosen.cancel_grace_s,
            gpu_ids=list(machine.gpu_ids()) if job.resources.gpus else [],
            environment=environment,
            ingest=[*self._ingest_command, job.project] if self._ingest_command else [],
            ingest_environment={**environment, **own, "PYTHONPATH": str(Path(lossi.__file__).parents[1])},
        )

    def _check_resources(self, job: PreparedJob) -> None:
        requested, has = job.resources, self.capabilities
        if requested.nodes > 1:
            raise InvalidInput(
                f"the job requests {requested.nodes} nodes, this machine is one", hint="request 1 node, or use a cluster"
            )
        if requested.gpus > (has.max_gpus or 0):
            raise InvalidInput(
                f"the job requests {requested.gpus} GPUs per task, this machine has {has.max_gpus}",
                why="" if has.max_gpus else "nvidia-smi lists none",
                hint=f"request at most {has.max_gpus}, or use a cluster",
                limit=has.max_gpus,
            )
        if requested.memory_mb and has.max_memory_mb and requested.memory_mb > has.max_memory_mb:
            raise InvalidInput(
                f"the job requests {requested.memory_mb} MiB of memory per task, this machine has {has.max_memory_mb} MiB",
                hint=f"request at most {has.max_memory_mb} MiB, or use a cluster",
                limit=has.max_memory_mb,
            )

    def _record(self, entry: Entry) -> SubmissionRecord:
        argv = ["/bin/sh", str(Path(entry.directory) / records.SCRIPT)]
        return SubmissionRecord(self.name, entry.job_id, entry.submitted, cluster=entry.host, argv=argv)

    def _ensure_supervisor(self, places: Places) -> str:
        """Start a supervisor unless one is alive; return why that was not possible, or an empty text."""
        try:
            launch.ensure(places, boot_id_file=self._boot_id_file, linger_s=self._linger_s)
        except LossiError as error:
            return str(error)
        return ""

    # -- asking ------------------------------------------------------------------------------------------------------

    def _read(self, handle: Handle) -> History | None:
        history = _history(handle.directory / NAME)
        return history if history.update() else None

    def _started(self, handle: Handle) -> bool:
        history = self._read(handle)
        return history is not None and bool(history.started)

    def _home(self, history: History | None) -> Places:
        """Return where a job's entry is: a submitter with another environment may use another state folder."""
        if history is None or history.queue is None or (history.host, history.allocation) != (self.host, self.allocation):
            return self.places
        return Places(history.queue)

    def _elsewhere(self, job_id: str) -> Entry | None:
        """Return a job's entry in the queue of another host that shares the state folder."""
        if not self._state.is_dir():
            return None
        others = (Places(folder) for folder in self._state.iterdir() if folder != self.places.root)
        return next((entry for places in others if (entry := queue.find(places, job_id)) is not None), None)

    def _view(self, handle: Handle, waits: bool, problem: str) -> JobView:
        history = self._read(handle)
        if history is None:
            entry = None if waits else self._elsewhere(handle.job_id)
            if not waits and entry is None:
                return JobView(known=False)
            why = problem or (f"waits on {entry.host}" if entry else "waits for the local scheduler")
            return JobView(True, QUEUED, WAITING_WORD, why)
        views: Mapping[int, TaskView] = history.views
        if history.allocation and (history.host, history.allocation) != (self.host, self.allocation):
            if history.ended < handle.tasks and history.silent_s() > SILENT_S:
                views = self._given_up(handle, history)
            return summary(handle, views)
        if history.ended < handle.tasks and history.host == self.host and (problem or not waits) and _is_own(handle.directory):
            if not views and not waits:
                return JobView(known=False)
            views = self._unsupervised(handle, history, waiting=waits)
        return summary(handle, views, problem)

    def _given_up(self, handle: Handle, history: History) -> Mapping[int, TaskView]:
        """Return the tasks of an allocation whose supervisor has shown no sign of life for long."""
        gone = f"the Slurm job {history.allocation}, in which it ran on {history.host}, has ended"
        never = TaskView(CANCELLED, ENDED_WORD, f"{gone} before it started", ended=now())
        views = {task: never for task in range(handle.tasks) if task not in history.views} | history.views
        for task, begun in history.started.items():
            views[task] = _end_of_lost(handle, task, begun, trace=f"{gone}, and it left no exit record")
        return views

    def _unsupervised(self, handle: Handle, history: History, *, waiting: bool) -> Mapping[int, TaskView]:
        """Return the tasks as far as is known without a supervisor.

        None can be started (``waiting``), or the queue's entry was deleted and none will be.
        """
        boot_id = processes.boot_id(self._boot_id_file)
        views = dict(history.views)
        for task, begun in history.started.items():
            restarted = begun.boot_id != boot_id
            if restarted or not processes.alive(begun.pid, begun.start):
                views[task] = _end_of_lost(handle, task, begun, restarted=restarted)
        if not waiting:
            lost = TaskView(FAILED, ENDED_WORD, LOST_PLACE, ended=now())
            views |= {task: lost for task in range(handle.tasks) if task not in views}
        return views


def _end_of_lost(handle: Handle, task: int, begun: Started, *, restarted: bool = False, trace: str = "") -> TaskView:
    """Return how a task ended whose process is gone; ``trace`` is the reason if it left none itself."""
    folder = handle.directory / records.TASK_FOLDER / str(task)
    exit_file = records.load_optional(TaskExit, folder / records.EXIT)
    end = verdict.of_end(exit_file, records.load_optional(Ending, folder / records.ENDING), None, restarted=restarted)
    ended = exit_file.ended if exit_file else None
    reason = trace if trace and end.reason == verdict.WITHOUT_A_TRACE else end.reason
    return TaskView(end.state, ENDED_WORD, reason, end.exit_code, end.signal, begun.host, begun.time, ended or now())


def summary(handle: Handle, views: Mapping[int, TaskView], problem: str = "") -> JobView:
    """Return the view of a job from those of its tasks; tasks without one wait."""
    states = {view.state for view in views.values()}
    if len(views) == handle.tasks and states <= FINAL_STATES:
        state = next(state for state in WORST_FIRST if state in states)
        reason = next((view.reason for view in views.values() if view.state == state), "")
        return JobView(True, state, ENDED_WORD, reason, views)
    if not views:
        return JobView(True, QUEUED, WAITING_WORD, problem or "waits for a free slot")
    return JobView(True, RUNNING, RUNNING_WORD, problem, views)


def check_allowed(chosen: settings.Settings, environment: Mapping[str, str]) -> None:
    """Refuse jobs that may not run on this machine.

    Raises
    ------
    Forbidden
        If the site forbids it, or it is a login node or Open OnDemand and nobody has allowed it.
    """
    if chosen.allow_local_scheduler:
        return
    if chosen.allow_local_scheduler is False:
        raise Forbidden(
            "jobs may not run on this machine",
            why="the setting allow_local_scheduler is false",
            hint="submit to the cluster instead, or ask the site",
        )
    why = machine.why_not_here(environment)
    if why is not None:
        raise Forbidden(
            "jobs may not run on this machine",
            why=why,
            hint=(
                "submit to the cluster instead; where jobs are welcome here, "
                f"set `allow_local_scheduler: true` in {settings.site_file()} or {settings.config_dir() / 'settings.yml'}"
            ),
        )


@functools.lru_cache(maxsize=64)
def _history(path: Path) -> History:
    """Return the journal as far as this process has read it; reading it again costs only the new lines."""
    return History(path)


def _is_own(directory: Path) -> bool:
    try:
        return directory.stat().st_uid == os.geteuid()
    except OSError:
        return False


def _all_ended(history: History, tasks: Sequence[int]) -> bool:
    return all((view := history.views.get(task)) is not None and has_ended(view.state) for task in tasks)

"""A small scheduler behind the port, for tests of the room around it: its memory is a folder, its tasks are real processes.

``submit`` runs all tasks one after the other before it returns, or, with ``hold``, leaves them queued until the test says
`DirectScheduler.run`. Any number of instances, in any number of processes, share a folder.
"""

from __future__ import annotations

import datetime
import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lossi.clusters import Cluster
from lossi.contract import records
from lossi.contract.records import PreparedJob, SubmissionRecord
from lossi.contract.states import FINAL_STATES, has_ended
from lossi.errors import Unavailable
from lossi.files import atomic
from lossi.jobs.schedulers import (
    BatchSystem,
    Capabilities,
    Cause,
    Condition,
    Handle,
    JobView,
    PendingReason,
    Scheduler,
    TaskView,
)


def now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat()


def running(since: str | None = None) -> TaskView:
    return TaskView("running", "RUNNING", host="n1", started=since or now())


class DirectScheduler(Scheduler):
    """See the module."""

    name = "direct"
    cluster = None
    capabilities = Capabilities()

    def __init__(self, folder: Path, *, hold: bool = False, capabilities: Capabilities | None = None) -> None:
        self.folder = folder
        self.hold = hold
        self.capabilities = capabilities or Capabilities()
        self.lines: list[str] = []
        self.away = False
        self.polls = 0

    def directives(self, job: PreparedJob, directory: Path) -> list[str]:
        return self.lines

    def preview(self, job: PreparedJob, directory: Path) -> list[str]:
        return ["/bin/sh", str(directory / records.SCRIPT)]

    def submit(self, job: PreparedJob, directory: Path) -> SubmissionRecord:
        self._answer()
        record = SubmissionRecord(self.name, f"direct-{job.id}", now())
        data = {"record": records.to_dict(record), "directory": str(directory), "tasks": job.tasks, "views": {}}
        if not atomic.create_exclusive(self._file(job.id), json.dumps(data).encode()):
            return records.from_dict(SubmissionRecord, self._read(job.id)["record"])
        if not self.hold:
            self.run(job.id)
        return record

    def find(self, job_id: str) -> SubmissionRecord | None:
        self._answer()
        return records.from_dict(SubmissionRecord, self._read(job_id)["record"]) if self._file(job_id).exists() else None

    def poll(self, jobs: Sequence[Handle]) -> dict[str, JobView]:
        self._answer()
        self.polls += 1
        return {handle.job_id: self._view(handle.job_id) for handle in jobs}

    def dependency(self, earlier: Sequence[tuple[Condition, SubmissionRecord, int]]) -> str:
        if not self.capabilities.dependencies:
            return super().dependency(earlier)
        return " ".join(f"{condition}={record.scheduler_id}" for condition, record, _ in earlier)

    def cancel(self, handle: Handle, tasks: Sequence[int] | None) -> None:
        self._answer()
        for number in range(handle.tasks) if tasks is None else tasks:
            view = self._read(handle.job_id)["views"].get(str(number), {"state": "queued"})
            if not has_ended(view["state"]):
                self.say(handle.job_id, number, TaskView("cancelled", "CANCELLED", "cancelled by you", ended=now()))

    # -- what a test may do ----------------------------------------------------------------------------------------------

    def run(self, job_id: str, *tasks: int) -> None:
        """Run tasks to their end, all of them by default."""
        data = self._read(job_id)
        for number in tasks or range(data["tasks"]):
            if str(number) in self._read(job_id)["views"]:
                continue
            started = now()
            script = Path(data["directory"]) / records.SCRIPT
            done = subprocess.run(
                [str(script)], env={"PATH": os.environ["PATH"], "LOSSI_JOB_ID": job_id, "LOSSI_TASK": str(number)}, check=False
            )
            state = "succeeded" if done.returncode == 0 else "failed"
            self.say(job_id, number, TaskView(state, state.upper(), "", done.returncode, None, "here", started, now()))

    def say(self, job_id: str, task: int, view: TaskView) -> None:
        """Say of a task what a test wants said."""
        data = self._read(job_id)
        data["views"][str(task)] = records.to_dict(view)
        atomic.write(self._file(job_id), json.dumps(data).encode())

    def forget(self, job_id: str) -> None:
        """Know nothing of a job any more."""
        self._file(job_id).unlink()

    def submissions(self) -> list[str]:
        return sorted(path.stem for path in self.folder.glob("*.json"))

    def _answer(self) -> None:
        if self.away:
            raise Unavailable("the scheduler 'direct' does not answer", hint="try again later")

    def _file(self, job_id: str) -> Path:
        return self.folder / f"{job_id}.json"

    def _read(self, job_id: str) -> dict[str, Any]:
        data: dict[str, Any] = json.loads(self._file(job_id).read_bytes())
        return data

    def _view(self, job_id: str) -> JobView:
        if not self._file(job_id).exists():
            return JobView(False)
        data = self._read(job_id)
        views = {int(number): TaskView(**view) for number, view in data["views"].items()}
        states = {view.state for view in views.values()}
        if len(views) == data["tasks"] and states <= FINAL_STATES:
            return JobView(True, "succeeded" if states == {"succeeded"} else "failed", "ENDED", "", views)
        state = "running" if views else "queued"
        return JobView(True, state, state.upper(), "" if views else "waits for a slot", views)


class Direct(BatchSystem):
    """The batch system of one `DirectScheduler`."""

    name = "direct"
    schedulers = ("direct",)
    has_clusters = False

    def __init__(self, scheduler: DirectScheduler) -> None:
        self._scheduler = scheduler

    def scheduler(self, name: str, cluster: Cluster | None) -> Scheduler:
        return self._scheduler

    def explain_pending(self, reason: str) -> PendingReason | None:
        return PendingReason("All seats are taken", "Wait until somebody leaves") if reason == "NoSeat" else None

    def cause_of_state(self, scheduler_state: str) -> Cause | None:
        return "preemption" if scheduler_state == "EVICTED" else None

    def cause_in_log(self, text: str) -> Cause | None:
        return "time_limit" if "direct: its time is up" in text else None

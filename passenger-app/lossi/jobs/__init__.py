"""Jobs: from what is asked for to a job directory, a submission, and the truth about how each task stands.

Touches ``<project>/.lossi/jobs`` and the tables ``jobs`` and ``tasks`` of the index; asks schedulers through the port in
`schedulers`. The parts load when they are first used, because most commands need only one of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lossi.jobs.control import cancel, resubmit
    from lossi.jobs.diagnoses import JobDiagnosis, TaskExplanation
    from lossi.jobs.explaining import advise, explain, explain_task
    from lossi.jobs.listing import get, list_jobs, log, output_notebook, progress, task, tasks
    from lossi.jobs.models import Job, JobDefinition, Page, Preview, Task
    from lossi.jobs.spec import JobSpec, validated
    from lossi.jobs.submission import preview, submit
    from lossi.jobs.waits import queue_waits
    from lossi.jobs.watching import rebuild, reconcile, refresh

_HOME = {
    "control": ("cancel", "resubmit"),
    "diagnoses": ("JobDiagnosis", "TaskExplanation"),
    "explaining": ("advise", "explain", "explain_task"),
    "listing": ("get", "list_jobs", "log", "output_notebook", "progress", "task", "tasks"),
    "models": ("Job", "JobDefinition", "Page", "Preview", "Task"),
    "spec": ("JobSpec", "validated"),
    "submission": ("preview", "submit"),
    "waits": ("queue_waits",),
    "watching": ("rebuild", "reconcile", "refresh"),
}
_MODULE = {name: module for module, names in _HOME.items() for name in names}

__all__ = [
    "Job",
    "JobDefinition",
    "JobDiagnosis",
    "JobSpec",
    "Page",
    "Preview",
    "Task",
    "TaskExplanation",
    "advise",
    "cancel",
    "explain",
    "explain_task",
    "get",
    "list_jobs",
    "log",
    "output_notebook",
    "preview",
    "progress",
    "queue_waits",
    "rebuild",
    "reconcile",
    "refresh",
    "resubmit",
    "submit",
    "task",
    "tasks",
    "validated",
]


def __getattr__(name: str) -> Any:
    try:
        return getattr(import_module(f"lossi.jobs.{_MODULE[name]}"), name)
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None

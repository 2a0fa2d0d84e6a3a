"""The batch systems: a port (`base`), what each kind is (`system`), and one folder for each.

``local`` is this machine; the others run jobs on the clusters that `lossi.clusters` knows.
"""

from __future__ import annotations

from lossi.jobs.schedulers.base import (
    FORGOTTEN,
    LOG,
    Capabilities,
    Condition,
    Handle,
    JobView,
    NotSubmitted,
    Scheduler,
    SessionOptions,
    TaskView,
)
from lossi.jobs.schedulers.registry import LOCAL, check_cluster, default, get, names, of_cluster, of_record, register, systems
from lossi.jobs.schedulers.system import BatchSystem, Cause, ClusterCheck, PendingReason

__all__ = [
    "FORGOTTEN",
    "LOCAL",
    "LOG",
    "BatchSystem",
    "Capabilities",
    "Cause",
    "ClusterCheck",
    "Condition",
    "Handle",
    "JobView",
    "NotSubmitted",
    "PendingReason",
    "Scheduler",
    "SessionOptions",
    "TaskView",
    "check_cluster",
    "default",
    "get",
    "names",
    "of_cluster",
    "of_record",
    "register",
    "systems",
]

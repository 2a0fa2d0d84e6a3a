"""The local scheduler: tasks on this machine, under one supervisor per user and host.

Two sides that meet only on disk: the *adapter* (in whatever process submits, asks or cancels) and the *supervisor* (a detached
process that lives as long as its queue). `queue` and `journal` are the files between them.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

from lossi.jobs.schedulers.system import BatchSystem

if TYPE_CHECKING:
    from lossi.clusters import Cluster
    from lossi.jobs.schedulers.base import Scheduler


class Local(BatchSystem):
    """The batch system of this machine."""

    name = "local"
    schedulers = ("local",)
    has_clusters = False

    def scheduler(self, name: str, cluster: Cluster | None) -> Scheduler:
        """Return the scheduler of this machine."""
        from lossi import settings

        return _of_state(settings.state_dir())


@functools.lru_cache(maxsize=4)
def _of_state(state: Path) -> Scheduler:
    """Return one adapter per state folder: it remembers how far it has read each job's journal."""
    from lossi.jobs.schedulers.local.adapter import LocalScheduler

    return LocalScheduler(state / "local")


SYSTEM = Local()

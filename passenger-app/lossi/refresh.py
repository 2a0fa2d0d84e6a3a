"""Bring a project up to date before its runs are shown: the state of its tasks, and what they have published since."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from lossi.errors import LossiError

if TYPE_CHECKING:
    from lossi.projects import Project
    from lossi.tracking import IngestReport


def update_project(project: Project, *, everything: bool = False) -> IngestReport:
    """Write the facts of tasks into the index, and what tasks published into the tracking store.

    Parameters
    ----------
    project
        One that this user may only read is left as it is.
    everything
        Until nothing is left, as a command does; otherwise only as long as a page has time, and a child process continues.
    """
    from lossi import jobs, tracking

    # A scheduler that does not answer, or an index that cannot be written, makes the facts older, not the runs unreadable.
    with contextlib.suppress(LossiError):
        jobs.refresh(project)
    return tracking.ingest_runs(project) if everything else tracking.catch_up(project)

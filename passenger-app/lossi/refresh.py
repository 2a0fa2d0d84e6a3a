"""Bringing a project up to date before runs are shown: how their tasks stand, and what the tasks have published since."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from lossi.errors import LossiError

if TYPE_CHECKING:
    from lossi.projects import Project
    from lossi.tracking import IngestReport


def look(project: Project, *, everything: bool = False) -> IngestReport:
    """Refresh job facts and take in what was published.

    Parameters
    ----------
    project
        Where. One that this user may only read is read as it is.
    everything
        Until nothing is left, as a command does; otherwise within the time that a page has, and a child process goes on.
    """
    from lossi import jobs, tracking

    # A scheduler that does not answer, or an index that may not be written, makes the facts older, not the runs unreadable.
    with contextlib.suppress(LossiError):
        jobs.refresh(project)
    return tracking.ingest_runs(project) if everything else tracking.catch_up(project)

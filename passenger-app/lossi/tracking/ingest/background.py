"""Ingest while a page is answered: as much as fits into its budget, the rest in one child process with low priority.

The module is also that child: ``python -I background.py PROJECT PARENT_PID``. The child ends with the process that started it,
which is safe because ingest can be stopped at any point.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess

    from lossi.projects import Project
    from lossi.tracking.ingest.progress import IngestReport

MEMORY_BYTES = 2 * 2**30
CPU_SECONDS = 600
PASSED = (
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "LANG",
    "TMPDIR",
    "LOSSI_SITE",
    "XDG_STATE_HOME",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
)
"""Environment variables of the child: where its files are; no secrets, no proxies, nothing that changes Python."""

_child: subprocess.Popen[bytes] | None = None


def catch_up(project: Project) -> IngestReport:
    """Ingest for as long as the setting `ingest_budget_s` allows; a child process does the rest.

    Returns
    -------
    IngestReport
        With ``remaining`` > 0 the store is not complete yet.
    """
    from lossi import settings
    from lossi.tracking.ingest.entry import ingest_runs

    report = ingest_runs(project, budget_s=settings.load().ingest_budget_s)
    if report.remaining:
        start_child(project)
    return report


def start_child(project: Project) -> subprocess.Popen[bytes] | None:
    """Start the child for a project; return None if this process still has one or none can be started."""
    from lossi import processes

    global _child
    if _child is not None and _child.poll() is None:
        return None
    try:
        _child = processes.start(
            [sys.executable, "-I", str(Path(__file__).resolve()), str(project.root), str(os.getpid())],
            environment={name: os.environ[name] for name in PASSED if name in os.environ},
        )
    except OSError:  # too many processes: the next page tries again
        _child = None
    return _child


def main() -> int:
    """Limit this process and ingest the project that the arguments name."""
    project, parent = Path(sys.argv[1]), int(sys.argv[2])
    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
    from lossi import processes

    processes.confine(parent, parent_signal=signal.SIGTERM, memory_bytes=MEMORY_BYTES, cpu_s=CPU_SECONDS)
    from lossi.projects import Project
    from lossi.tracking.ingest.entry import ingest_runs

    ingest_runs(Project(project))
    return 0


if __name__ == "__main__":
    sys.exit(main())

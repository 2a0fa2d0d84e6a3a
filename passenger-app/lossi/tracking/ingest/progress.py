"""Progress of one ingest and the report made of it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from lossi.projects import stores

UNKNOWN_REVISION = "its schema revision is not known:"
REVISION_HINT = "update Lossi on this machine, or use an environment with MLflow " + " or ".join(stores.KNOWN_REVISIONS.values())
REFUSED_HINT = "the file stays where it is: submit the task again, or remove the file to silence this message"


@dataclass(frozen=True)
class Problem:
    """Something that could not be ingested; everything else was."""

    what: str
    why: str = ""
    hint: str = ""
    job_id: str | None = None


@dataclass(frozen=True)
class IngestReport:
    """Result of one ingest.

    Attributes
    ----------
    taken
        Snapshots merged.
    runs
        Runs in them.
    remaining
        Tasks left when the budget was used up: call again.
    unmerged_tables
        Tables with rows that could not be merged; the snapshot files that hold them are kept.
    busy
        Another process is ingesting, or has locked the store.
    read_only
        This user may not write to the project: another user's ingest must.
    """

    taken: int = 0
    runs: int = 0
    remaining: int = 0
    unmerged_tables: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    busy: bool = False
    read_only: bool = False
    elapsed_s: float = 0.0


@dataclass
class Progress:
    """Counts of an ingest under way, and its time budget in seconds (None: unlimited)."""

    budget_s: float | None = None
    taken: int = 0
    remaining: int = 0
    busy: bool = False
    read_only: bool = False
    runs: set[str] = field(default_factory=set)
    unmerged: set[str] = field(default_factory=set)
    refused: dict[tuple[str, str], int] = field(default_factory=dict)
    """(reason, job) → number of snapshots."""
    problems: list[Problem] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._started = time.monotonic()

    def left_s(self) -> float | None:
        """Return the seconds left of the budget, None without one."""
        return None if self.budget_s is None else self.budget_s - (time.monotonic() - self._started)

    def is_over(self) -> bool:
        """Return whether the budget is used up."""
        left = self.left_s()
        return left is not None and left <= 0

    def add_refused(self, job_id: str, reason: str, count: int = 1) -> None:
        """Count snapshots that cannot be ingested."""
        self.refused[reason, job_id] = self.refused.get((reason, job_id), 0) + count

    def add_problem(self, what: str, why: str = "", hint: str = "", job_id: str | None = None) -> None:
        """Add a problem that is not about a single snapshot."""
        self.problems.append(Problem(what, why, hint, job_id))

    def report(self) -> IngestReport:
        """Return the report."""
        refused = (
            Problem(
                f"{count} snapshot{'s' if count > 1 else ''} of job {job} could not be ingested",
                reason,
                REVISION_HINT if reason.startswith(UNKNOWN_REVISION) else REFUSED_HINT,
                job,
            )
            for (reason, job), count in sorted(self.refused.items())
        )
        return IngestReport(
            taken=self.taken,
            runs=len(self.runs),
            remaining=self.remaining,
            unmerged_tables=tuple(sorted(self.unmerged)),
            problems=(*self.problems, *refused),
            busy=self.busy,
            read_only=self.read_only,
            elapsed_s=round(time.monotonic() - self._started, 4),
        )

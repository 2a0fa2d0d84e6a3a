"""What an ingest did, for programs and people.

Room: tracking. Touches no file.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from lossi.projects import stores

UNKNOWN_REVISION = "its schema revision is not known:"
REVISION_HINT = "update Lossi on this machine, or use an environment with MLflow " + " or ".join(stores.KNOWN_REVISIONS.values())
REFUSED_HINT = "the file is left where it is; submit the task again, or remove the file to get rid of this message"


@dataclass(frozen=True)
class Problem:
    """Something that could not be taken in; everything else was."""

    what: str
    why: str = ""
    hint: str = ""
    job_id: str | None = None


@dataclass(frozen=True)
class IngestReport:
    """What one call of ingest did.

    Attributes
    ----------
    taken
        Snapshots that were taken in.
    runs
        Runs in them.
    remaining
        Tasks that were not come to before the time was over; call again.
    unmerged_tables
        Tables with rows that could not be merged; the snapshot files that hold them are kept.
    busy
        Somebody else is taking in results now, or holds the store.
    read_only
        This user may not write to the project: somebody else's ingest has to.
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
class Tally:
    """Counts while an ingest is under way.

    Parameters
    ----------
    budget_s
        Seconds that it may take; None = as many as it needs.
    """

    budget_s: float | None = None
    clock: Callable[[], float] = time.monotonic
    taken: int = 0
    remaining: int = 0
    busy: bool = False
    read_only: bool = False
    runs: set[str] = field(default_factory=set)
    unmerged: set[str] = field(default_factory=set)
    refusals: dict[tuple[str, str], int] = field(default_factory=dict)
    """(why, job) → number of snapshots."""
    others: list[Problem] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._started = self.clock()

    def left_s(self) -> float | None:
        """Return the seconds left of the budget, None without one."""
        return None if self.budget_s is None else self.budget_s - (self.clock() - self._started)

    def over(self) -> bool:
        """Whether the time is used up."""
        left = self.left_s()
        return left is not None and left <= 0

    def refused(self, job_id: str, why: str, count: int = 1) -> None:
        """Count snapshots that cannot be taken in."""
        self.refusals[why, job_id] = self.refusals.get((why, job_id), 0) + count

    def problem(self, what: str, why: str = "", hint: str = "", job_id: str | None = None) -> None:
        """Note a problem that is not about a snapshot."""
        self.others.append(Problem(what, why, hint, job_id))

    def report(self) -> IngestReport:
        """Return the report."""
        refused = tuple(
            Problem(
                f"{count} snapshot{'s' if count > 1 else ''} of job {job} could not be taken in",
                why,
                REVISION_HINT if why.startswith(UNKNOWN_REVISION) else REFUSED_HINT,
                job,
            )
            for (why, job), count in sorted(self.refusals.items())
        )
        return IngestReport(
            taken=self.taken,
            runs=len(self.runs),
            remaining=self.remaining,
            unmerged_tables=tuple(sorted(self.unmerged)),
            problems=(*self.others, *refused),
            busy=self.busy,
            read_only=self.read_only,
            elapsed_s=round(self.clock() - self._started, 4),
        )

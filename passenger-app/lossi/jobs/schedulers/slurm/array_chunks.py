"""One job of Lossi is one Slurm job, or several if its tasks do not fit into one array: its chunks. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lossi.jobs.schedulers.base import Condition

_AFTER: dict[Condition, str] = {"ok": "afterok", "any": "afterany", "not_ok": "afternotok"}


@dataclass(frozen=True)
class ArrayChunk:
    """Tasks ``offset`` … ``offset + tasks - 1`` of a job, one submission to Slurm. ``slurm_id`` 0: not submitted yet."""

    offset: int
    tasks: int
    slurm_id: int = 0

    @property
    def numbers(self) -> range:
        """The job's numbers of its tasks."""
        return range(self.offset, self.offset + self.tasks)


def split(tasks: int, most: int | None) -> list[ArrayChunk]:
    """Return the chunks of a job with so many tasks, none larger than ``most`` (None: no limit)."""
    size = tasks if most is None else max(1, min(tasks, most))
    return [ArrayChunk(start, min(size, tasks - start)) for start in range(0, tasks, size)]


def throttles(chunks: Sequence[ArrayChunk], most: int | None) -> list[int | None]:
    """Divide "at most so many at once" among chunks that run at the same time; each gets at least one."""
    if most is None:
        return [None] * len(chunks)
    share, rest = divmod(most, len(chunks))
    return [max(1, share + (number < rest)) for number in range(len(chunks))]


def dump(chunks: Sequence[ArrayChunk]) -> str:
    """Return the text of `SubmissionRecord.scheduler_id`: ``123``, or ``123+456@1000+789@2000``."""
    return "+".join(f"{chunk.slurm_id}@{chunk.offset}" if chunk.offset else str(chunk.slurm_id) for chunk in chunks)


def parse(text: str, tasks: int) -> list[ArrayChunk]:
    """Return the chunks from a text of `dump`.

    Raises
    ------
    ValueError
        If it is not one.
    """
    starts = []
    for item in text.split("+"):
        slurm_id, _, offset = item.partition("@")
        starts.append((int(offset or 0), int(slurm_id)))
    starts.sort()
    ends = [offset for offset, _ in starts[1:]] + [tasks]
    return [ArrayChunk(offset, end - offset, slurm_id) for (offset, slurm_id), end in zip(starts, ends, strict=True)]


def dependency(earlier: Sequence[tuple[Condition, str, int]]) -> str:
    """Return the value of ``--dependency`` for earlier jobs: how each must end, its text of `dump`, its number of tasks."""
    return ",".join(
        ":".join([_AFTER[condition], *(str(chunk.slurm_id) for chunk in parse(scheduler_id, tasks))])
        for condition, scheduler_id, tasks in earlier
    )

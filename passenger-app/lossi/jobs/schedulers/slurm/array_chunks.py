"""One job of Lossi is one Slurm job, or several where its tasks do not fit into one array. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lossi.jobs.schedulers.base import Condition

_AFTER: dict[Condition, str] = {"ok": "afterok", "any": "afterany", "not_ok": "afternotok"}


@dataclass(frozen=True)
class Part:
    """Tasks ``offset`` … ``offset + tasks - 1`` of a job, one submission to Slurm. ``slurm_id`` 0: not submitted yet."""

    offset: int
    tasks: int
    slurm_id: int = 0


def split(tasks: int, most: int | None) -> list[Part]:
    """Return the parts of a job of so many tasks, none greater than ``most`` (None: no limit)."""
    size = tasks if most is None else max(1, min(tasks, most))
    return [Part(start, min(size, tasks - start)) for start in range(0, tasks, size)]


def throttles(parts: Sequence[Part], most: int | None) -> list[int | None]:
    """Share out "at most so many at once" among parts that run side by side; each gets at least one."""
    if most is None:
        return [None] * len(parts)
    share, rest = divmod(most, len(parts))
    return [max(1, share + (number < rest)) for number in range(len(parts))]


def dump(parts: Sequence[Part]) -> str:
    """Return the text under which the parts are kept: ``123``, or ``123+456@1000+789@2000``."""
    return "+".join(f"{part.slurm_id}@{part.offset}" if part.offset else str(part.slurm_id) for part in parts)


def parse(text: str, tasks: int) -> list[Part]:
    """Return the parts that a text of `dump` stands for.

    Raises
    ------
    ValueError
        When it is none.
    """
    starts = []
    for word in text.split("+"):
        slurm_id, _, offset = word.partition("@")
        starts.append((int(offset or 0), int(slurm_id)))
    starts.sort()
    ends = [offset for offset, _ in starts[1:]] + [tasks]
    return [Part(offset, end - offset, slurm_id) for (offset, slurm_id), end in zip(starts, ends, strict=True)]


def dependency(earlier: Sequence[tuple[Condition, str, int]]) -> str:
    """Return what ``--dependency`` says for earlier jobs: how each must end, its text of `dump`, its number of tasks."""
    words = []
    for condition, scheduler_id, tasks in earlier:
        words.append(":".join([_AFTER[condition], *(str(part.slurm_id) for part in parse(scheduler_id, tasks))]))
    return ",".join(words)

"""scancel: cancels jobs and array tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from lossi.clusters import Cluster
from lossi.jobs.schedulers.slurm import values
from lossi.jobs.schedulers.slurm.cli.commands import MOST_ARGUMENT_BYTES, chosen, words_within


@dataclass(frozen=True)
class Scancel:
    """Jobs (``123``) and array tasks (``123_[1,5-9]``)."""

    jobs: tuple[str, ...]
    name: ClassVar[str] = "scancel"

    def argv(self, cluster: Cluster) -> list[str]:
        """Return what to start."""
        return [cluster.command(self.name), *chosen(cluster), *self.jobs]

    def parse(self, text: str) -> None:
        """Return nothing: it prints nothing."""


def words_of(jobs: Mapping[int, Sequence[int] | None]) -> list[list[str]]:
    """Return the ids to cancel, in as many commands as the size of argv requires."""
    words = []
    for job, tasks in jobs.items():
        if tasks is None:
            words.append(str(job))
            continue
        for spans in words_within(values.ranges_text(tasks).split(",") if tasks else []):
            words.append(f"{job}_[{','.join(spans)}]")
    return words_within(words, 2 * MOST_ARGUMENT_BYTES)

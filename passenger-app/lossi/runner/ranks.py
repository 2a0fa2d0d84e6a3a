"""The other processes of a task on several nodes, as the runner on the first node sees them.

Every node runs this runner; the first one (rank 0) owns the task's store, log and exit.json. The others hand their exit
records to ``script.sh``, whose `srun` carries them to the first node into ``tasks/<n>/ranks.jsonl``: written and read on one
node, so a network filesystem with stale caches does not matter. Lines: ``{"rank": 1, "exit": {…}}``, at the end
``{"ended": 0}`` with srun's exit code.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Optional

from lossi.contract.states import FAILED, SUCCEEDED

from ..contract import records
from ..contract.records import TaskExit


@dataclass(frozen=True)
class FailedRank:
    """The process that failed first. ``rank`` None: srun itself failed; the log says why."""

    rank: Optional[int]
    exit: TaskExit

    @property
    def reason(self) -> str:
        """One sentence that names the process."""
        if self.rank is None:
            return self.exit.reason
        return f"rank {self.rank} on {self.exit.host or 'another node'}: {self.exit.reason}"


class Ranks:
    """The exit records of the other processes so far.

    Parameters
    ----------
    path
        ``ranks.jsonl``; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.exits: Dict[int, TaskExit] = {}
        self.ended = False
        """Whether all of them have ended."""
        self.failed: Optional[FailedRank] = None
        self._offset = 0

    def read(self) -> None:
        """Read the new lines; skip those that are no exit record (a prologue may print)."""
        try:
            with open(self.path, "rb") as stream:
                stream.seek(self._offset)
                data = stream.read()
        except OSError:
            return
        whole = data.rfind(b"\n") + 1
        self._offset += whole
        for line in data[:whole].splitlines():
            try:
                self._add(json.loads(line.decode("utf-8", "surrogatepass")))
            except (ValueError, TypeError, KeyError):
                continue

    def notes(self) -> List[str]:
        """Return the notes of the other processes."""
        return [f"rank {rank}: {note}" for rank, end in sorted(self.exits.items()) for note in end.notes]

    def _add(self, line: Dict[str, object]) -> None:
        if "ended" in line:
            code = int(str(line["ended"]))
            self.ended = True
            if code and self.failed is None:
                reason = f"the processes on the other nodes left no exit record (srun ended with {code}); see the log"
                self.failed = FailedRank(None, TaskExit(-1, FAILED, code, reason=reason))
            return
        rank, end = int(str(line["rank"])), records.from_dict(TaskExit, line["exit"])  # type: ignore[arg-type]
        self.exits[rank] = end
        if end.state != SUCCEEDED and self.failed is None:
            self.failed = FailedRank(rank, end)


def exit_file(rank: int) -> str:
    """Return the name of a process's exit record; exit.json is the first one's."""
    return records.EXIT if rank == 0 else f"exit.rank{rank}.json"


def other_ranks(task_folder: Path, nodes: int, rank: int) -> Optional[Ranks]:
    """Return the task's other processes; None if this process has none to watch."""
    return Ranks(task_folder / records.RANKS) if nodes > 1 and rank == 0 and "LOSSI_NODE_RANK" in os.environ else None

"""The further processes of a task that has several nodes, as the runner on the first node sees them.

Every node runs this runner; the first one (rank 0) owns the task's store, log and exit.json. The others give their account to
``script.sh``, whose `srun` carries it to the first node into ``tasks/<n>/ranks.jsonl``: read and written on one node, so that a
network filesystem that shows things late does not matter. Lines: ``{"rank": 1, "exit": {…}}``, at the end ``{"ended": 0}`` with
srun's exit code.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Optional

from ..contract import records
from ..contract.records import TaskExit


@dataclass(frozen=True)
class Lost:
    """The process that did not do its part. ``rank`` None: srun itself failed, and says so in the log."""

    rank: Optional[int]
    exit: TaskExit

    @property
    def reason(self) -> str:
        """One sentence that names it."""
        if self.rank is None:
            return self.exit.reason
        return f"rank {self.rank} on {self.exit.host or 'another node'}: {self.exit.reason}"


class Ranks:
    """What is known of the others so far.

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
        self.lost: Optional[Lost] = None
        """The first that ended otherwise than well."""
        self._offset = 0

    def read(self) -> None:
        """Take in what came since the last look; what is no account (a prologue may print) is passed over."""
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
                self._take(json.loads(line.decode("utf-8", "surrogatepass")))
            except (ValueError, TypeError, KeyError):
                continue

    def notes(self) -> List[str]:
        """Return what the others want the user to know."""
        return [f"rank {rank}: {note}" for rank, end in sorted(self.exits.items()) for note in end.notes]

    def _take(self, line: Dict[str, object]) -> None:
        if "ended" in line:
            code = int(str(line["ended"]))
            self.ended = True
            if code and self.lost is None:
                reason = f"the processes on the further nodes ended without an account (srun: {code}); the log says why"
                self.lost = Lost(None, TaskExit(-1, records.FAILED, code, reason=reason))
            return
        rank, end = int(str(line["rank"])), records.from_dict(TaskExit, line["exit"])  # type: ignore[arg-type]
        self.exits[rank] = end
        if end.state != records.SUCCEEDED and self.lost is None:
            self.lost = Lost(rank, end)


def account(rank: int) -> str:
    """Return the name of the file in which a process leaves its account: exit.json is the first one's."""
    return records.EXIT if rank == 0 else f"exit.rank{rank}.json"


def of_environment(task_folder: Path, nodes: int, rank: int) -> Optional[Ranks]:
    """Return the others of a task, None where there are none to look after."""
    return Ranks(task_folder / records.RANKS) if nodes > 1 and rank == 0 and "LOSSI_NODE_RANK" in os.environ else None

"""Three-way settlement: what a task changed, against what was edited in the project's store meanwhile.

Room: tracking. Pure functions. Words: *theirs* is what the snapshot says now, *base* what the same task said last time (or
was given at its start), *ours* what the store holds, *written* what ingest itself wrote there last, on behalf of any task.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

GONE: Final = object()
"""The value of a key that is not there."""


def settled(
    theirs: Mapping[str, object],
    base: Mapping[str, object],
    ours: Mapping[str, object],
    written: Mapping[str, object] | None = None,
    prefer: Callable[[object, object], bool] = lambda new, now: True,
) -> dict[str, object]:
    """Return what must be written to the store; `GONE` means removed.

    A key that the task did not change is left as it is. One that was changed on both sides keeps the store's value,
    because a person's edit wins over a program's; unless what the store holds is itself another task's (``written``),
    then ``prefer(new, now)`` decides.
    """
    result: dict[str, object] = {}
    for key in theirs.keys() | base.keys():
        new, old, now = theirs.get(key, GONE), base.get(key, GONE), ours.get(key, GONE)
        if new in (old, now):
            continue
        others = written is not None and now is not GONE and written.get(key, GONE) == now
        if now == old or (others and prefer(new, now)):
            result[key] = new
    return result


def settled_run(theirs: Mapping[str, object], base: Mapping[str, object] | None, ours: Mapping[str, object]) -> dict[str, object]:
    """Return name, status, end time and lifecycle of a run that is in the store already.

    A name or a deletion of the store wins. The status is the task's when it changed since ``base``; otherwise it stays,
    so that a run which somebody marked as killed is not running again. Without a base (a lost ledger) the store's name
    and lifecycle stay, and an ended run is not running again.
    """
    result = dict(ours)
    if base is None:
        if theirs["end_time"] is not None or ours["end_time"] is None:
            result.update(status=theirs["status"], end_time=theirs["end_time"])
        return result
    if ours["name"] == base["name"]:
        result["name"] = theirs["name"]
    if (theirs["status"], theirs["end_time"]) != (base["status"], base["end_time"]):
        result.update(status=theirs["status"], end_time=theirs["end_time"])
    if ours["lifecycle_stage"] == base["lifecycle_stage"]:
        result.update(lifecycle_stage=theirs["lifecycle_stage"], deleted_time=theirs["deleted_time"])
    return result

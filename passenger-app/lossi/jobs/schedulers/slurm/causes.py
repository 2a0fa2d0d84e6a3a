"""What ended a task, by Slurm's state of it and by the lines that Slurm writes into logs. Pure."""

from __future__ import annotations

import re

from lossi.jobs.schedulers.system import Cause

_STATES: dict[str, Cause] = {
    "TIMEOUT": "time_limit",
    "DEADLINE": "time_limit",
    "OUT_OF_MEMORY": "memory",
    "NODE_FAIL": "node_failure",
    "BOOT_FAIL": "node_failure",
    "PREEMPTED": "preemption",
}
_OWN_LINES = re.compile(r"^(?:slurmstepd|srun|slurmd)[^\n]*", re.MULTILINE)
_MARKS: tuple[tuple[Cause, re.Pattern[str]], ...] = (
    ("time_limit", re.compile(r"DUE TO TIME LIMIT")),
    ("preemption", re.compile(r"DUE TO PREEMPTION")),
    ("node_failure", re.compile(r"DUE TO NODE FAILURE|Node failure on")),
    ("memory", re.compile(r"oom[-_ ]kill|Exceeded (?:job|step) memory limit|Out Of Memory|exceeded memory limit", re.IGNORECASE)),
)


def of_state(scheduler_state: str) -> Cause | None:
    """Return the cause that a state such as ``TIMEOUT`` names."""
    return _STATES.get(scheduler_state.upper().partition(" ")[0])


def in_log(text: str) -> Cause | None:
    """Return the cause that Slurm's own lines in a log name."""
    lines = "\n".join(_OWN_LINES.findall(text))
    return next((cause for cause, pattern in _MARKS if pattern.search(lines)), None)

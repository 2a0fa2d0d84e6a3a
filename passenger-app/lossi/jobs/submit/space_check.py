"""Whether the project folder has room for a job's files. Asks the filesystem and the site's quota files."""

from __future__ import annotations

import time

from lossi import units
from lossi.errors import InvalidInput, Unavailable
from lossi.files.space import Quota, Space, space
from lossi.projects import Project

FILES_PER_JOB = 12
"""Files that preparing and submitting make in a job directory (`lossi.contract.records`)."""
FILES_PER_TASK = 10
"""Files of a task until its job is packed, besides those that the program writes."""
FEW_BYTES = 1 << 30
NEARLY_FULL = 0.95
_REMEDY = "remove old jobs, or use a project elsewhere"


def check_space(project: Project, tasks: int) -> list[str]:
    """Return warnings about files and bytes that may not suffice for a job with so many tasks.

    What the programs will write is unknown.

    Raises
    ------
    Unavailable
        When the job needs more files than are free, or the filesystem does not answer.
    InvalidInput
        When the job needs more files than the filesystem or the quota could ever hold.
    """
    return judge(space(project.jobs), tasks)


def judge(room: Space, tasks: int) -> list[str]:
    """Return the warnings of `check_space`. Pure except for the time of day."""
    need = FILES_PER_JOB + FILES_PER_TASK * tasks
    where = f"the filesystem of {room.path}"
    warnings = _files(where, need, room.files_free, room.files_total)
    if room.bytes_free < FEW_BYTES:
        warnings.append(f"{where} has {units.humanize_size(room.bytes_free)} left ({_REMEDY})")
    for quota in room.quotas:
        warnings += _quota(quota, need)
    return warnings


def _files(where: str, need: int, left: int | None, total: int | None) -> list[str]:
    """Return a warning if less than twice the need is left."""
    if left is None or left >= 2 * need:
        return []
    message = f"{where} has room for {left:,} more files, and this job makes about {need:,}"
    if left >= need:
        return [f"{message} ({_REMEDY})"]
    if total is not None and need > total:
        raise InvalidInput(
            f"{where} can hold {total:,} files, and this job makes about {need:,}",
            hint="request fewer tasks",
            limit="files",
            asked=need,
            allowed=left,
        )
    raise Unavailable(message, hint=f"{_REMEDY}, or request fewer tasks", limit="files", asked=need, allowed=left)


def _quota(quota: Quota, need: int) -> list[str]:
    owner = "your quota" if quota.kind == "user" else "the quota"
    where = f"{owner} of {quota.path}"
    warnings = []
    if quota.files_limit is not None:
        left = max(0, quota.files_limit - quota.files_used)
        # Old figures may be wrong, so they only warn.
        if not quota.stale:
            warnings += _files(where, need, left, quota.files_limit)
        elif left < 2 * need:
            warnings.append(
                f"{where} had room for {left:,} more files {_age(quota)}, and this job makes about {need:,} ({_REMEDY})"
            )
    if quota.bytes_limit is not None and quota.bytes_used > NEARLY_FULL * quota.bytes_limit:
        share = f"{units.humanize_size(quota.bytes_used)} of {units.humanize_size(quota.bytes_limit)}"
        when = f" {_age(quota)}" if quota.stale else ""
        warnings.append(f"{where} {'was' if when else 'is'} nearly exhausted{when}: {share} ({_REMEDY})")
    return warnings


def _age(quota: Quota) -> str:
    if quota.as_of is None:
        return "at an unknown time"
    days = max(1, int((time.time() - quota.as_of) // 86400))
    return f"{days:,} day{'s' if days > 1 else ''} ago"

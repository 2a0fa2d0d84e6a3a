"""The limits of partition, nodes, association and QOS that stop a request, keep it waiting or change it. Pure.

Slurm accepts many jobs that it can never start (limits of associations and of QOS without DenyOnLimit, and those of partitions
unless EnforcePartLimits is set); here they are refused with the limit's name.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence

from lossi.errors import Forbidden, InvalidInput
from lossi.jobs.schedulers.slurm.preflight import account_limits, partition_limits, usage_limits
from lossi.jobs.schedulers.slurm.preflight.findings import Finding, Known, listed
from lossi.jobs.schedulers.slurm.request import SlurmRequest

__all__ = ["Finding", "Known", "findings", "raise_refused", "warnings"]

_TRIED = 3
"""Maximum number of other partitions to check as a way out."""
_ORDER = {"refused": 0, "waits": 1, "note": 2}
_NOT_ALLOWED = re.compile(r"association\.(account|partition|qos)|partition\.(Allow|Deny)\w+|cluster\.partitions")
_DEPENDENCY = re.compile(
    r"(?:singleton|(?:after|afterany|afterburstbuffer|aftercorr|afternotok|afterok)(?::[0-9]+(?:_(?:[0-9]+|\*))?(?:\+[0-9]+)?)+)"
)


def findings(request: SlurmRequest, tasks: int, known: Known) -> list[Finding]:
    """Return the limits that affect a request, those that stop it first.

    Parameters
    ----------
    request
        What would be submitted; any chunk of a job with several.
    tasks
        Tasks of the whole job.
    known
        The cluster and the user's queue.
    """
    result = [*_whole(request, tasks, known)]
    names = _partitions(request, known)
    if not names:
        hint = f"name a partition: {listed(partition_limits.offered(known))}"
        result.append(Finding("refused", "partition.name", None, None, "no partition was named, and there is no default", hint))
    else:
        result += _everywhere(request, tasks, names, known)
    if any(finding.level == "refused" for finding in result):
        result = _with_way_out(result, request, tasks, names, known)
    return sorted(dict.fromkeys(result), key=lambda finding: _ORDER[finding.level])


def raise_refused(result: Sequence[Finding]) -> None:
    """Raise the first finding that stops the request; all findings are in the error's ``limits``.

    Raises
    ------
    Forbidden
        If the user may not use the partition, account or QOS.
    InvalidInput
        If the request exceeds a limit.
    """
    first = next((finding for finding in result if finding.level == "refused"), None)
    if first is None:
        return
    error = Forbidden if _NOT_ALLOWED.fullmatch(first.limit) else InvalidInput
    raise error(first.message, hint=first.hint, limits=[dataclasses.asdict(finding) for finding in result])


def warnings(result: Sequence[Finding]) -> list[str]:
    """Return sentences for the findings that do not stop the request."""
    return [
        f"{finding.message} ({finding.hint})" if finding.hint else finding.message
        for finding in result
        if finding.level != "refused"
    ]


def _partitions(request: SlurmRequest, known: Known) -> list[str]:
    """Return the requested partitions; [""] if the default is not known."""
    if request.partition:
        return [name for name in request.partition.split(",") if name]
    if known.partitions is None:
        return [""]
    return [row.name for row in known.partitions if row.default]


def _in(request: SlurmRequest, tasks: int, name: str, known: Known) -> list[Finding]:
    """Return the findings for one partition."""
    row = known.partition(name)
    payment = account_limits.pay(request, row, name, known)
    result = list(partition_limits.check(request, name, known, payment.flags)) if name else []
    return [*result, *payment.findings, *usage_limits.check(request, tasks, row, payment, known)]


def _everywhere(request: SlurmRequest, tasks: int, names: Sequence[str], known: Known) -> list[Finding]:
    """Return the findings for all requested partitions: if one accepts the request, the refusals of the others are notes."""
    each = [_in(request, tasks, name, known) for name in names]
    open_to = [result for result in each if all(finding.level != "refused" for finding in result)]
    missing = any(finding.limit == "partition.name" for result in each for finding in result)
    if len(names) == 1 or not open_to or missing:
        return [finding for result in each for finding in result]
    return [
        dataclasses.replace(finding, level="note") if finding.level == "refused" else finding
        for result in each
        for finding in result
    ]


def _with_way_out(
    result: Sequence[Finding], request: SlurmRequest, tasks: int, names: Sequence[str], known: Known
) -> list[Finding]:
    """Add to the hints a partition in which the request could run unchanged."""
    if any(finding.level == "refused" for finding in _whole(request, tasks, known)):
        return list(result)
    name = _other_partition(request, tasks, names, known)
    if name is None:
        return list(result)
    return [
        dataclasses.replace(finding, hint=f"{finding.hint}; or choose partition {name!r}")
        if finding.level == "refused" and repr(name) not in finding.hint
        else finding
        for finding in result
    ]


def _other_partition(request: SlurmRequest, tasks: int, names: Sequence[str], known: Known) -> str | None:
    # Without the queue this is quick; with it, only the first candidates are checked.
    empty, tried = dataclasses.replace(known, queue=None), 0
    for name in partition_limits.offered(known):
        there = dataclasses.replace(request, partition=name)
        if name in names or any(finding.level != "note" for finding in _in(there, tasks, name, empty)):
            continue
        if all(finding.level == "note" for finding in _in(there, tasks, name, known)):
            return name
        tried += 1
        if tried == _TRIED:
            break
    return None


def _whole(request: SlurmRequest, tasks: int, known: Known) -> Iterator[Finding]:
    """Yield the findings that do not depend on the partition."""
    most = known.cluster.max_tasks
    if most is not None and tasks > most:
        message = f"the site allows {most:,} tasks in one job on this cluster, you requested {tasks:,}"
        yield Finding(
            "refused", "cluster.max_tasks", tasks, most, message, f"request {most:,} or fewer, or split it into several jobs"
        )
    configuration = known.configuration
    if configuration is not None:
        size, jobs = configuration.max_array_size, configuration.max_job_count
        if request.array is not None and size is not None and len(request.array) > size:
            message = f"Slurm allows {size:,} tasks in one array (MaxArraySize), you requested {len(request.array):,}"
            yield Finding("refused", "cluster.MaxArraySize", len(request.array), size, message, "split it into several jobs")
        if jobs is not None and tasks >= jobs:
            message = f"Slurm holds fewer than {jobs:,} jobs and array tasks of all users together (MaxJobCount), you requested {tasks:,}"
            yield Finding("refused", "cluster.MaxJobCount", tasks, jobs - 1, message, f"request fewer than {jobs:,} tasks")
    yield from _dependency(request, known)


def _dependency(request: SlurmRequest, known: Known) -> Iterator[Finding]:
    text = request.dependency
    if not text:
        return
    if not all(_DEPENDENCY.fullmatch(part) for part in re.split(r"[,?]", text)):
        message = f"{text!r} is not a valid dependency"
        yield Finding("refused", "dependency", text, None, message, "write afterok:<job id>, afterany:<job id> or singleton")
        return
    ids = {int(number) for number in re.findall(r":([0-9]+)", text)}
    here = {row.job_id for row in known.queue or ()}
    unknown = sorted(str(number) for number in ids - here)
    if known.queue is not None and unknown:
        message = (
            f"job {listed(unknown)} is not in your queue: if it failed or never existed, the job waits forever or not at all"
        )
        yield Finding("note", "dependency", text, None, message, "check the job's id")
    if ids & here:
        message = f"it waits for job {listed([str(number) for number in ids & here])}"
        yield Finding("waits", "dependency", text, None, message, "it starts when that job has ended as required")

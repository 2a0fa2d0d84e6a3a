"""Checks of a request, together with the user's jobs in the queue, against the numbers in associations and QOS. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from lossi import units
from lossi.jobs.schedulers.slurm.preflight.account_limits import Payment, Source, per_user, together
from lossi.jobs.schedulers.slurm.preflight.findings import Finding, Known, at_once, counted, seconds, tres
from lossi.jobs.schedulers.slurm.records import Limits, PartitionRow, QueueRow
from lossi.jobs.schedulers.slurm.request import SlurmRequest

_HOLDING = frozenset(("RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED", "STOPPED", "RESIZING", "SIGNALING", "STAGE_OUT"))
"""States of jobs that use their resources."""
_WAITING = frozenset(("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD"))
_WORDS = {"cpu": "cores", "mem": "MiB of memory", "node": "nodes", "gres/gpu": "GPUs"}
_NEVER = "Slurm would accept the job and never start it"


def check(request: SlurmRequest, tasks: int, row: PartitionRow | None, payment: Payment, known: Known) -> Iterator[Finding]:
    """Yield the numbers of the associations and QOS that are exceeded."""
    requested = tres(request, row)
    yield from _wall(request, payment)
    yield from _one_job(requested, request, payment)
    yield from _minutes(requested, request, payment, "safe" in known.enforced())
    yield from _submitted(tasks, payment)
    yield from _running(at_once(request, tasks), payment)
    yield from _held(requested, at_once(request, tasks), payment, known.queue is not None)


def _word(key: str) -> str:
    return _WORDS.get(key) or (f"{key.removeprefix('gres/gpu:')} GPUs" if key.startswith("gres/gpu:") else key)


def _tasks(row: QueueRow) -> int:
    return 1 if row.tasks is None else sum(len(part) for part in row.tasks)


def _first(payment: Payment, value: Callable[[Limits], int | None]) -> Iterator[tuple[Source, int]]:
    """Yield the limit that applies, if one is set, with its source."""
    for source in payment.sources:
        most = value(source.limits)
        if most is not None:
            yield source, most
            return


def _keyed(payment: Payment, values: Callable[[Source], Mapping[str, int]]) -> list[tuple[Source, str, int]]:
    """Return the limit that applies to each resource, with its source."""
    holding: dict[str, tuple[Source, str, int]] = {}
    for source in payment.sources:
        for key, most in values(source).items():
            holding.setdefault(key, (source, key, most))
    return list(holding.values())


def _hint(text: str, payment: Payment) -> str:
    return text if payment.deny else f"{text}; {_NEVER}"


def _wall(request: SlurmRequest, payment: Payment) -> Iterator[Finding]:
    wall = seconds(request)
    for source, most in _first(payment, lambda limits: limits.max_wall_s):
        if wall is not None and wall > most:
            allowed, wish = units.format_time(most), units.format_time(wall)
            hint = _hint(f"request {allowed} or less", payment)
            message = f"{source} allows {allowed}, you requested {wish}"
            yield Finding("refused", f"{source.kind}.MaxWall", wish, allowed, message, hint)


def _one_job(request_tres: Mapping[str, int], request: SlurmRequest, payment: Payment) -> Iterator[Finding]:
    here = {key: number // request.nodes for key, number in request_tres.items() if key != "node"}
    for name, what, requested, values in (
        ("MaxTRESPerJob", "per job", request_tres, lambda source: source.limits.max_tres_per_job),
        ("MaxTRESPerNode", "per node", here, lambda source: source.limits.max_tres_per_node),
    ):
        for source, key, most in _keyed(payment, values):
            if requested.get(key, 0) > most:
                yield _too_many(source, f"{name}.{key}", f"{_word(key)} {what}", requested[key], most, payment)
    for source, key, least in _keyed(payment, lambda source: source.limits.min_tres_per_job):
        number = request_tres.get(key)
        if number is not None and number < least:
            message = f"{source} is for jobs of {counted(least, _word(key))} or more, you requested {number:,}"
            hint = _hint(f"request {least:,} or more, or choose another QOS", payment)
            yield Finding("refused", f"{source.kind}.MinTRESPerJob.{key}", number, least, message, hint)


def _too_many(source: Source, limit: str, what: str, number: int, most: int, payment: Payment) -> Finding:
    hint = _hint(f"request {most:,} or fewer", payment)
    return Finding(
        "refused",
        f"{source.kind}.{limit}",
        number,
        most,
        f"{source} allows {counted(most, what)}, you requested {number:,}",
        hint,
    )


def _minutes(request_tres: Mapping[str, int], request: SlurmRequest, payment: Payment, safe: bool) -> Iterator[Finding]:
    if request.time_limit_min is None:
        return
    for name, values in (
        ("MaxTRESMinsPerJob", lambda source: source.limits.max_tres_minutes_per_job),
        ("GrpTRESMins", lambda source: source.limits.group_tres_minutes),
    ):
        for source, key, most in _keyed(payment, values):
            number = request_tres.get(key, 0) * request.time_limit_min
            # Without `safe`, a job starts as long as anything is left of the budget.
            if number > most and (name != "GrpTRESMins" or safe or most == 0):
                hint = _hint("request a shorter time or for less", payment)
                message = f"{source} allows {most:,} minutes × {_word(key)}, you requested {number:,}"
                yield Finding("refused", f"{source.kind}.{name}.{key}", number, most, message, hint)


def _submitted(tasks: int, payment: Payment) -> Iterator[Finding]:
    for name, value in _counts("Submit", lambda limits: limits.max_submit, lambda limits: limits.group_submit):
        for source, most in _first(payment, value):
            already = sum(_tasks(job) for job in source.jobs if job.state in _HOLDING | _WAITING)
            if already + tasks <= most:
                continue
            left = max(0, most - already)
            have = f"you have {already:,} and request {tasks:,} more" if already else f"you requested {tasks:,}"
            message = f"{source} allows {counted(most, 'jobs')} submitted at once, where each array task counts: {have}"
            hint = f"request {left:,} or fewer tasks, or wait until others have ended" if left else "wait until others have ended"
            yield Finding(
                "refused", _limit(source, name), tasks, left, message, hint if most else "choose another QOS or account"
            )


def _running(many: int, payment: Payment) -> Iterator[Finding]:
    for name, value in _counts("Jobs", lambda limits: limits.max_jobs, lambda limits: limits.group_jobs):
        for source, most in _first(payment, value):
            used = sum(_tasks(job) for job in source.jobs if job.state in _HOLDING)
            limit = _limit(source, name)
            if most == 0:
                message = f"{source} allows no jobs"
                yield Finding("refused", limit, 1, 0, message, f"choose another QOS or account; {_NEVER}")
            elif used + many > most:
                yield _waiting(limit, source, counted(most, "jobs at once"), used, many, 1, most)


def _counts(
    word: str, own: Callable[[Limits], int | None], group: Callable[[Limits], int | None]
) -> Sequence[tuple[str, Callable[[Limits], int | None]]]:
    return (f"Max{word}", own), (f"Grp{word}", group)


def _limit(source: Source, name: str) -> str:
    """Return Slurm's name of a limit on the number of jobs: in a QOS it is per user."""
    name = name.replace("Submit", "SubmitJobs")
    return f"{source.kind}.{name}" + ("PerUser" if source.kind == "qos" and name.startswith("Max") else "")


def _held(requested: Mapping[str, int], many: int, payment: Payment, queue_known: bool) -> Iterator[Finding]:
    for name, values in (("MaxTRESPerUser", per_user), ("GrpTRES", together)):
        for source, key, most in _keyed(payment, values):
            number = requested.get(key, 0)
            if number > most:
                yield _too_many(source, f"{name}.{key}", f"{_word(key)} at once", number, most, payment)
            elif number:
                used = _used(source.jobs, key) if queue_known else 0
                if used + number * many > most:
                    yield _waiting(
                        f"{source.kind}.{name}.{key}", source, counted(most, f"{_word(key)} at once"), used, many, number, most
                    )


def _used(jobs: Sequence[QueueRow], key: str) -> int:
    """Return how much the user's jobs use; the queue does not tell their memory."""
    total = 0
    for job in jobs:
        if job.state not in _HOLDING:
            continue
        if key == "cpu":
            total += job.cpus or 0
        elif key == "node":
            total += job.nodes or 0
        elif key == "gres/gpu" or (job.gpu_type and key == f"gres/gpu:{job.gpu_type}"):
            total += job.gpus or 0
    return total


def _waiting(limit: str, source: Source, what: str, used: int, many: int, each: int, most: int) -> Finding:
    start = max(0, (most - used) // each)
    if start == 0:
        message = f"{source} allows {what}: you use {used:,} and request {each:,}"
        return Finding("waits", limit, each, most, message, "it starts when other jobs of yours have ended")
    message = f"{source} allows {what}: {start:,} of the {many:,} tasks can run at the same time"
    if used:
        message += f", you use {used:,} already"
    return Finding("note", limit, each * many, most, message, "the others start as these end")

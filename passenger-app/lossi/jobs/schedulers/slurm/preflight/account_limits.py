"""The account and the quality of service of a request: what associations and QOS allow, and what the user already uses. Pure.

If several limits are set, Slurm's rule (resource_limits.html) decides: the first one in the order partition's QOS, job's QOS
(before it with the flag OverPartQOS), association of the user.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from lossi.errors import did_you_mean
from lossi.jobs.schedulers.slurm.preflight.findings import Finding, Known, listed
from lossi.jobs.schedulers.slurm.records import Association, Limits, PartitionRow, Qos, QueueRow
from lossi.jobs.schedulers.slurm.request import SlurmRequest

_FLAGS = {
    "denylimit": "denyonlimit",
    "overridepartitionqos": "overpartqos",
    "partitionmaximumnode": "partitionmaxnodes",
    "partitionminimumnode": "partitionminnodes",
}
"""slurmrestd's names of flags and those of sacctmgr."""


@dataclass(frozen=True)
class Source:
    """An association or a QOS whose limits apply, and the user's jobs that count against them."""

    kind: Literal["qos", "association"]
    name: str
    limits: Limits
    jobs: Sequence[QueueRow] = ()

    def __str__(self) -> str:
        return f"QOS {self.name!r}" if self.kind == "qos" else f"account {self.name!r}"


@dataclass(frozen=True)
class Payment:
    """What a job in one partition is charged to.

    Attributes
    ----------
    findings
        Why it may not be charged.
    sources
        Whose limits apply, in order.
    flags
        Flags of the job's QOS, see `flags`.
    deny
        Whether Slurm rejects a job that exceeds a limit; otherwise it accepts the job and never starts it.
    """

    findings: tuple[Finding, ...]
    sources: tuple[Source, ...] = ()
    flags: frozenset[str] = frozenset()
    deny: bool = False


def flags(qos: Qos | None) -> frozenset[str]:
    """Return the flags of a QOS in lower case without signs, by sacctmgr's names."""
    words = (re.sub(r"[^a-z]", "", word.lower()) for word in (qos.flags if qos else ()))
    return frozenset(_FLAGS.get(word, word) for word in words)


def pay(request: SlurmRequest, row: PartitionRow | None, partition: str, known: Known) -> Payment:
    """Return what a request is charged to in a partition."""
    result = list(_policy(request, known))
    enforced = known.enforced()
    association = None
    if known.associations is not None:
        association, refusals = _association(request, partition, known.associations, "associations" in enforced)
        result += refusals
    account = request.account or (association.account if association else None)
    name = request.qos or (_default_qos(association) if association else None)
    result += _qos(request, association, known, "qos" in enforced)
    if row is not None:
        result += _let_in(row, account, name)
    job_qos, partition_qos = _named(known.qos, name), _named(known.qos, row.qos if row else "")
    sources: list[Source] = []
    if "limits" in enforced:
        sources = [_of_qos(qos, known) for qos in (partition_qos, job_qos) if qos is not None]
        if partition_qos and job_qos and "overpartqos" in flags(job_qos):
            sources.reverse()
        if association is not None:
            sources.append(_of_association(association, known))
    deny = any("denyonlimit" in flags(qos) for qos in (job_qos, partition_qos))
    return Payment(tuple(result), tuple(sources), flags(job_qos), deny)


def _same(one: str | None, other: str | None) -> bool:
    # Slurm ignores the case of accounts and QOS.
    return (one or "").lower() == (other or "").lower()


def _among(name: str, names: Collection[str]) -> bool:
    return any(_same(name, other) for other in names)


def _named(known_qos: Sequence[Qos] | None, name: str | None) -> Qos | None:
    return next((qos for qos in known_qos or () if name and _same(qos.name, name)), None)


def _policy(request: SlurmRequest, known: Known) -> Iterator[Finding]:
    policy = known.cluster.account
    own = sorted({row.account for row in known.associations or ()})
    yours = f"your accounts: {listed(own)}" if own else "ask the site for an account"
    if request.account is None:
        if policy.required:
            message = "every job must name an account on this cluster"
            yield Finding("refused", "cluster.account.required", None, None, message, f"name one; {yours}")
    elif policy.pattern and not re.fullmatch(policy.pattern, request.account):
        message = f"account {request.account!r} does not match the site's pattern {policy.pattern}"
        yield Finding("refused", "cluster.account.pattern", request.account, policy.pattern, message, f"name another; {yours}")


def _association(
    request: SlurmRequest, partition: str, rows: Sequence[Association], enforced: bool
) -> tuple[Association | None, list[Finding]]:
    """Return the association that applies, or why there is none."""
    account = request.account or next((row.account for row in rows if row.is_default), None)
    own = [row for row in rows if _same(row.account, account)] if account else list(rows)
    here = [row for row in own if row.partition == partition] or [row for row in own if not row.partition]
    if here:
        return (here[0] if account or len(here) == 1 else None), []
    names = {row.account for row in rows if row.partition in ("", partition)}
    hint = f"your accounts there: {listed(names)}" if names else "ask the site for an account"
    if not enforced:
        if not account or not rows:
            return None, []
        return None, [Finding("note", "association.account", account, None, f"account {account!r} is not among yours", hint)]
    if own and account:
        where = {row.partition for row in own}
        message = f"you may charge account {account!r} in {listed(where)}, not in partition {partition!r}"
        return None, [
            Finding("refused", "association.partition", partition, listed(where), message, f"choose {listed(where)}; {hint}")
        ]
    message = f"you may not charge account {account!r}" if account else f"you have no account for partition {partition!r}"
    near = did_you_mean(account, names) if account else ""
    return None, [Finding("refused", "association.account", account, listed(names), message, f"{near} {hint}".strip())]


def _default_qos(association: Association) -> str | None:
    if association.default_qos or len(association.qos) == 1:
        return association.default_qos or association.qos[0]
    return "normal" if _among("normal", association.qos) else None


def _qos(request: SlurmRequest, association: Association | None, known: Known, enforced: bool) -> Iterator[Finding]:
    requested = request.qos
    if requested is None:
        return
    usable = association.qos if association else ()
    hint = f"allowed are: {listed(usable)}" if usable else "leave it out, or ask the site which there are"
    if known.qos and _named(known.qos, requested) is None:
        near = did_you_mean(requested, usable or [qos.name for qos in known.qos])
        yield Finding("refused", "qos.name", requested, None, f"there is no QOS {requested!r}", f"{near} {hint}".strip())
    elif enforced and association is not None and not _among(requested, usable):
        message = f"account {association.account!r} may not use QOS {requested!r}"
        yield Finding("refused", "association.qos", requested, listed(usable), message, hint)


def _let_in(row: PartitionRow, account: str | None, qos: str | None) -> Iterator[Finding]:
    for word, limit, name, allowed, denied in (
        ("account", "Accounts", account, row.allowed_accounts, row.denied_accounts),
        ("QOS", "Qos", qos, row.allowed_qos, row.denied_qos),
    ):
        if name and allowed and not _among(name, allowed):
            message = f"partition {row.name!r} does not allow {word} {name!r}"
            hint = f"it allows {listed(allowed)}"
            yield Finding("refused", f"partition.Allow{limit}", name, listed(allowed), message, hint)
        elif name and not allowed and _among(name, denied):
            message = f"partition {row.name!r} does not allow {word} {name!r}"
            hint = f"choose another {word} or another partition"
            yield Finding("refused", f"partition.Deny{limit}", name, None, message, hint)


def _of_qos(qos: Qos, known: Known) -> Source:
    through = {row.name for row in known.partitions or () if _same(row.qos, qos.name)}
    jobs = [job for job in known.queue or () if _same(job.qos, qos.name) or job.partition in through]
    return Source("qos", qos.name, qos.limits, jobs)


def _of_association(association: Association, known: Known) -> Source:
    jobs = [
        job
        for job in known.queue or ()
        if _same(job.account, association.account) and association.partition in ("", job.partition)
    ]
    return Source("association", association.account, association.limits, jobs)


def together(source: Source) -> Mapping[str, int]:
    """Return what all jobs of an association or QOS may use at once."""
    limits = source.limits
    if source.kind == "qos":
        return limits.group_tres
    # Clients may put an association's GrpTRES into either.
    keys = {*limits.max_tres, *limits.group_tres}
    return {key: min(held[key] for held in (limits.max_tres, limits.group_tres) if key in held) for key in keys}


def per_user(source: Source) -> Mapping[str, int]:
    """Return what the user's jobs may use at once in a QOS."""
    return source.limits.max_tres if source.kind == "qos" else {}

"""What Slurm's reasons for waiting mean: in words, what the user can do, and whether waiting alone helps. Pure.

The reasons are those of Slurm 20.11 to 26.05 (squeue(1), JOB REASON CODES, and ``job_state_reason_string`` in its library). The
many reasons for limits consist of parts, ``QOS`` ``Max`` ``GRES`` ``PerUser``, and are read part by part.
"""

from __future__ import annotations

import re

from lossi.jobs.schedulers.system import PendingReason

_SMALLER = "A smaller request (less time, fewer cores or GPUs) can start earlier in gaps"
_HELD_SITE = "Ask the site's support, who alone can release it"
_ASK_OTHER = "Cancel it and resubmit it with another"

_Meaning = tuple[str, str, bool]
"""Sentence, suggestion, and whether waiting alone helps."""

_REASONS: dict[str, _Meaning] = {
    "priority": ("Other jobs have a higher priority and come first", _SMALLER, True),
    "resources": ("It is next in line and waits until enough nodes, cores, memory or GPUs are free", _SMALLER, True),
    "none": ("The scheduler has not considered it yet", "", True),
    "waitingforscheduling": ("The scheduler has not considered it yet", "", True),
    "scheddefer": ("The scheduler starts jobs in rounds and has not reached it yet", "", True),
    "dependency": ("It waits for another job", "Check the state of that job", True),
    "dependencyneversatisfied": (
        "It waits for a job that can no longer end as required, so it will never start",
        "Cancel it, fix the other job, and resubmit both",
        False,
    ),
    "begintime": ("It may not start before a set time, or just after a restart", "", True),
    "reservation": ("Its reservation has not begun, or is full", "", True),
    "reservationdeleted": ("Its reservation no longer exists", f"{_ASK_OTHER} reservation or none", False),
    "jobhelduser": ("It is held by its user", "Release it: scontrol release with the scheduler's id of the job", False),
    "jobheldadmin": ("It is held by an administrator", _HELD_SITE, False),
    "jobholdmaxrequeue": (
        "It was restarted too often and is held",
        "Check why its attempts ended, then resubmit it",
        False,
    ),
    "joblaunchfailure": (
        "It could not be started on its node and is held",
        "Resubmit it; if it happens again, tell the site's support which node it was",
        False,
    ),
    "jobarraytasklimit": (
        "As many of its tasks run at once as the job itself allows",
        "Submit it with a higher --max-parallel if more may run at once",
        True,
    ),
    "licenses": ("It waits for a licence that others hold", "", True),
    "invalidaccount": ("Its account is not valid", f"{_ASK_OTHER} --account", False),
    "accountnotallowed": ("Its account may not use this partition", f"{_ASK_OTHER} --account or --partition", False),
    "invalidqos": ("Its quality of service is not valid", f"{_ASK_OTHER} --qos", False),
    "qosnotallowed": (
        "Its quality of service may not be used in this partition or by this account",
        f"{_ASK_OTHER} --qos",
        False,
    ),
    "qosusagethreshold": (
        "Recent use is beyond what its quality of service allows",
        "Wait, or choose another --qos",
        True,
    ),
    "badconstraints": (
        "No set of nodes can satisfy its request",
        "Cancel it and resubmit it with a request that a node can satisfy, or in another partition",
        False,
    ),
    "partitiondown": ("Its partition takes jobs but starts none now", "Wait, or submit it to another partition", True),
    "partitioninactive": ("Its partition neither takes nor starts jobs now", "Submit it to another partition", True),
    "partitiontimelimit": ("It requests more time than its partition allows", f"{_ASK_OTHER} --time or --partition", False),
    "partitionnodelimit": (
        "It requests more or fewer nodes than its partition allows",
        "Cancel it and resubmit it with other nodes or another partition",
        False,
    ),
    "partitionconfig": (
        "It requests something that its partition does not allow: time, nodes, memory, account or quality of service",
        "Cancel it and resubmit it with less, or to another partition",
        False,
    ),
    "reqnodenotavail": (
        "A node that it needs is not available: down, drained, or reserved, often for maintenance that begins before the job could end",
        "Request less time so that it ends before the maintenance, or wait until that is over",
        True,
    ),
    "nodedown": ("A node that it needs is down", "Wait, or request other nodes", True),
    "frontenddown": ("The front-end node that it needs is down", "", True),
    "systemfailure": ("The scheduler had an internal error", _HELD_SITE, False),
    "cleaning": ("Its previous attempt is still being cleaned up", "", True),
    "prolog": ("Its node is being prepared", "", True),
    "fedjoblock": ("Another cluster of the federation is considering it", "", True),
    "burstbufferresources": ("It waits for space in the burst buffer", "", True),
    "burstbufferstagein": ("Its data are being copied to the burst buffer", "", True),
    "burstbufferoperation": ("An operation on the burst buffer failed", _HELD_SITE, False),
    "powernotavail": ("There is not enough power for it now", "", True),
    "powerreserved": ("The power it needs is reserved", "", True),
    "maxmemperlimit": ("It requests more memory than is allowed for its cores", f"{_ASK_OTHER} --memory or more --cpus", False),
    "accountingpolicy": (
        "A limit of its account or quality of service holds it back",
        "Request less, or wait until other jobs have ended",
        True,
    ),
    "associationjoblimit": ("As many jobs run or wait as its account allows", "Wait until some have ended", True),
    "associationresourcelimit": ("Its account uses all that it may", "Wait until other jobs have ended", True),
    "associationtimelimit": ("It requests more time than its account allows", f"{_ASK_OTHER} --time", False),
    "qosjoblimit": ("As many jobs run or wait as its quality of service allows", "Wait until some have ended", True),
    "qosresourcelimit": ("Its quality of service uses all that it may", "Wait until other jobs have ended", True),
    "qostimelimit": ("It requests more time than its quality of service allows", f"{_ASK_OTHER} --time or --qos", False),
    "nonzeroexitcode": ("Its previous attempt failed, and it is held", "Read its log, then resubmit it", False),
    "raisedsignal": ("Its previous attempt was ended by a signal, and it is held", "Read its log, then resubmit it", False),
    "inactivelimit": ("It was inactive for too long", "Resubmit it", False),
}

_SENTENCES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"launch failed requeued held|launch failure", re.IGNORECASE), "joblaunchfailure"),
    (re.compile(r"requeued in held state|held state", re.IGNORECASE), "jobheldadmin"),
    (
        re.compile(r"nodes? required for job are down|unavailablenodes|reserved for jobs in higher priority", re.IGNORECASE),
        "reqnodenotavail",
    ),
)
"""Reasons that Slurm writes as a sentence."""

_LIMIT = re.compile(
    r"(?P<whose>AssocGrp|AssocMax|Assoc|QOSGrp|QOSMax|QOSMin|QOS|Max)(?P<what>[A-Za-z]*?)"
    r"(?P<minutes>(?:Run)?Minutes)?(?P<per>Per(?:Job|Node|User|Account))?(?P<end>Limit|NotSatisfied)?"
)
_WHAT = {
    "cpu": "cores",
    "gres": "GPUs or other generic resources",
    "mem": "memory",
    "memory": "memory",
    "node": "nodes",
    "nodes": "nodes",
    "jobs": "running jobs",
    "job": "running jobs",
    "submitjobs": "submitted jobs",
    "submitjob": "submitted jobs",
    "submit": "submitted jobs",
    "wall": "wall time",
    "wallduration": "wall time",
    "energy": "energy",
    "license": "licences",
    "bb": "burst buffer",
    "billing": "billing units",
    "unknown": "a resource",
}


def explain(reason: str) -> PendingReason | None:
    """Return what a reason such as ``Resources`` or ``ReqNodeNotAvail, UnavailableNodes:gpu01`` means; None if it is not Slurm's."""
    for pattern, known in _SENTENCES:
        if pattern.search(reason):
            return _with_nodes(_REASONS[known], reason)
    word = re.split(r"[\s,(:]", reason, maxsplit=1)[0]
    known_reason = _REASONS.get(word.lower())
    if known_reason is not None:
        return _with_nodes(known_reason, reason)
    limit = _LIMIT.fullmatch(word)
    return None if limit is None else PendingReason(*_limit(limit))


def _with_nodes(meaning: _Meaning, text: str) -> PendingReason:
    sentence, suggestion, passes = meaning
    nodes = re.search(r"UnavailableNodes:(\S+)", text)
    return PendingReason(f"{sentence} ({nodes[1][:200]})" if nodes else sentence, suggestion, passes)


def _limit(match: re.Match[str]) -> _Meaning:
    """Return what the reason for a limit means, from its parts."""
    whose, per = match["whose"], match["per"] or ""
    what = _WHAT.get(match["what"].lower(), match["what"] or "use")
    if match["minutes"]:
        what += " × minutes"
    by = (
        "its account"
        if whose.startswith("Assoc")
        else "its quality of service"
        if whose.startswith("QOS")
        else "the account in this partition"
    )
    if whose == "QOSMin":
        return f"It requests less {what} than {by} requires", f"{_ASK_OTHER} --qos, or request more", False
    whole_job = per in ("PerJob", "PerNode") or (
        whose in ("AssocMax", "QOSMax") and match["what"].lower() in ("wall", "wallduration")
    )
    if whole_job:
        each = "on a node" if per == "PerNode" else "in one job"
        return (
            f"It requests more {what} {each} than {by} allows",
            "Cancel it and resubmit it with a smaller request, or with another --qos or --account",
            False,
        )
    if whose.endswith("Grp") and match["minutes"] == "Minutes":
        return (
            f"The budget of {by} for {what} is used up",
            "Apply for a larger budget, or submit it with another --account",
            False,
        )
    if whose.endswith("Grp"):
        return f"All jobs of {by} together use all that they may ({what})", "Wait until some have ended, or request less", True
    who = "all users of the account" if per == "PerAccount" else "you"
    return (
        f"{by[:1].upper()}{by[1:]} lets {who} have no more at once ({what})",
        "Wait until some of the jobs have ended, or request less",
        True,
    )

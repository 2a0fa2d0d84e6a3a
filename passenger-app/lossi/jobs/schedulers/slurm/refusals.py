"""Errors of Lossi for what Slurm's commands print on stderr when they refuse or cannot answer. Pure."""

from __future__ import annotations

import re

from lossi.errors import Forbidden, InvalidInput, LossiError, Unavailable

_PREFIX = re.compile(
    r"^(?:s[a-z]+|sacctmgr): (?:(?:error|fatal|warning|info): )?|^(?:Batch job submission failed|allocation failure): ", re.I
)
_NOISE = re.compile(r'^Try "|^Use .--help|^\s*$')
MOST_WORDS = 600

_DOWN = re.compile(
    r"unable to contact slurm controller|connection refused|connection timed out|socket timed out|timed out on send/recv"
    r"|slurmdbd|zero bytes were transmitted|communication connection failure|communications? (?:shutdown|failure)"
    r"|could not establish a configuration source|unable to process configuration file|failed to fetch config"
    r"|cannot stat file|slurm backup controller|in standby mode|not responding|no route to host|network is unreachable"
    r"|can't be reached now|munge|protocol authentication error|incompatible versions|too many open files"
    r"|temporarily unable|resource temporarily unavailable|plugin initialization failed|could not resolve hostname"
    r"|host key verification failed|permission denied \(publickey|lost connection|unable to connect to database"
    r"|problem talking to the database|please retry later|slurm database",
    re.IGNORECASE,
)
_DISABLED = re.compile(r"accounting storage is disabled|not running a supported accounting_storage plugin", re.IGNORECASE)
_DENIED = re.compile(
    r"access/permission denied|permission denied|access denied|user .* not allowed|not permitted|not authorized"
    r"|user's group not permitted|invalid user id",
    re.IGNORECASE,
)
_GONE = re.compile(
    r"invalid job id|already completing or completed|job/step already|no such (?:job|process)|job has already finished",
    re.IGNORECASE,
)

_HINTS = (
    (r"invalid partition name|invalid partition specified", "choose one of the partitions that the cluster offers"),
    (r"invalid account", "choose an account that may be charged in this partition"),
    (r"invalid qos|invalid qos specification", "leave the quality of service out, or choose one that this account may use"),
    (
        r"requested node configuration is not available",
        "no node of the partition has that much: request fewer cores, less memory, or another GPU type",
    ),
    (r"invalid generic resource|invalid gres", "request a GPU type and a number that the partition has"),
    (r"invalid feature", "leave the constraint out, or name a feature that the partition's nodes have"),
    (r"requested time limit is invalid|invalid --time", "request a time limit within the partition's"),
    (r"qosmaxwall|assocmaxwall", "request less time"),
    (
        r"qosmaxsubmit|assocmaxsubmit|qosgrpsubmit|assocgrpsubmit",
        "wait until some of your jobs have ended, or submit fewer tasks",
    ),
    (r"qos(?:max|min|grp)|assoc(?:max|min|grp)", "request less, or choose another quality of service or account"),
    (r"job violates accounting/qos policy", "request less, or choose another quality of service or account"),
    (r"more processors requested than permitted", "request fewer cores or nodes"),
    (r"memory specification", "request less memory"),
    (r"node count specification invalid|invalid node count", "request a number of nodes that the partition allows"),
    (r"invalid job array", "the sweep has more tasks than the cluster allows in one array: sweep fewer at once"),
    (r"dependency problem|invalid dependency|invalid --dependency", "write the dependency as afterok:<job id>"),
    (r"not available: .*reservation|reservation", "leave the reservation out, or name one that you may use"),
    (
        r"unrecognized option|unrecognised option|ambiguous",
        "this version of Slurm does not know one of the site's options for this cluster",
    ),
    (r"permission denied|access denied", "ask those who run the cluster whether you may use this partition and account"),
)


def words(stderr: str) -> str:
    """Return the message of a command on one line: without the command's name, each sentence once."""
    sentences: list[str] = []
    for line in stderr.splitlines():
        while (cut := _PREFIX.sub("", line.strip(), count=1)) != line:
            line = cut
        if not _NOISE.match(line) and line not in sentences:
            sentences.append(line)
    return "; ".join(sentences)[:MOST_WORDS]


def error_of(command: str, stderr: str, status: int) -> LossiError:
    """Return the error for a refusal."""
    why = words(stderr) or f"{command} ended with status {status} and no message"
    if _DOWN.search(stderr) or not words(stderr) or status < 0:
        return Unavailable("Slurm does not answer", why=why, hint="try again in a minute")
    if _DENIED.search(stderr):
        return Forbidden("Slurm does not allow this", why=why, hint=_hint(stderr))
    return InvalidInput("Slurm refused the request", why=why, hint=_hint(stderr))


def is_disabled(stderr: str) -> bool:
    """Return whether the site has no accounting database."""
    return bool(_DISABLED.search(stderr))


def is_gone(stderr: str) -> bool:
    """Return whether the only messages are that jobs have ended or are not known."""
    lines = [line for line in stderr.splitlines() if line.strip()]
    return bool(lines) and all(_GONE.search(line) for line in lines)


def _hint(stderr: str) -> str:
    return next((hint for pattern, hint in _HINTS if re.search(pattern, stderr, re.IGNORECASE)), "")

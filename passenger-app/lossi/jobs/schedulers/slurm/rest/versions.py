"""The API version of each slurmrestd: asked once, then kept in memory."""

from __future__ import annotations

from lossi.errors import InvalidInput, NotSupported, Unavailable
from lossi.jobs.schedulers.slurm.rest import v0_0_38, v0_0_40, v0_0_41, v0_0_42
from lossi.jobs.schedulers.slurm.rest.api import Api
from lossi.jobs.schedulers.slurm.rest.transport import Transport

VERSIONS: tuple[type[Api], ...] = (v0_0_42.Api, v0_0_41.Api, v0_0_40.Api, v0_0_38.Api)
"""Supported versions, newest first."""
_served: dict[str, str] = {}
"""By the server's address."""


def named(version: str) -> Api:
    """Return a version by its name.

    Raises
    ------
    InvalidInput
        If it is not supported.
    """
    for known in VERSIONS:
        if known.version == version:
            return known()
    raise InvalidInput(f"slurmrestd's API {version} is not supported", hint=f"known: {_names()}")


def remembered(place: str) -> Api | None:
    """Return the version of a server; None: not asked yet."""
    return named(_served[place]) if place in _served else None


def forget(place: str) -> None:
    """Forget a server's version: it is another server now."""
    _served.pop(place, None)


def agreed(transport: Transport) -> Api:
    """Return the newest version that both sides support.

    Raises
    ------
    NotSupported
        If there is none.
    Unavailable, Forbidden
        If slurmrestd cannot be asked.
    """
    known = remembered(transport.place)
    if known is not None:
        return known
    for candidate in (version() for version in VERSIONS):
        answer = transport.ask(candidate.ping())
        if answer.status == 404:
            continue
        if not answer.document:
            raise Unavailable(
                "slurmrestd does not answer", why=f"{answer.status} {answer.text}".strip(), hint="try again in a minute"
            )
        _served[transport.place] = candidate.version
        return candidate
    raise NotSupported("slurmrestd has no supported version of its API", hint=f"supported: {_names()}")


def _names() -> str:
    return ", ".join(known.version for known in VERSIONS)

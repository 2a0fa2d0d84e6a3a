"""Idempotency keys: one request, one job, however often it is sent and whichever process dies in between.

Writes ``.lossi/jobs/.keys/``. The first claim of a key is the file ``<sha256 of user and key>``; a process that takes over from a dead
one creates the next, ``<sha256>.1``, ``<sha256>.2``… Each is created exclusively by a link, so every takeover has one winner.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lossi.errors import InvalidInput
from lossi.files import atomic, permissions
from lossi.jobs.submit import preparer
from lossi.jobs.submit.preparer import Preparer
from lossi.projects import Project

FOLDER = ".keys"
LONGEST = 256


@dataclass(frozen=True)
class Claim:
    """Which process makes, or made, the job of a key."""

    job_id: str
    digest: str
    """Of the request; empty if the file cannot be read."""
    preparer: Preparer | None
    generation: int

    @property
    def is_free(self) -> bool:
        """Whether the claimant is gone, so that another process may take over."""
        return self.preparer is None or self.preparer.is_gone()


def check(key: str) -> None:
    """Refuse an invalid key: it is sent as a header and stored in the job's file.

    Raises
    ------
    InvalidInput
        When it is empty, too long or not printable ASCII.
    """
    if not re.fullmatch(r"[\x20-\x7e]+", key) or len(key) > LONGEST:
        raise InvalidInput(
            "this is not a valid idempotency key", hint=f"use 1 to {LONGEST} printable ASCII characters, such as a random UUID"
        )


def current(project: Project, key: str) -> Claim | None:
    """Return the newest claim of a key, or None."""
    first = _file(project, key)
    newest: Claim | None = None
    generation = 0
    while True:
        try:
            data = json.loads(_of_generation(first, generation).read_bytes())
            newest = Claim(str(data["job_id"]), str(data["digest"]), preparer.parse(data["preparer"]), generation)
        except FileNotFoundError:
            return newest
        except (OSError, ValueError, TypeError, KeyError):  # damaged: it binds nobody
            newest = Claim("", "", None, generation)
        generation += 1


def claim(project: Project, key: str, job_id: str, digest: str, *, after: Claim | None) -> Claim | None:
    """Claim a key, or take it over from ``after``; return the claim, or None if another process was faster.

    Raises
    ------
    Forbidden, Unavailable
        When it cannot be written.
    """
    project.make_home()
    folder = project.jobs / FOLDER
    try:
        permissions.make_folder(folder, like=project.home)
    except OSError as error:
        raise atomic.explained(error, folder) from error
    mine = Claim(job_id, digest, preparer.myself(), 0 if after is None else after.generation + 1)
    data = {"job_id": job_id, "digest": digest, "preparer": dataclasses.asdict(mine.preparer or preparer.myself())}
    created = atomic.create_exclusive(_of_generation(_file(project, key), mine.generation), json.dumps(data).encode() + b"\n")
    return mine if created else None


def release(project: Project, key: str, mine: Claim) -> None:
    """Release a key whose request was refused, so that it may be used again."""
    with suppress(OSError):
        _of_generation(_file(project, key), mine.generation).unlink()


def abandon(project: Project, key: str, mine: Claim) -> None:
    """Leave a prepared job to the next request with the same key."""
    data = {"job_id": mine.job_id, "digest": mine.digest, "preparer": None}
    atomic.write(_of_generation(_file(project, key), mine.generation), json.dumps(data).encode() + b"\n")


def _file(project: Project, key: str) -> Path:
    # Keys of several users in one project do not clash.
    return project.jobs / FOLDER / hashlib.sha256(f"{os.geteuid()}:{key}".encode()).hexdigest()


def _of_generation(first: Path, generation: int) -> Path:
    return first.with_name(f"{first.name}.{generation}") if generation else first

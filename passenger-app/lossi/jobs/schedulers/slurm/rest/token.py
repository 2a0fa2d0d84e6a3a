"""The JSON web token for slurmrestd, from a file of the user's or the site's command. It is kept in memory only.

It is never in an argv, a log or an error's text.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import os
import stat
import threading
import time
from pathlib import Path

from lossi.clusters import Cluster, RestSettings
from lossi.errors import Forbidden, InvalidInput, Unavailable
from lossi.jobs.schedulers.slurm import process
from lossi.jobs.schedulers.slurm.refusals import words

MOST_BYTES = 16384
UNSAID_S = 300.0
"""How long a token without an expiry is used."""
EARLY_S = 30.0
"""A token is renewed this long before it expires, but not before half of its lifetime."""
_PREFIX = "SLURM_JWT="


class Token:
    """The token of one user for one cluster.

    Parameters
    ----------
    cluster, rest
        With `token_file` or `token_command`; neither: there is no token.
    uid
        Owner of the file.
    """

    def __init__(self, cluster: Cluster, rest: RestSettings, uid: int) -> None:
        self._cluster = cluster
        self._settings = rest
        self._uid = uid
        self._held = ""
        self._until = 0.0
        self._lock = threading.Lock()

    @property
    def renewable(self) -> bool:
        """Whether there can be another one after this one was refused."""
        return bool(self._settings.token_command) and self._settings.token_file is None

    def get(self) -> str:
        """Return the token, empty if none is configured.

        Raises
        ------
        Forbidden
            If the file belongs to another user or can be read by others.
        InvalidInput
            If it is not a token.
        Unavailable
            If there is no file, or the command failed.
        """
        if self._settings.token_file is not None:
            held = _plain(self._from_file(self._settings.token_file.expanduser()), str(self._settings.token_file))
            if (expiry(held) or math.inf) <= time.time():
                raise Forbidden(f"the token in {self._settings.token_file} expired", hint=_HOW)
            return held
        if not self._settings.token_command:
            return ""
        with self._lock:
            if time.time() >= self._until:
                self._held = _plain(self._from_command(), Path(self._settings.token_command[0]).name)
                self._until = renewal(self._held, time.time())
            return self._held

    def forget(self) -> None:
        """Make the next `get` ask for another one."""
        with self._lock:
            self._until = 0.0

    def _from_file(self, path: Path) -> str:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            raise Unavailable(f"the token in {path} cannot be read", why=error.strerror or "", hint=_HOW) from None
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_uid != self._uid or status.st_mode & 0o077:
                raise Forbidden(
                    f"the token in {path} is not used",
                    why="it is not your file, or others can read it",
                    hint=f"chmod 600 {path}",
                )
            return os.read(descriptor, MOST_BYTES).decode("ascii", errors="replace")
        finally:
            os.close(descriptor)

    def _from_command(self) -> str:
        argv = list(self._settings.token_command)
        ended = process.run(self._cluster, argv, most_bytes=MOST_BYTES)
        if ended.status:
            raise Unavailable(f"{Path(argv[0]).name} gave no token for slurmrestd", why=words(ended.stderr), hint=_HOW)
        return ended.stdout


_HOW = "ask the site how to get one"


def renewal(token: str, now: float) -> float:
    """Return when to renew a token, in seconds since the epoch."""
    ends = expiry(token)
    return now + UNSAID_S if ends is None else max(ends - EARLY_S, now + (ends - now) / 2)


def expiry(token: str) -> float | None:
    """Return when a token expires, in seconds since the epoch, from its ``exp`` claim (RFC 7519); None: not known."""
    try:
        claims = token.split(".")[1]
        return float(json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["exp"])
    except (binascii.Error, ValueError, KeyError, IndexError, TypeError):
        return None


def _plain(text: str, source: str) -> str:
    """Return the token from a text: the token alone, or a line ``SLURM_JWT=…``."""
    lines = [line.strip().removeprefix(_PREFIX) for line in text.splitlines() if line.strip()]
    token = lines[-1] if lines else ""
    if not token or not all(33 <= ord(character) < 127 for character in token):
        raise InvalidInput(f"{source} gave no token for slurmrestd", hint="it must print SLURM_JWT=… or the token alone")
    return token

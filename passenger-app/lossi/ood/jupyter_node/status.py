"""The files that a session writes, above all ``status.json``; a full disk neither ends a session nor hides why it failed."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from typing import Any

FILE = "status.json"
BYTES = 8192
"""Size of every ``status.json``: on a full disk, the next one is written over it."""
FULL = "the disk of this session's folder, usually your home folder, is full: delete files or ask for more space"


def waiting(title: str) -> str:
    """Return the status of a session that has not started; it is written on submission, while there is space."""
    return _padded({"state": "waiting", "environment": title, "log": []})


def report(path: str, status: dict[str, Any]) -> None:
    """Write ``status`` to the file ``path``; on a full disk over the old one, and not at all if the old one has another size."""
    try:
        replace(path, _padded(status))
    except OSError as error:
        if status["why"] and is_full(error) and FULL not in status["why"]:
            status = {**status, "why": f"{status['why']}; {FULL}"}
        with contextlib.suppress(OSError):
            _write_over(path, _padded(status))


def write(path: str, text: str) -> None:
    """Write a file of mode 0600; does not follow a link."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(text)


def replace(path: str, text: str) -> None:
    """Write such a file, whole or not at all."""
    try:
        write(path + ".part", text)
        os.replace(path + ".part", path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(path + ".part")
        raise


def is_full(error: Exception) -> bool:
    """Return whether a write failed for lack of space."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _write_over(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW)
    try:
        if os.fstat(descriptor).st_size == len(text):
            os.pwrite(descriptor, text.encode("ascii"), 0)
    finally:
        os.close(descriptor)


def _padded(status: dict[str, Any]) -> str:
    """Return a status as text of `BYTES`, without the first lines of its log if it is longer."""
    while len(text := json.dumps(status)) > BYTES and status["log"]:
        status = {**status, "log": status["log"][1:]}
    return text.ljust(BYTES)

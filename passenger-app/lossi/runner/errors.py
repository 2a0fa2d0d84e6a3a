"""Reasons and errors as the user reads them: sentences about failed file access, program output as plain text."""

from __future__ import annotations

import errno
import re

TRACEBACK_LIMIT = 20_000
"""Characters kept of a traceback: its end."""

ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
"""Terminal escapes (ECMA-48): control sequences, operating system commands, two-byte ones."""


class TaskFailure(Exception):
    """The task cannot go on; the message is the reason shown to the user, one sentence."""


def plain(text: str) -> str:
    """Return a text without terminal escapes and with valid Unicode only."""
    return ESCAPES.sub("", text).encode("utf-8", "backslashreplace").decode("utf-8")


def explained(error: OSError, what: str = "") -> str:
    """Return one sentence for the user about a failed file access."""
    path = str(error.filename2 or error.filename or what or "a file of the task")
    if error.errno == errno.ENOSPC:
        return f"the filesystem of {path} is full"
    if error.errno == errno.EDQUOT:
        return f"your quota on the filesystem of {path} is used up"
    if error.errno == errno.EROFS:
        return f"the filesystem of {path} is read-only"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"no permission for {path}"
    if error.errno == errno.ENOENT:
        return f"{path} does not exist (any more)"
    return f"{path}: {error.strerror or error}"

"""Ports for a cluster of the tests' own, also when several test sessions start theirs at once."""

from __future__ import annotations

import fcntl
import socket
from pathlib import Path
from typing import TextIO

_held: list[TextIO] = []


def free_ports() -> int:
    """Return a number above which two hundred ports are free, and this process's; below those of the tests of Slurm's versions."""
    for base in range(20000, 27000, 200):
        if _is_ours(base) and all(is_free(base + offset) for offset in (6, 17, 19, 20, *range(101, 192))):
            return base
    raise RuntimeError("no two hundred free ports between 20000 and 27000")


def _is_ours(base: int) -> bool:
    """Take ports for as long as this process lives, unless another has them."""
    lock = Path(f"/run/lock/lossi-tests-{base}").open("w")  # noqa: SIM115
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        return False
    _held.append(lock)
    return True


def is_free(port: int) -> bool:
    with socket.socket() as candidate:
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            candidate.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True

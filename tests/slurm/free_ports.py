"""Ports for a cluster of the tests' own."""

from __future__ import annotations

import os
import socket


def free_ports() -> int:
    """Return a number above which two hundred ports are free; below those that the kernel gives out."""
    for base in range(20000 + os.getpid() % 50 * 200, 32000, 200):
        if all(is_free(base + offset) for offset in (6, 17, 19, 20, *range(101, 192))):
            return base
    raise RuntimeError("no two hundred free ports between 20000 and 32000")


def is_free(port: int) -> bool:
    with socket.socket() as candidate:
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            candidate.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True

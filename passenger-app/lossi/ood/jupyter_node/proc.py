"""What Linux says about this node's sockets and processes in ``/proc``."""

from __future__ import annotations

import contextlib
import os
import socket

LISTENING = "0A"


def own_address(host: str) -> str:
    """Return the address of the node's name, so that Jupyter listens at no other; all addresses if it is a loopback one."""
    try:
        addresses = [str(info[4][0]) for info in socket.getaddrinfo(host, None, socket.AF_INET, socket.SOCK_STREAM)]
    except OSError:
        addresses = []
    return next((address for address in addresses if not address.startswith("127.")), "0.0.0.0")


def is_free(address: str, port: int) -> bool:
    """Return whether nothing listens at a port of any address, and this process may bind it."""
    if listeners(port):
        return False
    with socket.socket() as candidate:
        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            candidate.bind((address, port))
        except OSError:
            return False
    return True


def listeners(port: int, table: str = "/proc/net") -> list[tuple[int, str]]:
    """Return (user id, inode) of each socket that listens at a port of this machine, at any address."""
    sockets = []
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError), open(os.path.join(table, name), encoding="ascii") as stream:
            for line in stream.readlines()[1:]:
                words = line.split()
                if words[3] == LISTENING and int(words[1].rpartition(":")[2], 16) == port:
                    sockets.append((int(words[7]), words[9]))
    return sockets


def sockets(pid: int) -> set[str]:
    """Return the inodes of a process's open sockets."""
    inodes = set()
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                target = os.readlink(f"/proc/{pid}/fd/{name}")
                if target.startswith("socket:["):
                    inodes.add(target[8:-1])
    return inodes


def usage(root: int) -> tuple[float, int]:
    """Return the CPU seconds and bytes of memory of a process and its descendants."""
    page, tick = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")
    parents: dict[int, int] = {}
    used: dict[int, tuple[int, int]] = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{name}/stat", "rb") as stream:
            words = stream.read().rpartition(b")")[2].split()
            parents[int(name)] = int(words[1])
            used[int(name)] = (sum(map(int, words[11:15])), int(words[21]) * page)
    tree = {root}
    while more := {pid for pid, parent in parents.items() if parent in tree and pid not in tree}:
        tree |= more
    ours = [used[pid] for pid in tree if pid in used]
    return sum(cpu for cpu, _ in ours) / tick, sum(memory for _, memory in ours)

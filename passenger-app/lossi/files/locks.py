"""Whether file locks work across nodes, as SQLite needs when several nodes write to one store.

Reads only ``/proc/self/mountinfo``; locks of an unknown filesystem count as local.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")
ONE_MACHINE = frozenset(["ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "tmpfs", "ramfs", "overlay", "f2fs", "jfs", "bcachefs"])
"""Filesystems that only one machine can mount."""
SHARED = frozenset(["gpfs", "ceph", "fuse.ceph", "fuse.glusterfs", "ocfs2", "gfs2", "pvfs2"])
"""Cluster filesystems whose POSIX locks work across nodes with any mount options."""


def hold_between_nodes(folder: Path, mounts: str | None = None) -> bool:
    """Return whether POSIX locks on files in ``folder`` exclude writers on all machines.

    Parameters
    ----------
    folder
        An existing folder.
    mounts
        Content of a mountinfo file (proc_pid_mountinfo(5)); this process's own if None.
    """
    if mounts is None:
        mounts = MOUNTS.read_text("utf-8", "surrogateescape")
    path = os.path.realpath(folder)
    kind, options = "", ""
    longest = -1
    for line in mounts.splitlines():
        before, separator, after = line.partition(" - ")
        fields, filesystem = before.split(" "), after.split(" ")
        if not separator or len(fields) < 6 or len(filesystem) < 3:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), fields[4]).rstrip("/")
        # The last of several mounts at one point is the visible one.
        if (path == point or path.startswith(point + "/")) and len(point) >= longest:
            longest, kind, options = len(point), filesystem[0], f"{fields[5]},{filesystem[2]}"
    return _hold(kind, options.split(","))


def _hold(kind: str, options: list[str]) -> bool:
    if kind in ONE_MACHINE or kind in SHARED:
        return True
    if kind in ("nfs", "nfs4"):
        return not {"nolock", "local_lock=all", "local_lock=posix"} & set(options)
    if kind == "lustre":
        return "flock" in options
    return False

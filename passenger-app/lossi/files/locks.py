"""Whether locks on a file hold between nodes: what SQLite needs before several of them may write to one store.

Reads only ``/proc/self/mountinfo``; a filesystem that says nothing of its locks counts as one whose locks are local.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")
ONE_MACHINE = frozenset(["ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "tmpfs", "ramfs", "overlay", "f2fs", "jfs", "bcachefs"])
"""Filesystems that no second machine has mounted."""
SHARED = frozenset(["gpfs", "ceph", "fuse.ceph", "fuse.glusterfs", "ocfs2", "gfs2", "pvfs2"])
"""Cluster filesystems whose POSIX locks hold everywhere, however they are mounted."""


def hold_between_nodes(folder: Path, mounts: str | None = None) -> bool:
    """Return whether POSIX locks on files of ``folder`` exclude writers on every machine that can see them.

    Parameters
    ----------
    folder
        An existing folder.
    mounts
        Text in the form of proc_pid_mountinfo(5); this process's own if None.
    """
    if mounts is None:
        mounts = MOUNTS.read_text("utf-8", "surrogateescape")
    path = os.path.realpath(folder)
    kind, options = "", ""
    longest = -1
    for line in mounts.splitlines():
        before, separator, after = line.partition(" - ")
        fields, told = before.split(" "), after.split(" ")
        if not separator or len(fields) < 6 or len(told) < 3:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), fields[4]).rstrip("/")
        # Of several mounts at one point the last one is seen.
        if (path == point or path.startswith(point + "/")) and len(point) >= longest:
            longest, kind, options = len(point), told[0], f"{fields[5]},{told[2]}"
    return _hold(kind, options.split(","))


def _hold(kind: str, options: list[str]) -> bool:
    if kind in ONE_MACHINE or kind in SHARED:
        return True
    if kind in ("nfs", "nfs4"):
        return not {"nolock", "local_lock=all", "local_lock=posix"} & set(options)
    if kind == "lustre":
        return "flock" in options
    return False

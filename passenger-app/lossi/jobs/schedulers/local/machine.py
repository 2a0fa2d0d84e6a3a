"""What this machine has to give: cores, memory, GPUs; and whether jobs may run on it at all.

Reads /proc, the control group and the environment; asks nvidia-smi where there is one. Standard library only, because the
supervisor imports it too.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Mapping
from pathlib import Path

NVIDIA_SMI_TIMEOUT_S = 30


def cores() -> int:
    """Return the cores that this process may use."""
    return len(os.sched_getaffinity(0))


def total_memory_mb() -> int:
    """Return the machine's memory in MiB, or the limit of this process's control group where that is lower."""
    text = Path("/proc/meminfo").read_text("ascii")
    total = int(text.split("MemTotal:")[1].split()[0]) // 1024
    return min([total, *(limit // 2**20 for limit in _group_limits())])


def _group_limits() -> list[int]:
    """Return the memory limits in bytes of this process's control group and those above it (cgroup v2 and v1)."""
    limits = []
    for line in Path("/proc/self/cgroup").read_text("utf-8").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, name = Path("/sys/fs/cgroup"), "memory.max"
        elif "memory" in controllers.split(","):
            root, name = Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"
        else:
            continue
        group = root / path.strip("/")
        for folder in (group, *(parent for parent in group.parents if parent.is_relative_to(root))):
            try:
                limits.append(int((folder / name).read_text("ascii")))
            except (OSError, ValueError):  # no such file here, or "max"
                continue
    return limits


def gpu_ids() -> tuple[str, ...]:
    """Return the GPUs as CUDA_VISIBLE_DEVICES names them; those that the caller's own CUDA_VISIBLE_DEVICES hides are left out."""
    import shutil  # slow to import, and the supervisor never asks

    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    found = _listed_gpus(program)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return found
    return tuple(gpu for gpu in visible.split(",") if gpu in found or gpu.startswith(("GPU-", "MIG-")))


@functools.lru_cache(maxsize=1)
def _listed_gpus(program: str) -> tuple[str, ...]:
    """Return the indices in the lines ``GPU 0: NVIDIA A100 (UUID: …)`` of ``nvidia-smi -L``."""
    import subprocess

    try:
        answer = subprocess.run(
            [program, "-L"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=NVIDIA_SMI_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return tuple(re.findall(r"^GPU (\d+):", answer.stdout.decode("utf-8", "replace"), re.MULTILINE))


def why_not_here(environment: Mapping[str, str]) -> str | None:
    """Return why jobs do not belong on this machine unless the site says otherwise; None where they do."""
    import shutil

    if environment.get("PASSENGER_BASE_URI") or environment.get("ONDEMAND_VERSION"):
        return "this is the web server of Open OnDemand, which all its users share"
    sbatch = shutil.which("sbatch", path=environment.get("PATH"))
    if sbatch is not None:
        return f"this machine submits to Slurm ({sbatch}): it is a login node, which all its users share"
    return None

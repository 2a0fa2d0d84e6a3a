"""The resources of this machine: cores, memory, GPUs; and whether jobs may run on it.

Inside a Slurm allocation they are those of the allocation, and jobs may run: its owner has waited for it.

Reads /proc, the control group and the environment; asks nvidia-smi if there is one. The supervisor imports it too, so imports
are few.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lossi import processes

NVIDIA_SMI_TIMEOUT_S = 30

PASSED_ON = (
    "SLURM_JOB_ID",
    "SLURMD_NODENAME",
    "SLURM_TASK_PID",
    "SLURM_CPUS_ON_NODE",
    "SLURM_MEM_PER_NODE",
    "SLURM_MEM_PER_CPU",
)
"""Variables that describe its allocation to a supervisor; tasks do not get them, because they are not tasks of that Slurm job."""
GPU_VARIABLES = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "SLURM_STEP_GPUS", "SLURM_JOB_GPUS")
"""Variables with the GPUs that a process may use, best first: the last one numbers the whole node's."""


@dataclass(frozen=True)
class Allocation:
    """What a Slurm job has on this node; None: not known."""

    job_id: str
    cpus: int | None = None
    memory_mb: int | None = None
    gpus: tuple[str, ...] = ()
    task_pid: int | None = None
    """The process that Slurm started here: the allocation ends with it."""


def allocation(environment: Mapping[str, str]) -> Allocation | None:
    """Return the Slurm allocation that this process runs in, None if there is none.

    ``SLURM_JOB_ID`` alone is not enough: ``salloc`` sets it in a shell on the login node too. A process started by slurmd has the
    node's name, or is in the job's control group.
    """
    job_id = environment.get("SLURM_JOB_ID", "")
    if not re.fullmatch(r"[0-9]{1,10}", job_id) or not (environment.get("SLURMD_NODENAME") or _in_group_of(job_id)):
        return None
    cpus = _number(environment, "SLURM_CPUS_ON_NODE")
    memory, per_cpu = _number(environment, "SLURM_MEM_PER_NODE"), _number(environment, "SLURM_MEM_PER_CPU")
    if memory is None and per_cpu is not None and cpus is not None:
        memory = per_cpu * cpus
    listed = next((environment[name] for name in GPU_VARIABLES if name in environment), "")
    gpus = tuple(gpu for gpu in listed.split(",") if gpu and gpu != "NoDevFiles")
    return Allocation(job_id, cpus, memory, gpus, _number(environment, "SLURM_TASK_PID"))


def passed_on(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that describe the allocation to a supervisor; none outside of one."""
    if allocation(environment) is None:
        return {}
    return {name: environment[name] for name in PASSED_ON if name in environment}


def cores() -> int:
    """Return the cores that this process may use."""
    here = allocation(os.environ)
    usable = len(os.sched_getaffinity(0))
    return usable if here is None or here.cpus is None else min(usable, here.cpus)


def total_memory_mb() -> int:
    """Return the machine's memory in MiB, or the limit of this process's control group or allocation if that is lower."""
    text = Path("/proc/meminfo").read_text("ascii")
    total = int(text.split("MemTotal:")[1].split()[0]) // 1024
    here = allocation(os.environ)
    allocated = [here.memory_mb] if here is not None and here.memory_mb is not None else []
    return min([total, *allocated, *(limit // 2**20 for limit in _group_limits())])


def _number(environment: Mapping[str, str], name: str) -> int | None:
    """Return a positive number (Slurm writes 0 for "all"), None if there is none."""
    text = environment.get(name, "")
    return int(text) if text.isdecimal() and int(text) > 0 else None


def _in_group_of(job_id: str) -> bool:
    try:
        return f"/job_{job_id}/" in Path("/proc/self/cgroup").read_text("utf-8").replace("\n", "/\n")
    except OSError:
        return False


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
    here = allocation(os.environ)
    if here is not None:
        return here.gpus
    import shutil  # slow to import, and the supervisor never asks

    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    gpus = _listed_gpus(program)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return gpus
    return tuple(gpu for gpu in visible.split(",") if gpu in gpus or gpu.startswith(("GPU-", "MIG-")))


@functools.lru_cache(maxsize=1)
def _listed_gpus(program: str) -> tuple[str, ...]:
    """Return the indices in the lines ``GPU 0: NVIDIA A100 (UUID: …)`` of ``nvidia-smi -L``."""
    try:
        answer = processes.run([program, "-L"], environment=os.environ, limit_s=NVIDIA_SMI_TIMEOUT_S)
    except (OSError, processes.LimitReached):
        return ()
    return tuple(re.findall(r"^GPU (\d+):", answer.stdout.decode("utf-8", "replace"), re.MULTILINE))


def why_not_here(environment: Mapping[str, str]) -> str | None:
    """Return why jobs should not run on this machine unless the site allows it; None if they may."""
    import shutil

    if environment.get("PASSENGER_BASE_URI") or environment.get("ONDEMAND_VERSION"):
        return "this is the web server of Open OnDemand, which all its users share"
    if allocation(environment) is not None:
        return None
    sbatch = shutil.which("sbatch", path=environment.get("PATH"))
    if sbatch is not None:
        return f"this machine submits to Slurm ({sbatch}): it is a login node, which all its users share"
    return None

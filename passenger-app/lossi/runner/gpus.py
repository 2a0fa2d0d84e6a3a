"""GPU use of a task, from nvidia-smi or rocm-smi if one of them is on PATH.

Only the devices that the task may see count: those of ``CUDA_VISIBLE_DEVICES`` for NVIDIA, ``ROCR_VISIBLE_DEVICES`` or
``HIP_VISIBLE_DEVICES`` for AMD, by number or by (the start of) the UUID; without these, those that Slurm names, or none.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from typing import List, Mapping, Optional, Sequence

NVIDIA_QUERY = "--query-gpu=index,uuid,name,driver_version,utilization.gpu,memory.used"
ROCM_OPTIONS = ("--showproductname", "--showuniqueid", "--showdriverversion", "--showuse", "--showmeminfo", "vram", "--json")
TIMEOUT_S = 20.0
SLURM_VARIABLES = ("SLURM_STEP_GPUS", "SLURM_JOB_GPUS")


@dataclass(frozen=True)
class Gpu:
    """One GPU at one moment; None for what the tool does not support."""

    index: str
    uuid: str
    name: str
    driver: str
    percent: Optional[float]
    memory_mb: Optional[float]


class Meter:
    """Runs this node's tool, if any, for the GPUs that the environment shows."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        path = environment.get("PATH")
        self.argv: List[str] = []
        self.visible: Optional[List[str]] = None
        for name, variables in (
            ("nvidia-smi", ("CUDA_VISIBLE_DEVICES",)),
            ("rocm-smi", ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL")),
        ):
            tool = shutil.which(name, path=path)
            known = next((key for key in (*variables, *SLURM_VARIABLES) if key in environment), None)
            # A Slurm job without a GPU may still see the node's, if the site does not hide them.
            default = "" if "SLURM_JOB_ID" in environment else None
            value = default if known is None else environment[known]
            visible = None if value is None else parse_visible(value)
            if tool and visible != []:
                options = [NVIDIA_QUERY, "--format=csv,noheader,nounits"] if name == "nvidia-smi" else list(ROCM_OPTIONS)
                self.argv, self.visible = [tool, *options], visible
                break

    def read(self) -> List[Gpu]:
        """Return the visible GPUs; none if the tool fails."""
        if not self.argv:
            return []
        try:
            done = subprocess.run(
                self.argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=TIMEOUT_S
            )
        except (OSError, subprocess.SubprocessError):
            return []
        output = done.stdout.decode("utf-8", "replace")
        gpus = parse_rocm(output) if ROCM_OPTIONS[0] in self.argv else parse_nvidia(output)
        return select_visible(gpus, self.visible)


def parse_visible(variable: str) -> List[str]:
    """Return the devices that a variable such as ``CUDA_VISIBLE_DEVICES`` names; the first invalid one ends the list."""
    result: List[str] = []
    for part in variable.split(","):
        device = part.strip()
        if not device or device.startswith("-") or device in ("NoDevFiles", "void", "none"):
            break
        result.append(device)
    return result


def select_visible(gpus: Sequence[Gpu], visible: Optional[Sequence[str]]) -> List[Gpu]:
    """Return the visible GPUs; all of them if the variable is not set or names none that the tool shows.

    If cgroups hide the other devices, the tool counts the remaining ones from 0 while the variable may hold UUIDs.
    """
    if visible is None:
        return list(gpus)
    selected = [gpu for gpu in gpus if any(device == gpu.index or (device and gpu.uuid.startswith(device)) for device in visible)]
    return selected or list(gpus)


def parse_nvidia(output: str) -> List[Gpu]:
    """Return the GPUs in the CSV that nvidia-smi prints for `NVIDIA_QUERY` (percent and MiB; ``[N/A]`` if unknown)."""
    gpus = []
    for line in output.splitlines():
        fields = [field.strip() for field in line.split(",")]
        if len(fields) == 6 and fields[0].isdigit():
            gpus.append(Gpu(fields[0], fields[1], fields[2], fields[3], _number(fields[4]), _number(fields[5])))
    return gpus


def parse_rocm(output: str) -> List[Gpu]:
    """Return the GPUs in the JSON of ``rocm-smi --json`` (bytes of VRAM; key names differ between releases)."""
    try:
        data = json.loads(output[output.index("{") :])
    except ValueError:
        return []
    if not isinstance(data, dict):
        return []
    system = data.get("system")
    driver = str(system.get("Driver version", "")) if isinstance(system, dict) else ""
    gpus = []
    for key, card in sorted(data.items()):
        if key.startswith("card") and key[4:].isdigit() and isinstance(card, dict):
            facts = {str(name).lower(): str(value) for name, value in card.items()}
            used = _number(facts.get("vram total used memory (b)", ""))
            gpus.append(
                Gpu(
                    index=key[4:],
                    uuid=facts.get("unique id", ""),
                    name=facts.get("card series") or facts.get("card model", ""),
                    driver=driver,
                    percent=_number(facts.get("gpu use (%)", "")),
                    memory_mb=None if used is None else round(used / 2**20, 1),
                )
            )
    return gpus


def _number(text: str) -> Optional[float]:
    try:
        return float(text)
    except ValueError:
        return None

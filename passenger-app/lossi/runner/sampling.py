"""Samples a task's resource use in a thread: one line in ``use.jsonl`` every two seconds, and a summary.

Reads /proc, runs nvidia-smi or rocm-smi, appends to one file. Never delays the task: nothing waits for the thread.
"""

from __future__ import annotations

import dataclasses
import os
import resource
import threading
import time
from pathlib import Path
from typing import Dict, List, Mapping, Optional, Tuple

from ..contract.records import UseSample, dump
from .gpus import Gpu, Meter
from .processes import Process, TaskProcesses

FIRST_S = 0.5
INTERVAL_S = 2.0
LATER_S = 10.0
"""Interval after ten minutes; a task of two days writes a file of 1.5 MB."""


@dataclasses.dataclass(frozen=True)
class Use:
    """The summary of a task's samples, with the field names of `TaskExit`."""

    cpu_s: float
    max_rss_mb: float
    gpu_utilisation: Optional[float]
    gpu_memory_mb: Optional[float]
    gpu_type: Optional[str]
    gpu_driver: Optional[str]


class Sampler:
    """Samples the processes of a task until `stop`.

    Parameters
    ----------
    file
        ``use.jsonl``; a second attempt appends to it.
    environment
        The payload's environment: it names the visible GPUs.
    """

    def __init__(self, processes: TaskProcesses, file: Path, environment: Mapping[str, str]) -> None:
        self.processes = processes
        self.file = file
        self.meter = Meter(environment)
        self.gpu_type: Optional[str] = None
        self.gpu_driver: Optional[str] = None
        self._began = time.monotonic()
        self._stop = threading.Event()
        self._cpu: Dict[Tuple[int, int], float] = {}
        self._total = (0.0, self._began)
        self._max_rss = 0.0
        self._percents: List[float] = []
        self._max_gpu_memory: Optional[float] = None
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)

    def start(self) -> None:
        """Start sampling."""
        self._thread.start()

    def stop(self) -> Use:
        """Stop, and return the summary so far."""
        self._stop.set()
        own = resource.getrusage(resource.RUSAGE_SELF)
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        reaped = own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime
        # Processes that were killed with their parent, or outlived it, are in the samples only.
        percents = list(self._percents)
        return Use(
            cpu_s=round(max(reaped, self._total[0]), 3),
            max_rss_mb=round(max(self._max_rss, own.ru_maxrss / 1024, children.ru_maxrss / 1024), 1),
            gpu_utilisation=round(sum(percents) / len(percents), 1) if percents else None,
            gpu_memory_mb=self._max_gpu_memory,
            gpu_type=self.gpu_type,
            gpu_driver=self.gpu_driver,
        )

    def _run(self) -> None:
        try:
            gpus = self._read_gpus()
            pause = max(0.0, FIRST_S - (time.monotonic() - self._began))
            while not self._stop.wait(pause):
                began = time.monotonic()
                sample = self.sample(gpus)
                self._append(sample)
                gpus = self._read_gpus()
                interval = INTERVAL_S if sample.t < 600 else LATER_S
                pause = max(0.2, interval - (time.monotonic() - began))
        except OSError:
            return  # a full disk ends sampling, not the task; the summary keeps what there is

    def sample(self, gpus: List[Gpu]) -> UseSample:
        """Take one sample and add it to the summary."""
        members = self.processes.members()
        now = time.monotonic()
        total = self._cpu_total(members)
        before, then = self._total
        self._total = (total, now)
        rss = sum(process.rss_bytes for process in members) / 2**20
        self._max_rss = max(self._max_rss, rss)
        percents = [gpu.percent for gpu in gpus if gpu.percent is not None]
        memory = [gpu.memory_mb for gpu in gpus if gpu.memory_mb is not None]
        self._percents += percents
        if memory:
            self._max_gpu_memory = max(self._max_gpu_memory or 0.0, round(sum(memory), 1))
        return UseSample(
            t=round(now - self._began, 2),
            cpu_percent=round(100 * max(0.0, total - before) / max(now - then, 1e-3), 1),
            rss_mb=round(rss, 1),
            gpu_percent=percents,
            gpu_memory_mb=memory,
        )

    def _cpu_total(self, members: List[Process]) -> float:
        """Return the CPU seconds of all processes so far; ended ones count with their last sample."""
        for process in members:
            self._cpu[(process.pid, process.started)] = process.cpu_s
        return sum(self._cpu.values())

    def _read_gpus(self) -> List[Gpu]:
        gpus = self.meter.read()
        if gpus and self.gpu_type is None:
            self.gpu_type, self.gpu_driver = gpus[0].name or None, gpus[0].driver or None
        return gpus

    def _append(self, sample: UseSample) -> None:
        descriptor = os.open(self.file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
        try:
            os.write(descriptor, dump(sample))
        finally:
            os.close(descriptor)

"""Jobstats' summary of a job, which some sites store in Slurm's AdminComment (https://github.com/PrincetonUniversity/jobstats). Pure.

The text is ``JS1:`` and gzip'ed JSON in base64; ``JS1:Short`` and ``JS1:None`` mean that there is none.
"""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

PREFIX = "JS1:"
MOST_BYTES = 4 * 2**20


@dataclass(frozen=True)
class GpuUse:
    """Of all GPUs of a job."""

    utilisation: float | None
    """Percent, mean."""
    memory_mb: float | None
    """MiB, sum of the peak use of each."""


def gpu_use(admin_comment: str) -> GpuUse | None:
    """Return the use of the GPUs in a comment, None if there is none that can be read."""
    if not admin_comment.startswith(PREFIX):
        return None
    try:
        unpacker = zlib.decompressobj(wbits=31)  # gzip
        data = unpacker.decompress(base64.b64decode(admin_comment[len(PREFIX) :], validate=True), MOST_BYTES)
        nodes = json.loads(data)["nodes"].values()
        shares = list(_figures(nodes, "gpu_utilization"))
        used = list(_figures(nodes, "gpu_used_memory"))
    except (binascii.Error, zlib.error, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    if not shares and not used:
        return None
    return GpuUse(sum(shares) / len(shares) if shares else None, sum(used) / 2**20 if used else None)


def _figures(nodes: Iterable[dict[str, Any]], name: str) -> Iterable[float]:
    for node in nodes:
        yield from (float(value) for value in node.get(name, {}).values())

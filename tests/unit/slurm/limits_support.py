"""A small cluster, and the limits that a request meets on it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from lossi.clusters import Cluster
from lossi.jobs.schedulers.slurm.preflight import limits
from lossi.jobs.schedulers.slurm.preflight.limits import Finding, Known
from lossi.jobs.schedulers.slurm.records import Association, Configuration, Limits, NodeGroup, PartitionRow, Qos, QueueRow
from lossi.jobs.schedulers.slurm.request import SlurmRequest

DAY = 86400
CPU, GPU, LONG = (
    PartitionRow("cpu", default=True, max_time_s=DAY, default_time_s=600, total_nodes=4),
    PartitionRow("gpu", max_time_s=DAY, max_nodes=2, total_nodes=3),
    PartitionRow("long", max_time_s=7 * DAY, max_cpus_per_node=8, max_memory_per_node_mb=32000, total_nodes=4),
)
NODES = (
    NodeGroup("cpu", 4, 16, 64000, features=("avx",), state="idle"),
    NodeGroup("long", 4, 16, 64000, features=("avx",), state="idle"),
    NodeGroup("gpu", 2, 32, 128000, {"a100": 4}, ("nvlink",), "mixed"),
    NodeGroup("gpu", 1, 16, 256000, {"h200": 8}, (), "idle"),
)
ACCOUNTS = (Association("c", "proj1", qos=("normal", "high"), is_default=True), Association("c", "proj2", "gpu", qos=("normal",)))
KNOWN = Known(
    Cluster(name="c"),
    Configuration("22.05.8", max_array_size=1001, max_job_count=10000, enforced=("associations", "limits", "qos")),
    (CPU, GPU, LONG),
    NODES,
    ACCOUNTS,
    (Qos("normal"), Qos("high"), Qos("closed")),
    (),
)


def request(**asked: Any) -> SlurmRequest:
    return SlurmRequest("lossi-x", Path("/p/script.sh"), Path("/p"), Path("/p/log"), **{"time_limit_min": 60, **asked})


def findings(known: Known = KNOWN, tasks: int = 1, **asked: Any) -> list[Finding]:
    return limits.findings(request(**asked), tasks, known)


def refused(known: Known = KNOWN, tasks: int = 1, **asked: Any) -> list[str]:
    return [finding.limit for finding in findings(known, tasks, **asked) if finding.level == "refused"]


def with_limits(
    association: Limits | None = None, qos: Limits | None = None, *flags: str, queue: tuple[QueueRow, ...] = ()
) -> Known:
    rows = (dataclasses.replace(ACCOUNTS[0], limits=association or Limits(), default_qos="normal"),)
    return dataclasses.replace(KNOWN, associations=rows, qos=(Qos("normal", qos or Limits(), flags), Qos("high")), queue=queue)


def mine(state: str = "RUNNING", **more: Any) -> QueueRow:
    return QueueRow(
        **{"job_id": 7, "name": "x", "state": state, "account": "proj1", "qos": "normal", "partition": "gpu", "nodes": 1, **more}
    )

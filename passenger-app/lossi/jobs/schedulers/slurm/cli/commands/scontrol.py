"""scontrol: the configuration and the partitions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from lossi.clusters import Cluster
from lossi.jobs.schedulers.slurm import values
from lossi.jobs.schedulers.slurm.cli.commands import Unreadable, chosen
from lossi.jobs.schedulers.slurm.records import Configuration, PartitionRow

_PAIR = re.compile(r"(?:^| )([A-Za-z]+)=")
_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True)
class ShowConfig:
    """The configuration."""

    name: ClassVar[str] = "scontrol"

    def argv(self, cluster: Cluster) -> list[str]:
        """Return what to start."""
        return [cluster.command(self.name), *chosen(cluster), "show", "config"]

    def parse(self, text: str) -> Configuration:
        """Return the configuration.

        Raises
        ------
        Unreadable
            If it is truncated or something else.
        """
        pairs = {}
        for line in text.splitlines():
            name, equals, value = line.partition("=")
            if equals:
                pairs[name.strip()] = value.strip()
        # It is sorted by name; the last line tells whether slurmctld is up.
        if "SLURM_VERSION" not in pairs or "Slurmctld" not in text.rpartition("SLURM_VERSION")[2] or not text.endswith("\n"):
            raise Unreadable("scontrol show config", "it is truncated")
        return _configuration(pairs)


@dataclass(frozen=True)
class ShowPartitions:
    """All partitions that the user may see."""

    name: ClassVar[str] = "scontrol"

    def argv(self, cluster: Cluster) -> list[str]:
        """Return what to start."""
        return [cluster.command(self.name), *chosen(cluster), "--oneliner", "show", "partition"]

    def parse(self, text: str) -> list[PartitionRow]:
        """Return the partitions.

        Raises
        ------
        Unreadable
            If the output is truncated or not as expected.
        """
        lines = [line for line in text.split("\n") if line.strip()]
        if lines and not text.endswith("\n"):
            raise Unreadable("scontrol show partition", "it is truncated")
        if lines and lines[0].startswith("No partitions in the system"):
            return []
        try:
            return [_partition(_pairs(line)) for line in lines]
        except (KeyError, ValueError) as error:
            raise Unreadable("scontrol show partition", f"{error}") from error


def _pairs(line: str) -> dict[str, str]:
    """Return the values by name of ``Name=value Name=value …``, where a value may contain spaces and equals signs."""
    names = list(_PAIR.finditer(line))
    ends = [pair.start() for pair in names[1:]] + [len(line)]
    return {pair[1]: line[pair.end() : end].strip() for pair, end in zip(names, ends, strict=True)}


def _configuration(pairs: Mapping[str, str]) -> Configuration:
    def number(name: str) -> int | None:
        match = _NUMBER.match(pairs.get(name, ""))
        return int(match[0]) if match else None

    storage = pairs.get("AccountingStorageType", "")
    enforced = pairs.get("AccountingStorageEnforce", "")
    preemption = values.text_of(pairs.get("PreemptType", "")).removeprefix("preempt/")
    mode = pairs.get("PreemptMode", "")
    scheduling = (word.partition("=") for word in pairs.get("SchedulerParameters", "").split(",") if word and word != "(null)")
    return Configuration(
        version=pairs["SLURM_VERSION"],
        cluster=values.text_of(pairs.get("ClusterName", "")),
        max_array_size=number("MaxArraySize"),
        max_job_count=number("MaxJobCount"),
        min_job_age_s=number("MinJobAge"),
        accounting=storage.endswith("slurmdbd"),
        enforced=() if values.is_nothing(enforced) else tuple(enforced.split(",")),
        preemption="" if preemption in {"", "none"} else f"{preemption}: {mode.lower()}",
        requeue=number("JobRequeue") != 0,
        gpus="gpu" in pairs.get("GresTypes", "").split(","),
        parameters={name: value for name, _, value in scheduling},
    )


def _partition(pairs: Mapping[str, str]) -> PartitionRow:
    def names(field: str) -> tuple[str, ...]:
        text = pairs.get(field, "")
        return () if text == "ALL" or values.is_nothing(text) else tuple(text.split(","))

    def memory(field: str) -> int | None:
        megabytes = values.memory_mb(pairs.get(field, ""))
        return None if megabytes is None else int(megabytes)

    return PartitionRow(
        name=pairs["PartitionName"],
        state=pairs["State"],
        default=pairs.get("Default") == "YES",
        max_time_s=values.whole_seconds(pairs["MaxTime"], lone=60),
        default_time_s=values.whole_seconds(pairs.get("DefaultTime", ""), lone=60),
        min_nodes=values.number(pairs.get("MinNodes", "")),
        max_nodes=values.number(pairs.get("MaxNodes", "")),
        total_nodes=values.number(pairs.get("TotalNodes", "")),
        max_cpus_per_node=values.number(pairs.get("MaxCPUsPerNode", "")),
        max_memory_per_node_mb=memory("MaxMemPerNode"),
        max_memory_per_cpu_mb=memory("MaxMemPerCPU"),
        default_memory_per_cpu_mb=memory("DefMemPerCPU"),
        default_memory_per_node_mb=memory("DefMemPerNode"),
        allowed_accounts=names("AllowAccounts"),
        denied_accounts=names("DenyAccounts"),
        allowed_qos=names("AllowQos"),
        denied_qos=names("DenyQos"),
        allowed_groups=names("AllowGroups"),
        qos=values.text_of(pairs.get("QoS", "")),
    )

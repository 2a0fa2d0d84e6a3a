"""sacctmgr: the accounts of a user, and the limits of the qualities of service."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from lossi.clusters import Cluster
from lossi.jobs.schedulers.slurm import values
from lossi.jobs.schedulers.slurm.cli.commands import Unreadable, bar_lines
from lossi.jobs.schedulers.slurm.records import Association, Limits, Qos

GROUP = ("GrpJobs", "GrpSubmit", "GrpTRES", "GrpTRESMins")
PER_JOB = ("MaxTRES", "MaxTRESPerNode", "MaxTRESMins", "MaxWall")
ASSOCIATION_FIELDS = (
    "User",
    "DefaultAccount",
    "Cluster",
    "Account",
    "Partition",
    "DefaultQOS",
    "QOS",
    *GROUP,
    "MaxJobs",
    "MaxSubmit",
    *PER_JOB,
)
QOS_FIELDS = ("Name", "Flags", *GROUP, "MaxJobsPU", "MaxSubmitPU", *PER_JOB, "MaxTRESPU", "MinTRES")


@dataclass(frozen=True)
class ShowAssociations:
    """A user's associations, with their own limits (Max… as inherited)."""

    user: str
    name: ClassVar[str] = "sacctmgr"

    def argv(self, cluster: Cluster) -> list[str]:
        """Return what to start."""
        where = [f"name={self.user}", *([f"cluster={cluster.slurm_name}"] if cluster.slurm_name else [])]
        form = f"format={','.join(ASSOCIATION_FIELDS)}"
        return [cluster.command(self.name), "--noheader", "--parsable", "show", "user", "where", *where, "withassoc", form]

    def parse(self, text: str) -> list[Association]:
        """Return the associations.

        Raises
        ------
        Unreadable
            If the output is truncated or not as expected.
        """
        records_ = (
            dict(zip(ASSOCIATION_FIELDS, record, strict=True)) for record in bar_lines(self.name, text, len(ASSOCIATION_FIELDS))
        )
        try:
            return [
                Association(
                    cluster=fields["Cluster"],
                    account=fields["Account"],
                    partition=fields["Partition"],
                    qos=tuple(filter(None, fields["QOS"].split(","))),
                    default_qos=fields["DefaultQOS"],
                    is_default=fields["Account"] == fields["DefaultAccount"],
                    limits=_limits(fields, jobs="MaxJobs", submit="MaxSubmit"),
                )
                for fields in records_
                if fields["User"] == self.user and fields["Account"]
            ]
        except ValueError as error:
            raise Unreadable(self.name, str(error)) from error


@dataclass(frozen=True)
class ShowQos:
    """All qualities of service."""

    name: ClassVar[str] = "sacctmgr"

    def argv(self, cluster: Cluster) -> list[str]:
        """Return what to start."""
        return [cluster.command(self.name), "--noheader", "--parsable", "show", "qos", f"format={','.join(QOS_FIELDS)}"]

    def parse(self, text: str) -> list[Qos]:
        """Return the qualities of service.

        Raises
        ------
        Unreadable
            If the output is truncated or not as expected.
        """
        records_ = (dict(zip(QOS_FIELDS, record, strict=True)) for record in bar_lines(self.name, text, len(QOS_FIELDS)))
        try:
            return [
                Qos(
                    name=fields["Name"],
                    limits=_limits(fields, jobs="MaxJobsPU", submit="MaxSubmitPU"),
                    flags=tuple(filter(None, fields["Flags"].split(","))),
                )
                for fields in records_
            ]
        except ValueError as error:
            raise Unreadable(self.name, str(error)) from error


def _limits(fields: Mapping[str, str], *, jobs: str, submit: str) -> Limits:
    return Limits(
        max_wall_s=values.whole_seconds(fields["MaxWall"], lone=60),
        max_jobs=values.number(fields[jobs]),
        max_submit=values.number(fields[submit]),
        max_tres_per_job=values.limits(fields["MaxTRES"]),
        max_tres_per_node=values.limits(fields["MaxTRESPerNode"]),
        min_tres_per_job=values.limits(fields.get("MinTRES", "")),
        max_tres=values.limits(fields.get("MaxTRESPU", "")),
        group_tres=values.limits(fields["GrpTRES"]),
        group_jobs=values.number(fields["GrpJobs"]),
        group_submit=values.number(fields["GrpSubmit"]),
        group_tres_minutes=values.limits(fields["GrpTRESMins"]),
        max_tres_minutes_per_job=values.limits(fields["MaxTRESMins"]),
    )

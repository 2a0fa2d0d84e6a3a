"""sacct: the accounting of jobs, with their steps combined as `seff` does."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from lossi.clusters import Cluster
from lossi.jobs.schedulers.slurm import states, values
from lossi.jobs.schedulers.slurm.cli.commands import UNIT, Unreadable, chosen, records, words_within
from lossi.jobs.schedulers.slurm.records import AccountingRow

# AdminComment and JobName are free text. All are in Slurm 20.11 and in 26.05; Restarts is not: attempts are counted.
FIELDS = (
    "JobID",
    "User",
    "State",
    "ExitCode",
    "Partition",
    "Account",
    "QOS",
    "Cluster",
    "AllocNodes",
    "NodeList",
    "AllocCPUS",
    "AllocTRES",
    "ReqTRES",
    "Submit",
    "Eligible",
    "Start",
    "End",
    "ElapsedRaw",
    "TimelimitRaw",
    "TotalCPU",
    "MaxRSS",
    "NTasks",
    "ConsumedEnergyRaw",
    "Reason",
    "AdminComment",
    "JobName",
)
SHORT_FIELDS = ("JobID", "User", "State", "NodeList", "JobName")
MOST_TASKS = 500
"""Above this number of tasks the whole job is asked for: rows cost less than arguments."""
_JOB = re.compile(r"(?P<job>\d+)(?:\+\d+)?(?:_(?:(?P<task>\d+)|\[(?P<tasks>[^\]]*)\]))?(?P<step>\..+)?\Z")
_BY = re.compile(r"CANCELLED by (\d+)\Z")


@dataclass(frozen=True)
class Sacct:
    """All attempts of some jobs or array tasks (``123``, ``123_4``) of one user."""

    user: str
    jobs: tuple[str, ...]
    since: str | None = None
    name: ClassVar[str] = "sacct"

    def argv(self, cluster: Cluster) -> list[str]:
        """Return what to start."""
        return [*_start(cluster, self.user, FIELDS), "--noconvert", *_since(self.since), f"--jobs={','.join(self.jobs)}"]

    def parse(self, text: str) -> list[AccountingRow]:
        """Return one row per attempt, in sacct's order.

        Raises
        ------
        Unreadable
            If the output is truncated or not as expected.
        """
        try:
            return _fold([dict(zip(FIELDS, record, strict=True)) for record in records(self.name, text, len(FIELDS))], self.user)
        except ValueError as error:
            raise Unreadable(self.name, str(error)) from error


@dataclass(frozen=True)
class SacctNames:
    """Ids and names of a user's jobs since a time; arrays by the id of the array."""

    user: str
    since: str
    name: ClassVar[str] = "sacct"

    def argv(self, cluster: Cluster) -> list[str]:
        """Return what to start."""
        return [*_start(cluster, self.user, SHORT_FIELDS), "--allocations", *_since(self.since)]

    def parse(self, text: str) -> list[tuple[int, str]]:
        """Return (id, name).

        Raises
        ------
        Unreadable
            If the output is truncated or not as expected.
        """
        names = {}
        for job, user, state, nodes, name in records(self.name, text, len(SHORT_FIELDS)):
            parts = _JOB.match(job)
            if parts is None:
                raise Unreadable(self.name, f"not a job: {job!r}")
            if user == self.user and not states.is_rejected(state, values.text_of(nodes)):
                names[int(parts["job"])] = name
        return list(names.items())


def words_of(jobs: Mapping[int, Sequence[int] | None]) -> list[list[str]]:
    """Return the ids to ask for, in as many questions as the size of argv requires."""
    words = []
    for job, tasks in jobs.items():
        whole = tasks is None or len(tasks) > MOST_TASKS
        words += [str(job)] if whole else [f"{job}_{task}" for task in tasks or ()]
    return words_within(words)


def _start(cluster: Cluster, user: str, fields: Sequence[str]) -> list[str]:
    form = ["--noheader", "--parsable", f"--delimiter={UNIT}", "--duplicates"]
    return [cluster.command("sacct"), *chosen(cluster), *form, f"--user={user}", f"--format={','.join(fields)}"]


def _since(since: str | None) -> list[str]:
    """Return the option; sacct takes whole seconds without a zone, and TZ is UTC."""
    return [f"--starttime={since[:19]}"] if since else []


def _fold(records: Sequence[Mapping[str, str]], user: str) -> list[AccountingRow]:
    """Return the rows of jobs, each with the use of its steps; other users' are left out."""
    rows: list[AccountingRow] = []
    attempts: dict[tuple[int, int | None], int] = {}
    own = False
    for fields in records:
        parts = _JOB.match(fields["JobID"])
        if parts is None:
            raise ValueError(f"not a job: {fields['JobID']!r}")
        if parts["step"]:
            if own:
                rows[-1] = _with_step(rows[-1], fields)
            continue
        own = fields["User"] == user
        if not own:
            continue
        key = (int(parts["job"]), int(parts["task"]) if parts["task"] else None)
        rows.append(_row(fields, key, parts["tasks"], attempts.get(key, 0)))
        attempts[key] = attempts.get(key, 0) + 1
    return rows


def _with_step(row: AccountingRow, fields: Mapping[str, str]) -> AccountingRow:
    """Return a row with a step added as seff does: the maximum of MaxRSS × NTasks over the steps."""
    used = values.memory_mb(fields["MaxRSS"], unit="")
    if used is None:
        return row
    used *= values.number(fields["NTasks"]) or 1
    return replace(row, max_rss_mb=max(used, row.max_rss_mb or 0.0))


def _row(fields: Mapping[str, str], key: tuple[int, int | None], tasks: str | None, earlier: int) -> AccountingRow:
    allocated = values.tres(fields["AllocTRES"])
    resources = allocated or values.tres(fields["ReqTRES"])
    code, signal = values.exit_code(fields["ExitCode"])
    gpus, gpu_type = values.gpus(resources)
    by = _BY.match(fields["State"])
    return AccountingRow(
        job_id=key[0],
        name=fields["JobName"],
        state=states.word_of(fields["State"]),
        task=key[1],
        tasks=() if tasks is None else values.ranges(tasks),
        cancelled_by=int(by[1]) if by else None,
        reason=values.text_of(fields["Reason"]),
        exit_code=code,
        signal=signal,
        partition=fields["Partition"],
        account=fields["Account"],
        qos=fields["QOS"],
        cluster=fields["Cluster"],
        nodes=values.number(fields["AllocNodes"]) or None,
        node_list=values.text_of(fields["NodeList"]),
        # For a job that never started, sacct shows the request.
        cpus=values.number(fields["AllocCPUS"]) if allocated else None,
        memory_mb=allocated.get("mem"),
        gpus=gpus,
        gpu_type=gpu_type,
        submitted=values.utc_time(fields["Submit"]),
        eligible=values.utc_time(fields["Eligible"]),
        started=values.utc_time(fields["Start"]),
        ended=values.utc_time(fields["End"]),
        elapsed_s=values.seconds(fields["ElapsedRaw"]),
        time_limit_s=values.whole_seconds(fields["TimelimitRaw"], lone=60),
        cpu_s=values.seconds(fields["TotalCPU"]),
        billing=allocated.get("billing"),
        energy_j=_energy(fields["ConsumedEnergyRaw"], allocated),
        admin_comment=fields["AdminComment"],
        restarts=earlier,
    )


def _energy(raw: str, allocated: Mapping[str, float]) -> float | None:
    """Return joules; None for 0: the site does not measure energy."""
    used = values.memory_mb(raw, unit="")
    return (used * 2**20 if used else allocated.get("energy")) or None

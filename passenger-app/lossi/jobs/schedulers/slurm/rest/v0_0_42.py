"""v0.0.42: served by Slurm 24.11 and later, including 26.05. Against v0.0.41, jobs in the database have `restart_cnt`, a quality
of service has its group limits on submitted jobs and TRES minutes, and `exclusive` and `oversubscribe` became `shared`.

Measured on 24.11.5:

- A value of the wrong type or an unknown member is a warning, and the answer is 200 without a job: only `job_id` shows that a
  job was accepted.
- `step` may be repeated, but takes no list and no range of array tasks.
- Jobs are cancelled by one ``DELETE /jobs/`` with a list, in which array tasks may be written as ranges; jobs that have ended are in
  `status` with Slurm's number, and the answer is 200.
- Collections end with a slash.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lossi.jobs.schedulers.slurm import values
from lossi.jobs.schedulers.slurm.records import PartitionRow
from lossi.jobs.schedulers.slurm.request import SlurmRequest
from lossi.jobs.schedulers.slurm.rest import api, rows
from lossi.jobs.schedulers.slurm.rest.fields import at, minutes, names, number, positive, text, words
from lossi.jobs.schedulers.slurm.rest.transport import Call


class Api(api.Api):
    """API v0.0.42."""

    version = "v0.0.42"
    slash = "/"
    filters_users = True
    accounts_exit_codes = True

    def submission(self, request: SlurmRequest, script: str) -> Call:
        """Return the call that submits a job."""
        gpus = api.gpu_words(request)
        job: dict[str, Any] = {
            **api.properties(request),
            "minimum_nodes": request.nodes,
            "maximum_nodes": request.nodes,
            "environment": [f"{name}={value}" for name, value in api.environment(request).items()],
            "open_mode": ["APPEND"],
        }
        if request.memory_mb is not None:
            job["memory_per_node"] = _number(request.memory_mb)
        if request.time_limit_min is not None:
            job["time_limit"] = _number(request.time_limit_min)
        if gpus:
            job["tres_per_node"] = f"gres/gpu:{gpus}"
        if request.dependency:
            job["flags"] = ["KILL_INVALID_DEPENDENCY"]
        if request.signal_s is not None:
            job |= {
                "kill_warning_flags": ["BATCH_JOB"],
                "kill_warning_signal": "USR1",
                "kill_warning_delay": _number(request.signal_s),
            }
        return Call(self.slurm("job/submit"), method="POST", body={"script": script, "job": job})

    def cancellations(self, jobs: Mapping[int, Sequence[int] | None]) -> list[Call]:
        """Return one call for all."""
        ids = [
            str(job_id) if tasks is None else f"{job_id}_[{values.ranges_text(tasks)}]"
            for job_id, tasks in jobs.items()
            if tasks is None or tasks
        ]
        return [Call(self.slurm("jobs/"), method="DELETE", body={"jobs": ids})] if ids else []

    def named(self, user: str, since: int, name: str, cluster: str) -> Call:
        """Return the call for the user's jobs since a time."""
        query = {"users": user, "start_time": f"uts{since}", "skip_steps": "true"}
        return Call(self.database("jobs/"), {**query, "cluster": cluster} if cluster else query)

    def attempts(self, selectors: Sequence[str], cluster: str) -> Call:
        """Return the call for all attempts of jobs and array tasks."""
        query: dict[str, str | Sequence[str]] = {"step": list(selectors), "show_duplicates": "true"}
        return Call(self.database("jobs/"), {**query, "cluster": cluster} if cluster else query)

    def associations_of(self, user: str) -> Call:
        """Return the call for what a user may charge."""
        return Call(self.database("associations/"), {"user": user})

    def ended(self, value: Any) -> rows.Ended:
        """Return exit code and signal."""
        signal = positive(at(value, "signal", "id"))
        return (None, signal) if signal else (number(at(value, "return_code")), None)

    def accounted(self, job: Mapping[str, Any]) -> rows.Ended:
        """Return exit code and signal."""
        return self.ended(job.get("exit_code"))

    def partition(self, item: Mapping[str, Any]) -> PartitionRow:
        """Return a partition; whether it is the default one is not known."""
        most, default = item.get("maximums"), item.get("defaults")
        return PartitionRow(
            name=text(item.get("name")),
            state=next(iter(words(at(item, "partition", "state"))), ""),
            max_time_s=minutes(at(most, "time")),
            default_time_s=minutes(at(default, "time")),
            min_nodes=positive(at(item, "minimums", "nodes")),
            max_nodes=positive(at(most, "nodes")),
            total_nodes=number(at(item, "nodes", "total")),
            max_cpus_per_node=positive(at(most, "cpus_per_node")),
            max_memory_per_node_mb=positive(at(most, "partition_memory_per_node")),
            max_memory_per_cpu_mb=positive(at(most, "partition_memory_per_cpu")),
            default_memory_per_cpu_mb=positive(at(default, "partition_memory_per_cpu")),
            default_memory_per_node_mb=positive(at(default, "partition_memory_per_node")),
            allowed_accounts=names(at(item, "accounts", "allowed")),
            denied_accounts=names(at(item, "accounts", "deny")),
            allowed_qos=names(at(item, "qos", "allowed")),
            denied_qos=names(at(item, "qos", "deny")),
            allowed_groups=names(at(item, "groups", "allowed")),
            qos=text(at(item, "qos", "assigned")),
        )

    def refusals(self, document: Mapping[str, Any]) -> list[tuple[int, str]]:
        """Return the errors in an answer, including those of single jobs."""
        refused = [
            (number(at(item, "error", "code")) or 0, text(at(item, "error", "message")))
            for item in rows.listed(document, "status") or ()
            if number(at(item, "error", "code"))
        ]
        return refused + rows.errors(document)


def _number(value: int) -> dict[str, Any]:
    return {"set": True, "infinite": False, "number": value}

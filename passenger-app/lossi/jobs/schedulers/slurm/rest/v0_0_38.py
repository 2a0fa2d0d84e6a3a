"""v0.0.38: the newest of Slurm 22.05. Against v0.0.40, values are plain (``5`` or null instead of ``{"set": true, "number": 5}``),
a state is one word, `environment` an object, GPUs are requested as `gres`, nodes as ``[least, most]``; collections end without a slash.

Measured on 22.05.8:

- A signal can only be requested for the steps of a job: ``B:`` is refused ("Invalid SIGNAL specification"). The script gets
  Slurm's own SIGTERM at the time limit, `KillWait` before SIGKILL.
- The queue's exit code is a wait status (10752 for 42). The database's is SUCCESS for every job that was not killed by a signal: only
  signals, and 0 of a job that is COMPLETED, are right. For a failed job it is taken from the queue as long as that
  remembers the job (MinJobAge), and not known afterwards.
- `step` takes a list with commas, percent-encoded, but no range; steps and all attempts are always given.
- Array tasks are cancelled as ``DELETE /job/71_[0,5-7]``, percent-encoded; if all of them have ended, the answer is an error.
- Nothing can be selected by user: the answers have everybody's jobs and associations, as far as the site shows them.
- "Nothing found with query" is an error. Errors have status 500, whatever the cause.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping, Sequence
from typing import Any

from lossi.jobs.schedulers.slurm import values
from lossi.jobs.schedulers.slurm.records import PartitionRow
from lossi.jobs.schedulers.slurm.request import SlurmRequest
from lossi.jobs.schedulers.slurm.rest import api, rows
from lossi.jobs.schedulers.slurm.rest.fields import at, minutes, names, number, positive, state, text, words
from lossi.jobs.schedulers.slurm.rest.transport import Call

MOST_PATH = 1500
"""Maximum characters of array tasks in one URL."""
NOTHING_FOUND = 9003


class Api(api.Api):
    """API v0.0.38."""

    version = "v0.0.38"
    slash = ""
    filters_users = False
    accounts_exit_codes = False

    def submission(self, request: SlurmRequest, script: str) -> Call:
        """Return the call that submits a job."""
        gpus = api.gpu_words(request)
        properties: dict[str, Any] = {
            **api.properties(request),
            "nodes": [request.nodes, request.nodes],
            "environment": api.environment(request),
            "open_mode": "append",
            "memory_per_node": request.memory_mb,
            "time_limit": request.time_limit_min,
            "gres": f"gpu:{gpus}" if gpus and request.gpu_option == "gres" else None,
            "gpus_per_node": gpus if gpus and request.gpu_option != "gres" else None,
            "kill_on_invalid_dependency": True if request.dependency else None,
        }
        job = {name: value for name, value in properties.items() if value is not None}
        return Call(self.slurm("job/submit"), method="POST", body={"script": script, "job": job})

    def cancellations(self, jobs: Mapping[int, Sequence[int] | None]) -> list[Call]:
        """Return a call for each job, or several if its tasks do not fit into one URL."""
        calls = []
        for job_id, tasks in jobs.items():
            for chosen in [""] if tasks is None else [f"_[{part}]" for part in _pieces(values.ranges_text(tasks))]:
                calls.append(Call(self.slurm(f"job/{job_id}{urllib.parse.quote(chosen, safe='_-')}"), method="DELETE"))
        return calls

    def named(self, user: str, since: int, name: str, cluster: str) -> Call:
        """Return the call for everybody's jobs of that name since a time."""
        query = {"start_time": f"uts{since}", "skip_steps": "true", "job_name": name, "cluster": cluster}
        return Call(self.database("jobs"), {member: value for member, value in query.items() if value})

    def attempts(self, selectors: Sequence[str], cluster: str) -> Call:
        """Return the call for all attempts of jobs and array tasks."""
        query = {"step": ",".join(selectors)}
        return Call(self.database("jobs"), {**query, "cluster": cluster} if cluster else query)

    def ended(self, value: Any) -> rows.Ended:
        """Return exit code and signal of a wait status."""
        status = number(value)
        return (None, None) if status is None else values.exit_code(str(status))

    def accounted(self, job: Mapping[str, Any]) -> rows.Ended:
        """Return the signal, or 0 if the job is completed; other exit codes in the database's answer are wrong."""
        signal = positive(at(job, "exit_code", "signal", "signal_id"))
        if signal:
            return None, signal
        return (0 if state(at(job, "state", "current")) == "COMPLETED" else None), None

    def partition(self, item: Mapping[str, Any]) -> PartitionRow:
        """Return a partition."""
        return PartitionRow(
            name=text(item.get("name")),
            state=text(item.get("state")),
            default="default" in words(item.get("flags")),
            max_time_s=minutes(item.get("max_time_limit")),
            default_time_s=minutes(item.get("default_time_limit")),
            min_nodes=positive(item.get("min nodes per job")),
            max_nodes=positive(item.get("maximum_nodes_per_job")),
            total_nodes=number(item.get("total_nodes")),
            max_cpus_per_node=positive(item.get("maximum_cpus_per_node")),
            max_memory_per_node_mb=positive(item.get("maximum_memory_per_node")),
            max_memory_per_cpu_mb=positive(item.get("maximum_memory_per_cpu")),
            default_memory_per_cpu_mb=positive(item.get("default_memory_per_cpu")),
            default_memory_per_node_mb=positive(item.get("default_memory_per_node")),
            allowed_accounts=names(item.get("allowed_accounts")),
            denied_accounts=names(item.get("denied_accounts")),
            allowed_qos=names(item.get("allowed_qos")),
            denied_qos=names(item.get("denied_qos")),
            allowed_groups=names(item.get("allowed_groups")),
            qos=text(item.get("qos")),
        )

    def refusals(self, document: Mapping[str, Any]) -> list[tuple[int, str]]:
        """Return the errors in an answer; "nothing found" is not one."""
        return [error for error in rows.errors(document) if error[0] != NOTHING_FOUND]


def _pieces(listed: str) -> list[str]:
    """Split a list of spans into several that are short enough for a URL."""
    pieces: list[str] = []
    for span in listed.split(",") if listed else ():
        if pieces and len(pieces[-1]) + len(span) < MOST_PATH:
            pieces[-1] += f",{span}"
        else:
            pieces.append(span)
    return pieces

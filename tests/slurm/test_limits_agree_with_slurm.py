"""What is refused before submitting is what Slurm itself refuses, or would take and never start."""

from __future__ import annotations

import json
from typing import Any

import pytest
from real_cluster import OwnCluster

pytestmark = pytest.mark.root

ASK = """
import dataclasses, json, os, sys
from pathlib import Path
from lossi.clusters import Cluster
from lossi.errors import LossiError
from lossi.jobs.schedulers.slurm.preflight import limits
from lossi.jobs.schedulers.slurm.cli import CliClient
from lossi.jobs.schedulers.slurm.request import SlurmRequest

given = json.loads(sys.argv[1])
cluster = Cluster.model_validate(given["cluster"])
client = CliClient(cluster)
known = limits.Known(
    cluster, client.configuration(), client.partitions(), client.nodes(), client.associations(), client.qos(), client.queue()
)
folder = Path.cwd()
script = folder / "script.sh"
script.write_text("#!/bin/sh\\n")
script.chmod(0o755)
answers = []
for asked in given["requests"]:
    array = asked.pop("array", None)
    request = SlurmRequest("lossi-limits", script, folder, folder / "log", array=array and range(array), **asked)
    found = limits.findings(request, array or 1, known)
    try:
        client.expected_start(request)
        slurm = ""
    except LossiError as error:
        slurm = str(error)
    answers.append([slurm, [dataclasses.asdict(finding) for finding in found]])
print(json.dumps(answers))
"""

CASES: list[dict[str, Any]] = [
    {},
    {"partition": "nowhere"},
    {"partition": "Small"},
    {"partition": "small,gpu"},
    {"partition": "small,nowhere"},
    {"time_limit_min": 1440},
    {"time_limit_min": 1441},
    {"nodes": 2, "cpus": 16, "memory_mb": 64000},
    {"nodes": 3},
    {"cpus": 17},
    {"memory_mb": 64001},
    {"gpus": 1},
    {"partition": "gpu", "gpus": 4, "gpu_type": "a100", "nodes": 2, "cpus": 16},
    {"partition": "gpu", "gpus": 5},
    {"partition": "gpu", "gpus": 1, "gpu_type": "h100"},
    {"partition": "gpu", "gpus": 1, "gpu_option": "gpus-per-node", "gpu_type": "a100"},
    {"partition": "gpu"},
    {"partition": "tiny", "time_limit_min": 5},
    {"partition": "tiny", "time_limit_min": 6},
    {"partition": "tiny", "time_limit_min": 1, "nodes": 2},
    {"partition": "tiny", "time_limit_min": 1, "account": "proj2"},
    {"partition": "tiny", "time_limit_min": 1, "qos": "few"},
    {"partition": "tiny", "time_limit_min": 1, "qos": "short"},
    {"account": "proj2"},
    {"account": "PROJ2"},
    {"account": "nobody"},
    {"qos": "NORMAL"},
    {"qos": "closed"},
    {"qos": "none"},
    {"qos": "few", "array": 2},
    {"qos": "few", "array": 3},
    {"constraint": "cpu"},
    {"constraint": "gpu"},
    {"constraint": "nothing"},
    {"constraint": "cpu|gpu"},
    {"dependency": "afterok:x"},
    {"dependency": "singleton"},
]


def answers(slurm: OwnCluster, requests: list[dict[str, Any]]) -> list[tuple[str, list[dict[str, Any]]]]:
    """Return for each request what Slurm refuses it for, and what was found beforehand."""
    user = slurm.users[0]
    question = {"cluster": json.loads(slurm.model().model_dump_json()), "requests": [dict(request) for request in requests]}
    argv = [slurm.installation.python, "-c", ASK, json.dumps(question)]
    return [(refusal, findings) for refusal, findings in json.loads(slurm.run_as(user, argv, cwd=slurm.project(user)).stdout)]


def test_the_same_is_refused_as_by_slurm(own_slurm: OwnCluster) -> None:
    differing = []
    for case, (refusal, findings) in zip(CASES, answers(own_slurm, CASES), strict=True):
        mine = [finding for finding in findings if finding["level"] == "refused"]
        if bool(mine) != bool(refusal):
            differing.append((case, refusal, mine))
        assert all(finding["limit"] and finding["hint"] for finding in mine)
    assert not differing


@pytest.mark.parametrize(
    ("asked", "limit", "options", "reason"),
    [
        ({"qos": "short", "time_limit_min": 11}, "qos.MaxWall", ["--qos=short", "--time=11"], "QOSMaxWallDurationPerJobLimit"),
        ({"qos": "short", "cpus": 9}, "qos.MaxTRESPerUser.cpu", ["--qos=short", "--cpus-per-task=9"], "QOSMaxCpuPerUserLimit"),
    ],
)
def test_what_slurm_takes_and_never_starts_is_refused(
    own_slurm: OwnCluster, asked: dict[str, Any], limit: str, options: list[str], reason: str
) -> None:
    [(refusal, findings)] = answers(own_slurm, [asked])
    assert (
        refusal == ""
        and findings[0]["level"] == "refused"
        and findings[0]["limit"] == limit
        and "never start" in findings[0]["hint"]
    )
    user = own_slurm.users[0]
    job = own_slurm.sbatch(user, "true", *options)
    try:
        own_slurm.wait(lambda: own_slurm.job(user, job).get("Reason") == reason)
    finally:
        own_slurm.run_as(user, ["scancel", str(job)])


def test_what_waits_for_ones_own_jobs_is_told(own_slurm: OwnCluster) -> None:
    user = own_slurm.users[0]
    case = {"qos": "short", "cpus": 4, "time_limit_min": 5}
    options = ["--qos=short", "--cpus-per-task=6", "--time=5"]
    first = own_slurm.sbatch(user, "sleep 60", *options)
    second = None
    try:
        own_slurm.wait(lambda: own_slurm.job(user, first).get("JobState") == "RUNNING")
        [(refusal, findings)] = answers(own_slurm, [case])
        assert refusal == "" and [(finding["level"], finding["limit"]) for finding in findings] == [
            ("waits", "qos.MaxTRESPerUser.cpu")
        ]
        assert "you use 6 and request 4" in findings[0]["message"]
        second = own_slurm.sbatch(user, "true", *options)
        own_slurm.wait(lambda: own_slurm.job(user, second).get("Reason") == "QOSMaxCpuPerUserLimit")
    finally:
        own_slurm.run_as(user, ["scancel", *(str(job) for job in (first, second) if job)])


def test_limit_on_submitted_jobs_counts_what_is_in_the_queue(own_slurm: OwnCluster) -> None:
    user = own_slurm.users[0]
    job = own_slurm.sbatch(user, "sleep 60", "--qos=few")
    try:
        single, two = answers(own_slurm, [{"qos": "few"}, {"qos": "few", "array": 2}])
        assert single[0] == "" and all(finding["level"] != "refused" for finding in single[1])
        assert two[0] and two[1][0]["limit"] == "qos.MaxSubmitJobsPerUser" and two[1][0]["allowed"] == 1
    finally:
        own_slurm.run_as(user, ["scancel", str(job)])

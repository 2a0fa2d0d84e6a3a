"""P9: the job list and the first page of tasks beside an array of 10,000 tasks, of which 1,000 run.

The server's time, without a network, against the one `squeue` that the answer needs, as that command with the same words and
environment takes; in turns; medians. Nothing is remembered from one request to the next: each asks Slurm. The tasks run for
real, but the site's set-up line has them sleep in the place of their runner.
"""

from __future__ import annotations

from on_slurm import Bench, Row, cluster, measured

TASKS = 10_000
RUNNING = 1_000
AT_ONCE = 100
"""So many more are let start at a time: each is a process of Slurm's and one of ours on this one machine."""
ROUNDS = 15
GOAL_S = 0.1
SLEEP = """printf '{"task":%d,"phase":"running","cell":3,"cells":7,"started":"%s"}' "$lossi_task" "$lossi_started" >"$lossi_folder/progress.json"; exec sleep 7200"""
SETTINGS = {
    "SLURMCI_CORES": "130",
    "SLURMCI_NCPU": "8",
    "SLURMCI_NGPU": "1",
    "SLURMCI_GATHER": "0",
    "SLURMCI_MESSAGETIMEOUT": "60",
    "SLURMCI_BATCHSTARTTIMEOUT": "300",
}
TURNS = """
import json, statistics, subprocess, sys, time
from pathlib import Path
from lossi import clusters, projects
from lossi.api import security
from lossi.app import create_app
from lossi.jobs.schedulers.slurm import process
from lossi.jobs.schedulers.slurm.cli.commands.squeue import Squeue
rounds, running, job = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
client = create_app(security.AuthMode(secret="s" * 32), project=projects.find(Path.cwd())).test_client()
cluster = clusters.load().get("ci")
argv, environment = Squeue().argv(cluster), process.environment(cluster, "squeue")
def squeue():
    subprocess.run(argv, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=True, cwd="/")
def answer(path):
    response = client.get(path)
    assert response.status_code == 200, response.text
    return response.json
sides = {
    "squeue": squeue,
    "jobs": lambda: answer("/api/v1/jobs"),
    "tasks": lambda: answer(f"/api/v1/jobs/{job}/tasks?limit=100"),
}
for side in sides.values():  # the first of each does not count
    side()
first = answer("/api/v1/jobs")["items"][0]
assert first["counts"] == {"running": running, "queued": first["tasks"] - running}, first["counts"]
assert len(answer(f"/api/v1/jobs/{job}/tasks?limit=100")["items"]) == 100
took = {name: [] for name in sides}
for turn in range(rounds):
    for name in sides if turn % 2 else reversed(sides):
        begun = time.perf_counter()
        sides[name]()
        took[name].append(time.perf_counter() - begun)
print(json.dumps({name: statistics.median(times) for name, times in took.items()}))
"""


def measure() -> list[Row]:
    with cluster(**SETTINGS) as slurm:
        bench = Bench.of(slurm, slurm.users[0], poll_interval_s=0, setup=[SLEEP])
        points = bench.project / "points.csv"
        points.write_text("\n".join(["x", *map(str, range(TASKS))]))
        options = ["--cluster", "ci", "--detach", "--max-parallel", str(AT_ONCE), "--memory", "100M", "--time", "2:00:00"]
        job = bench.lossi("sweep", "one.ipynb", "--csv", "points.csv", *options)
        folders = bench.project / ".lossi" / "jobs" / job["id"] / "tasks"
        for number in range(AT_ONCE, RUNNING + 1, AT_ONCE):
            slurm.scontrol("update", f"jobid={job['scheduler_id']}", f"arraytaskthrottle={number}")
            slurm.wait(lambda: len(list(folders.glob("*/progress.json"))) >= number, f"{number} tasks run")  # noqa: B023
        took = bench.python(TURNS, str(ROUNDS), str(RUNNING), job["id"])
        bench.cancel_all()
    what = f"beside an array of {TASKS:,} tasks, {RUNNING:,} of them running"
    return [
        {
            "id": "P9",
            "what": f"GET {path}, {what}: server time | its one squeue",
            "ours": f"{took[name] * 1000:.0f} ms",
            "peer": f"{took['squeue'] * 1000:.0f} ms",
            "ratio": f"{(took[name] - took['squeue']) * 1000:+.0f} ms",
            "goal": f"≤ +{GOAL_S * 1000:.0f} ms",
            "met": took[name] - took["squeue"] <= GOAL_S,
        }
        for name, path in (("jobs", "/jobs"), ("tasks", "/jobs/{id}/tasks?limit=100"))
    ]


if __name__ == "__main__":
    measured(__doc__, measure)

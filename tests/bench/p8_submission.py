"""P8: a sweep of 1,000 tasks handed over, against the same bare `sbatch --array` and against a loop of 1,000 sbatch.

Both sides are whole processes as a user starts them, on warm stores and caches, in turns; medians. The jobs are held, so that
nothing runs meanwhile, and cancelled and removed after each.
"""

from __future__ import annotations

import json
from pathlib import Path

from on_slurm import Bench, Row, cluster, measured, requests

TASKS = 1000
ROUNDS = 7
GOAL_S = 0.7
MOST_FILES = 12
SUBMISSION = "REQUEST_SUBMIT_BATCH_JOB"
TURNS = """
import json, pathlib, shutil, statistics, subprocess, sys, time
rounds, *sides = map(json.loads, sys.argv[1:])
took = [[] for _ in sides]
for turn in range(rounds + 1):  # the first of each warms stores and caches and does not count
    numbers = list(range(len(sides)))
    for number in numbers if turn % 2 else reversed(numbers):
        begun = time.perf_counter()
        subprocess.run(sides[number], check=True, stdout=subprocess.DEVNULL)
        took[number].append(time.perf_counter() - begun)
        subprocess.run(["scancel", "--me"], check=True)
        while subprocess.run(["squeue", "-h", "--me"], check=True, capture_output=True).stdout:
            time.sleep(0.1)
        for folder in pathlib.Path(".lossi/jobs").iterdir():
            shutil.rmtree(folder)
print(json.dumps([statistics.median(times[1:]) for times in took]))
"""
LOOP = """
import json, subprocess, sys, time
number, argv = map(json.loads, sys.argv[1:])
begun = time.perf_counter()
for _ in range(number):
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
print(time.perf_counter() - begun)
"""


def measure() -> list[Row]:
    with cluster() as slurm:
        bench = Bench.of(slurm, slurm.users[0], options=["--hold"])
        points = bench.project / "points.csv"
        points.write_text("\n".join(["x", *map(str, range(TASKS))]))
        sweep = ["sweep", "one.ipynb", "--csv", "points.csv", "--cluster", "ci", "--detach"]
        bench.lossi(*sweep)  # the store and the experiment are there from now on
        bench.cancel_all()
        files, submissions = _files(bench.project), _submissions(bench)
        job = bench.lossi(*sweep)
        files, submissions = _files(bench.project) - files, _submissions(bench) - submissions
        bench.cancel_all()
        script = slurm.projects / "bare.sh"
        script.write_text(_without_array((bench.project / ".lossi" / "jobs" / job["id"] / "script.sh").read_text()))
        bare = ["sbatch", "--hold", "--parsable"]
        mine = [str(slurm.installation.command), *sweep]
        ours, peer = bench.python(TURNS, *map(json.dumps, (ROUNDS, mine, [*bare, f"--array=0-{TASKS - 1}", str(script)])))
        loop = bench.python(LOOP, *map(json.dumps, (TASKS, [*bare, str(script)])))
        bench.cancel_all()
    what = f"{TASKS:,}-task sweep on Slurm"
    return [
        {
            "id": "P8",
            "what": f"{what}, whole process: lossi sweep --detach | sbatch --array",
            "ours": f"{ours:.2f} s",
            "peer": f"{peer:.3f} s",
            "ratio": f"{ours - peer:+.2f} s",
            "goal": f"≤ +{GOAL_S} s",
            "met": ours - peer <= GOAL_S,
        },
        {
            "id": "P8",
            "what": f"{what}: lossi sweep --detach | loop of {TASKS:,} sbatch",
            "ours": f"{ours:.2f} s",
            "peer": f"{loop:.1f} s",
            "ratio": f"{loop / ours:.1f} ×",
            "goal": "≥ 10 ×",
            "met": loop >= 10 * ours,
        },
        {
            "id": "P8",
            "what": f"{what}: submissions that slurmctld counts, files created in the project",
            "ours": f"{submissions}, {len(files)}",
            "peer": None,
            "ratio": None,
            "goal": f"1, ≤ {MOST_FILES}",
            "met": submissions == 1 and len(files) <= MOST_FILES,
        },
    ]


def _without_array(script: str) -> str:
    """Return the job's script as somebody who loops would have it."""
    return "".join(line for line in script.splitlines(keepends=True) if not line.startswith("#SBATCH --array"))


def _files(project: Path) -> set[Path]:
    return {path for path in project.rglob("*") if not path.is_dir()}


def _submissions(bench: Bench) -> int:
    return requests(bench.cluster, "message type").get(SUBMISSION, 0)


if __name__ == "__main__":
    measured(__doc__, measure)

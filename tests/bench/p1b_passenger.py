"""P1b: the first `GET /runs?limit=100` after the portal's process was ended, against a bare Flask app under the same Passenger.

Both sides are whole first requests as a browser sends them, in turns: Passenger starts the interpreter, loads the app and answers;
100 runs with ten parameters and metrics each are in the project's store. Medians.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

from on_slurm import Bench, Row, cluster, measured

sys.path[:0] = [str(Path(__file__).parents[1] / name) for name in ("", "ood")]
import httpx  # noqa: E402
from passenger import App, Passenger, app_folder, passenger, why_not  # noqa: E402

ROUNDS = 11
GOAL = 3.0
BARE = """
import flask

application = flask.Flask("bare")


@application.get("/runs")
def runs():
    return flask.jsonify({"columns": {}})
"""
RUNS = """
import mlflow
mlflow.set_tracking_uri("sqlite:///" + ".lossi/mlflow.db")
mlflow.set_experiment("cold")
for number in range(100):
    with mlflow.start_run():
        mlflow.log_params({f"p{i}": number * i for i in range(10)})
        mlflow.log_metrics({f"m{i}": number / (i + 1) for i in range(10)})
print("{}")
"""


def measure() -> list[Row]:
    if reason := why_not():
        print(f"  not measured here: {reason}")
        return []
    with cluster() as slurm:
        bench = Bench.of(slurm, slurm.users[0])
        bench.python(RUNS)
        bench.lossi("runs", "list")
        folder = slurm.root / "portal"
        lossi = App("/pun/sys/lossi", app_folder(folder / "lossi", slurm.installation.python))
        bare = App("/pun/sys/bare", app_folder(folder / "bare", slurm.installation.python))
        (bare.root / "passenger_wsgi.py").write_text(BARE)
        environment = {**slurm.environment_of(bench.user), **bench.environment}
        with passenger([lossi, bare], bench.user, environment) as server:
            sides = [(lossi, f"/api/v1/runs?limit=100&project={bench.project}", []), (bare, "/runs?limit=100", [])]
            for turn in range(ROUNDS + 1):  # the first of each warms the disk and does not count
                for app, path, times in sides if turn % 2 else reversed(sides):
                    times.append(_cold(server, app, path))
    mine, theirs = (statistics.median(times[1:]) for _, _, times in sides)
    return [
        {
            "id": "P1b",
            "what": "cold first GET /runs?limit=100 under Passenger: portal | bare Flask",
            "ours": f"{mine * 1000:.0f} ms",
            "peer": f"{theirs * 1000:.0f} ms",
            "ratio": f"{mine / theirs:.2f} ×",
            "goal": f"≤ {GOAL} ×",
            "met": mine <= GOAL * theirs,
        }
    ]


def _cold(server: Passenger, app: App, path: str) -> float:
    """Return the seconds of a first request."""
    server.end(app)
    begun = time.perf_counter()
    answer = httpx.get(f"{server.url}{app.uri}{path}", trust_env=False, timeout=60)
    took = time.perf_counter() - begun
    assert answer.status_code == 200 and (app.uri.endswith("bare") or len(answer.json()["columns"]["run_id"]) == 100), answer.text
    return took


if __name__ == "__main__":
    measured(__doc__, measure)

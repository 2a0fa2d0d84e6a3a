"""A project whose runs were logged by the real MLflow, with what a hostile colleague could have put into its store."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

LOGGING = """
import json, os, sys
from pathlib import Path
import mlflow
from mlflow import MlflowClient
uri, artifacts, secret = sys.argv[1:]
client = MlflowClient(uri)
found = {}
own = client.create_experiment("own", artifact_location=f"{artifacts}/7")
run = client.create_run(own, run_name="a run")
client.log_metric(run.info.run_id, "loss", 0.5)
folder = Path(f"{artifacts}/7/{run.info.run_id}/artifacts")
folder.mkdir(parents=True)
(folder / "plot.txt").write_text("a plot")
(folder / "way-out").symlink_to(secret)
client.set_terminated(run.info.run_id)
found |= {"experiment": own, "run": run.info.run_id}
hostile = client.create_experiment("hostile", artifact_location=str(Path(secret).parent))
bad = client.create_run(hostile)
(Path(secret).parent / bad.info.run_id / "artifacts").mkdir(parents=True)
(Path(secret).parent / bad.info.run_id / "artifacts" / "stolen.txt").write_text("private")
found["hostile"] = bad.info.run_id
elsewhere = client.create_experiment("elsewhere", artifact_location="http://127.0.0.1:9/none")
found["elsewhere"] = client.create_run(elsewhere).info.run_id
print(json.dumps(found))
"""
"""Arguments: the store's URI, the artifact root, and a file outside of it."""

PREPARING = """
import os, sys
from pathlib import Path
from lossi import projects
from lossi.projects import stores
project = projects.init(Path(sys.argv[1]))
stores.ensure(project, stores.template([sys.executable], "tests", dict(PATH=os.defpath, HOME=os.environ["HOME"])))
print(stores.tracking_uri(project))
"""

OLD_RUNS = """
import os, sys
os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
import mlflow
mlflow.set_tracking_uri(sys.argv[1])
mlflow.set_experiment("old times")
with mlflow.start_run() as run:
    mlflow.log_metric("loss", 0.25)
    mlflow.log_text("from before", "note.txt")
print(run.info.run_id)
"""
"""Argument: the folder ``mlruns`` to be made."""


def python(code: str, *arguments: object, **environment: str) -> str:
    """Run some Python in a process of its own, because MLflow leaves much behind, and return what it printed last."""
    argv = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(argv, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


def logged(project: Path, secret: Path, environment: dict[str, str]) -> dict[str, Any]:
    """Make ``project`` a project with runs, and return their ids."""
    uri = python(PREPARING, project, **environment)
    found: dict[str, Any] = json.loads(python(LOGGING, uri, project / ".lossi" / "artifacts", secret, **environment))
    return found

"""A project with runs of the real MLflow, and with what a hostile colleague could put into its store."""

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
ids = {}
own = client.create_experiment("own", artifact_location=f"{artifacts}/7")
run = client.create_run(own, run_name="a run")
client.log_metric(run.info.run_id, "loss", 0.5)
folder = Path(f"{artifacts}/7/{run.info.run_id}/artifacts")
folder.mkdir(parents=True)
(folder / "plot.txt").write_text("a plot")
(folder / "way-out").symlink_to(secret)
client.set_terminated(run.info.run_id)
ids |= {"experiment": own, "run": run.info.run_id}
hostile = client.create_experiment("hostile", artifact_location=str(Path(secret).parent))
bad = client.create_run(hostile)
(Path(secret).parent / bad.info.run_id / "artifacts").mkdir(parents=True)
(Path(secret).parent / bad.info.run_id / "artifacts" / "stolen.txt").write_text("private")
ids["hostile"] = bad.info.run_id
elsewhere = client.create_experiment("elsewhere", artifact_location="http://127.0.0.1:9/none")
ids["elsewhere"] = client.create_run(elsewhere).info.run_id
print(json.dumps(ids))
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
"""Argument: the folder ``mlruns`` to create."""


HOSTILE_PAGE = """<!doctype html><title>hostile</title><script>
(async () => {
  const found = {}, write = {method: "POST", body: JSON.stringify(TAG)};
  const attempts = {
    cookie: () => document.cookie,
    parent: () => parent.document.title,
    storage: () => localStorage.length,
    read: async () => (await fetch("BASE/version")).status,
    write: async () => (await fetch("BASE/ajax-api/2.0/mlflow/runs/set-tag", write)).status,
    blind: async () => (await fetch("BASE/ajax-api/2.0/mlflow/runs/set-tag", {...write, mode: "no-cors"})).type,
  };
  for (const [name, attempt] of Object.entries(attempts)) {
    try { found[name] = await attempt() } catch (error) { found[name] = error.name }
  }
  parent.postMessage({hostile: found}, "*");
})();
</script>"""
"""Tries what a page of the origin could do, and reports the results."""

LISTEN = "window.addEventListener('message', (one) => { if (one.data.hostile) window.told = one.data.hostile })"


def hostile_artifacts(project: Path, ids: dict[str, Any], base: str) -> tuple[Path, Path]:
    """Put files with scripts among the artifacts of the run, and return them; ``base`` is MLflow's address without a last slash."""
    folder = project / ".lossi" / "artifacts" / "7" / ids["run"] / "artifacts"
    tag = {"run_id": ids["run"], "key": "stolen", "value": "yes"}
    page, picture = folder / "hostile.html", folder / "hostile.svg"
    page.write_text(HOSTILE_PAGE.replace("BASE", base).replace("TAG", json.dumps(tag)))
    script = f"fetch('{base}/ajax-api/2.0/mlflow/runs/set-tag', {{method: 'POST', body: '{json.dumps(tag)}'}})"
    picture.write_text(f'<svg xmlns="http://www.w3.org/2000/svg"><script>{script}</script></svg>')
    return page, picture


def python(code: str, *arguments: object, **environment: str) -> str:
    """Run Python code in another process, because MLflow leaves state behind; return the last printed line."""
    argv = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(argv, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().splitlines()[-1]


def logged(project: Path, secret: Path, environment: dict[str, str]) -> dict[str, Any]:
    """Log runs into ``project`` and return their ids."""
    uri = python(PREPARING, project, **environment)
    ids: dict[str, Any] = json.loads(python(LOGGING, uri, project / ".lossi" / "artifacts", secret, **environment))
    return ids

"""The payload's environment variables. Pure.

Documented for users: ``LOSSI_JOB_ID``, ``LOSSI_TASK``, ``LOSSI_PROJECT`` (the live project), ``LOSSI_OUTPUT_DIR`` (kept with
the job), ``LOSSI_PARAMETERS`` (JSON file), ``LOSSI_ENVIRONMENT``, ``LOSSI_ATTEMPT`` (from 1), ``LOSSI_NODES`` and
``LOSSI_NODE_RANK`` (from 0). MLflow's own variables make an unmodified client log to the task's store.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Dict, List, Mapping, Optional

from ..contract.records import PreparedJob
from .paths import TaskPaths

DROPPED = ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_TRACKING_URI")
"""Variables of the submitting shell that would send the task's runs elsewhere."""

QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    # The copy on the node is not a git repository; the commit is among the join tags.
    "GIT_PYTHON_REFRESH": "quiet",
    # Output appears in the log at once.
    "PYTHONUNBUFFERED": "1",
}

CONTEXT_LIMIT = 64 * 1024
"""Bytes of MLFLOW_RUN_CONTEXT; the kernel takes 128 KiB for one variable."""


def own_command() -> List[str]:
    """Return the argv that starts this runner again: its archive, or its package if it runs from sources."""
    archive = os.path.abspath(sys.argv[0])
    return [sys.executable, archive] if archive.endswith(".pyz") else [sys.executable, "-m", "lossi.runner"]


def server_uri(job: PreparedJob) -> Optional[str]:
    """Return the MLflow server that the job logs to; None for the embedded store."""
    if job.tracking.server_uri:
        return job.tracking.server_uri
    variable = job.environment.variables.get("MLFLOW_TRACKING_URI", "")
    return variable if variable.startswith(("http://", "https://")) else None


def payload_environment(
    base: Mapping[str, str],
    job: PreparedJob,
    task: int,
    paths: TaskPaths,
    *,
    python: str,
    tags: Mapping[str, str],
    run_id: Optional[str] = None,
    attempt: int = 1,
    uri: Optional[str] = None,
) -> Dict[str, str]:
    """Return the whole environment of the payload.

    Parameters
    ----------
    base
        The runner's own environment.
    job, task, paths
        What runs, and where its files are.
    python
        The interpreter of the runner. Its folder is first on PATH, so ``python`` is the environment's.
    tags
        Join tags, which fluent MLflow clients set on each run they start (``MLFLOW_RUN_CONTEXT``), also on a server.
    run_id
        The run to continue after a requeue. A first attempt gets the experiment's name only, because a run id that is set
        in advance makes ``set_experiment`` fail.
    attempt
        2 or more after a requeue.
    uri
        MLflow store; None: the job's.
    """
    result = {name: value for name, value in base.items() if name not in DROPPED}
    result.update(QUIET)
    result.update({name: value for name, value in job.environment.variables.items() if name not in DROPPED})
    folder = os.path.dirname(python)
    result["PATH"] = os.pathsep.join(part for part in (folder, result.get("PATH", os.defpath)) if part)
    result.setdefault("OMP_NUM_THREADS", str(max(1, job.resources.cpus)))
    result.update(
        {
            "TMPDIR": str(paths.temporary),
            "JUPYTER_RUNTIME_DIR": str(paths.jupyter),
            "JUPYTER_DATA_DIR": str(paths.jupyter / "data"),
            "JUPYTER_PREFER_ENV_PATH": "1",
            "IPYTHONDIR": str(paths.jupyter / "ipython"),
            "LOSSI_JOB_ID": job.id,
            "LOSSI_TASK": str(task),
            "LOSSI_PROJECT": job.project,
            "LOSSI_OUTPUT_DIR": str(paths.output),
            "LOSSI_PARAMETERS": str(paths.parameters),
            "LOSSI_ENVIRONMENT": job.environment.name,
            "LOSSI_ATTEMPT": str(attempt),
            "LOSSI_NODES": str(job.resources.nodes),
            "LOSSI_NODE_RANK": str(paths.rank),
            "MLFLOW_TRACKING_URI": uri or server_uri(job) or f"sqlite:///{paths.store}",
            "MLFLOW_RUN_CONTEXT": run_context(result.get("MLFLOW_RUN_CONTEXT"), {**job.tags, **tags}, tags),
        }
    )
    if run_id is None:
        result["MLFLOW_EXPERIMENT_NAME"] = job.tracking.experiment
    else:
        result["MLFLOW_RUN_ID"] = run_id
    return {name: value for name, value in result.items() if "\0" not in value}


def run_context(earlier: Optional[str], tags: Mapping[str, str], needed: Mapping[str, str]) -> str:
    """Return the value of MLFLOW_RUN_CONTEXT: a JSON object of tags (`mlflow.tracking.context.system_environment_context`).

    Parameters
    ----------
    earlier
        The variable's value so far; its tags are kept.
    tags, needed
        All tags to add, and those to keep if all would be too long for one variable.
    """
    try:
        context = json.loads(earlier or "{}")
    except ValueError:
        context = {}
    kept = {str(key): str(value) for key, value in context.items()} if isinstance(context, dict) else {}
    text = json.dumps({**kept, **tags})
    return text if len(text) <= CONTEXT_LIMIT else json.dumps(dict(needed))

"""The child process that uses the environment's MLflow client, for stores that sqlite3 cannot reach.

``python runner.pyz client`` reads one JSON order from standard input and answers with one JSON line:
``{"run_ids": [...], "problem": ""}``. ``do`` is ``resume``, ``finish`` or ``artifact``.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, Dict, List, Mapping

from ..contract.run_status import FINISHED, KILLED, RUNNING
from .store import PARENT_TAG


def main() -> int:
    """Carry out the order on standard input."""
    order = json.loads(sys.stdin.buffer.read())
    answer_to = os.dup(1)
    os.dup2(2, 1)  # MLflow prints to standard output
    answer: Dict[str, Any] = {"run_ids": [], "problem": ""}
    try:
        from mlflow import MlflowClient

        client = MlflowClient()
        if order["do"] == "resume":
            answer["run_ids"] = resume(client, order)
        elif order["do"] == "finish":
            answer["run_ids"] = finish(client, order)
        else:
            client.log_artifact(order["run_id"], order["path"])
    except Exception as error:  # noqa: BLE001 - a server may fail in any way; that must not change the task's result
        lines = str(error).splitlines()
        answer["problem"] = f"{type(error).__name__}: {lines[0] if lines else ''}"[:500]
    os.write(answer_to, (json.dumps(answer) + "\n").encode())
    return 0


def task_runs(client: Any, order: Mapping[str, Any]) -> List[Any]:
    """Return the runs on the server that carry the task's join tags, its own first."""
    experiments = [experiment.experiment_id for experiment in _pages(client.search_experiments)]
    query = f"tags.`lossi.job_id` = '{order['job_id']}' and tags.`lossi.task` = '{order['task']}'"
    runs: List[Any] = []
    for start in range(0, len(experiments), 100):
        runs += _pages(client.search_runs, experiment_ids=experiments[start : start + 100], filter_string=query)
    return sorted(runs, key=lambda run: (PARENT_TAG in run.data.tags, run.info.start_time))


def resume(client: Any, order: Mapping[str, Any]) -> List[str]:
    """Continue the task's own run of an earlier attempt; return the ids of all its runs."""
    run_ids = [run.info.run_id for run in task_runs(client, order)]
    if run_ids:
        client.update_run(run_ids[0], status=RUNNING)
    return run_ids


def finish(client: Any, order: Mapping[str, Any]) -> List[str]:
    """Tag and end the task's runs as `task_runs.finalise` does; create one if there is none. Return their ids."""
    runs = task_runs(client, order)
    if not runs:
        experiment = client.get_experiment_by_name(order["experiment"])
        number = client.create_experiment(order["experiment"]) if experiment is None else experiment.experiment_id
        runs = [client.create_run(number, start_time=order["started_ms"], tags=order["tags"], run_name=order["run_name"])]
    for run in runs:
        run_id = run.info.run_id
        for key, value in order["tags"].items():
            if run.data.tags.get(key) != value:
                client.set_tag(run_id, key, value)
        # A stopped task may run again and its notebook log its own text; params on a server cannot be changed.
        if PARENT_TAG not in run.data.tags and order["status"] != KILLED:
            for key, value in order["params"].items():
                if key not in run.data.params:
                    client.log_param(run_id, key, value)
        failed = order["failed_ms"]
        closed_late = run.info.status == FINISHED and failed is not None and (run.info.end_time or 0) >= failed
        if run.info.status == RUNNING or (closed_late and order["status"] != FINISHED):
            client.set_terminated(run_id, order["status"], run.info.end_time if closed_late else order["ended_ms"])
    if order["artifact"]:
        client.log_artifact(runs[0].info.run_id, order["artifact"])
    return [run.info.run_id for run in runs]


def _pages(search: Any, **arguments: Any) -> List[Any]:
    items: List[Any] = []
    token = None
    while True:
        page = search(page_token=token, **arguments)
        items += page
        token = page.token
        if not token:
            return items

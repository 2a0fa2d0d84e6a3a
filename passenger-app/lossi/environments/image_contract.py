"""Tests whether a Python fulfils the image contract. Runs in the checked environment, not in Lossi.

Imports packages by name, because Lossi's own process must never import them, which import-linter checks. Uses syntax that any
Python 3 understands, so that one that is too old can say so. Each answer is one line on stdout: the marker and a JSON list
[name, ok, detail].
"""

# ruff: noqa: PTH118, UP006, UP031, UP035

import json
import os
import sys
import tempfile
from functools import partial
from importlib import import_module
from typing import Callable, Dict

MARKER = "lossi-check "
OLDEST = (3, 9)


def say(name: str, ok: bool, detail: object) -> None:
    sys.stdout.write(MARKER + json.dumps([name, bool(ok), str(detail)[:2000]]) + "\n")
    sys.stdout.flush()


def attempt(name: str, question: Callable[[], str]) -> None:
    """Report the answer of ``question()``; an exception counts as a fault."""
    try:
        say(name, True, question())
    except BaseException as error:  # including SystemExit and errors of broken extension modules
        say(name, False, "%s: %s" % (type(error).__name__, error))


def python() -> str:
    if sys.version_info < OLDEST:
        raise RuntimeError("it is Python %d.%d" % sys.version_info[:2])
    return "%d.%d.%d" % sys.version_info[:3]


def ipykernel() -> str:
    return str(import_module("ipykernel").__version__)


def papermill() -> str:
    return str(import_module("papermill").__version__)


def mlflow() -> str:
    import_module("mlflow.store.tracking.sqlalchemy_store")  # absent from mlflow-skinny
    return str(import_module("mlflow").__version__)


def store() -> str:
    """Create a SQLite store, log one run and read it back, as a task does."""
    client_of = import_module("mlflow.tracking").MlflowClient
    with tempfile.TemporaryDirectory() as folder:
        client = client_of(tracking_uri="sqlite:///" + os.path.join(folder, "check.db"))
        experiment = client.create_experiment("check", artifact_location=os.path.join(folder, "artifacts"))
        run = client.create_run(experiment)
        client.log_metric(run.info.run_id, "x", 1.0)
        metrics = client.get_run(run.info.run_id).data.metrics
        if metrics != {"x": 1.0}:
            raise RuntimeError("logged x = 1.0, read back %r" % (metrics,))
    return "a run was logged and read back"


def kernels() -> str:
    specs = import_module("jupyter_client.kernelspec").KernelSpecManager().get_all_specs()
    names = ["%s (%s)" % (name, spec["spec"].get("language")) for name, spec in sorted(specs.items())]
    if not any(spec["spec"].get("language") == "python" for spec in specs.values()):
        raise RuntimeError("no Python kernel, only: %s" % (", ".join(names) or "none"))
    return ", ".join(names)


def distribution(name: str, promised: str) -> str:
    installed = str(import_module("importlib.metadata").version(name))
    return installed if installed == promised else "%s (the catalogue says %s)" % (installed, promised)


def main(frameworks: Dict[str, str]) -> None:
    os.environ.update(MLFLOW_DISABLE_TELEMETRY="true", DO_NOT_TRACK="true")
    for question in (python, ipykernel, papermill, mlflow, store, kernels):
        attempt(question.__name__, question)
    for name, promised in sorted(frameworks.items()):
        attempt(name, partial(distribution, name, promised))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))

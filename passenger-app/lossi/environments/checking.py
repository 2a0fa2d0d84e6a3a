"""``lossi env check``: starts an environment and tests the image contract in it, with a remedy for each fault.

The contract: Python ≥ 3.9, ipykernel, papermill, the full mlflow (which can open SQLite), a Python kernel, and the
frameworks that the catalogue promises.
"""

from __future__ import annotations

import json
import os
import shlex
import tempfile
from collections.abc import Mapping
from pathlib import Path

from pydantic import Field

from lossi import processes
from lossi.contract.records import ResolvedEnvironment
from lossi.environments import image_contract
from lossi.environments.command import clean_environment, command, runtime
from lossi.environments.models import Frozen
from lossi.errors import Unavailable

MLFLOW_VERSION = "3.17.2"
"""The mlflow that Lossi is tested with and that its images have."""

TIME_LIMIT_S = 300.0

_PACKAGES = {
    "ipykernel": "ipykernel",
    "papermill": "papermill",
    "mlflow": f"mlflow=={MLFLOW_VERSION}",
    "store": f"mlflow=={MLFLOW_VERSION}",
    "kernels": "ipykernel",
}
_TITLES = {"store": "mlflow opens SQLite", "kernels": "Python kernel", "python": "Python 3.9 or later"}


class Check(Frozen):
    """The result of one test."""

    name: str = Field(description="What was tested.")
    ok: bool
    detail: str = Field("", description="The result.")
    remedy: str = Field("", description="What to do about it; empty if it passed.")


def check(
    resolved: ResolvedEnvironment, *, frameworks: Mapping[str, str] | None = None, time_limit_s: float = TIME_LIMIT_S
) -> list[Check]:
    """Start the environment's Python and test the image contract in it. Takes some seconds.

    Parameters
    ----------
    resolved
        The environment.
    frameworks
        Distributions that the catalogue promises, with their versions.
    time_limit_s
        Most seconds to wait for an answer.

    Returns
    -------
    list of Check
        In the order of the contract; a container that does not start is one failed check.
    """
    if resolved.kind != "local":
        try:
            runtime()
        except Unavailable as error:
            return [Check(name="container runtime", ok=False, detail=error.why, remedy=error.hint)]
    with tempfile.TemporaryDirectory(prefix="lossi-check-") as folder:
        promised = {name: version for name, version in (frameworks or {}).items() if name not in _PACKAGES}
        return _run(resolved, promised, folder, time_limit_s)


def _run(resolved: ResolvedEnvironment, frameworks: dict[str, str], folder: str, time_limit_s: float) -> list[Check]:
    script = Path(image_contract.__file__).read_text(encoding="utf-8")
    argv = command(resolved, [resolved.python, "-c", script, json.dumps(frameworks)])
    environment = clean_environment(resolved, {"TMPDIR": folder} if resolved.kind == "local" else {})
    if resolved.kind != "local":
        environment["APPTAINER_WORKDIR"] = folder
    try:
        done = processes.run(argv, environment=environment, cwd=folder, limit_s=time_limit_s)
    except processes.TimeLimitReached as error:
        return [
            *_answers(resolved, error.stdout),
            Check(
                name="answer",
                ok=False,
                detail=f"no answer within {time_limit_s:.0f} s",
                remedy="try again; slow storage is the usual cause",
            ),
        ]
    except OSError as error:
        return [Check(name="start", ok=False, detail=f"{argv[0]}: {error.strerror}", remedy="correct the catalogue entry")]
    checks = _answers(resolved, done.stdout)
    if done.status != 0 or not checks:
        last = processes.last_line(done.stderr)[:500]
        detail = f"exit code {done.status}" + (f": {last}" if last else "")
        checks.append(
            Check(name="start", ok=False, detail=detail, remedy=f"see all output with: lossi exec {resolved.name} -- python3 -V")
        )
    return checks


def _answers(resolved: ResolvedEnvironment, output: bytes) -> list[Check]:
    checks = []
    for line in output.decode("utf-8", "replace").splitlines():
        if line.startswith(image_contract.MARKER):
            name, ok, detail = json.loads(line[len(image_contract.MARKER) :])
            checks.append(Check(name=_TITLES.get(name, name), ok=ok, detail=detail, remedy="" if ok else _remedy(resolved, name)))
    return checks


def _remedy(resolved: ResolvedEnvironment, name: str) -> str:
    """Return what to do about a fault."""
    if name == "python":
        return "set a newer Python in the catalogue" if resolved.kind == "local" else "build the image with a newer Python"
    package = _PACKAGES.get(name, name)
    if resolved.kind != "local":
        return f"add {package} to the image's recipe and build it again (containers/README.md)"
    if not _belongs_to_system(resolved.python):
        return f"{shlex.quote(resolved.python)} -m pip install {shlex.quote(package)}"
    folder = f"~/lossi-{resolved.name}"
    return (
        f"{resolved.python} belongs to the system; make a venv: {shlex.quote(resolved.python)} -m venv {folder} && "
        f"{folder}/bin/pip install ipykernel papermill mlflow=={MLFLOW_VERSION}, then: lossi env add my-{resolved.name} --title … --python {folder}"
    )


def _belongs_to_system(python: str) -> bool:
    folder = Path(python).parent
    return str(folder) in ("/usr/bin", "/bin") or not os.access(folder, os.W_OK)

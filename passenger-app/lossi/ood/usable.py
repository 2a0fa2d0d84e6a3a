"""Which environments a session can run in, where. Looks at images and interpreters of this machine; starts no container."""

from __future__ import annotations

from lossi import environments
from lossi.contract.records import ResolvedEnvironment
from lossi.environments import Environment, interpreter
from lossi.errors import LossiError, Unavailable

PACKAGE = "jupyterlab"


def resolve(environment: Environment, architecture: str | None, accelerator: str) -> ResolvedEnvironment:
    """Return what is to be started for a session.

    Raises
    ------
    NotSupported, Unavailable, InvalidInput
        As `environments.resolve`; and when a local Python has no JupyterLab. An image is asked only when it starts.
    """
    found = environments.resolve(environment, accelerator=accelerator, architecture=architecture)
    if found.kind == "local" and PACKAGE not in interpreter.describe(found.python, found.variables).packages:
        raise Unavailable(
            f"environment {environment.name!r} has no JupyterLab",
            hint=f"install it there: {found.python} -m pip install {PACKAGE}; or choose another environment",
        )
    return found


def has_jupyter(environment: Environment, architecture: str, accelerator: str) -> bool:
    """Return whether `resolve` finds something to start."""
    try:
        resolve(environment, architecture, accelerator)
    except LossiError:
        return False
    return True

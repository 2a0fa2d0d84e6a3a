"""Which environments have JupyterLab, for an architecture and an accelerator. Looks at images and interpreters of this machine."""

from __future__ import annotations

from lossi import environments
from lossi.contract.records import ResolvedEnvironment
from lossi.environments import Environment, interpreter
from lossi.errors import LossiError, Unavailable

PACKAGE = "jupyterlab"


def resolve(environment: Environment, architecture: str | None, accelerator: str) -> ResolvedEnvironment:
    """Return what a session starts.

    Raises
    ------
    NotSupported, Unavailable, InvalidInput
        As `environments.resolve`; also if a local Python has no JupyterLab. An image is checked only when it starts.
    """
    resolved = environments.resolve(environment, accelerator=accelerator, architecture=architecture)
    if resolved.kind == "local" and PACKAGE not in interpreter.describe(resolved.python, resolved.variables).packages:
        raise Unavailable(
            f"environment {environment.name!r} has no JupyterLab",
            hint=f"install it there: {resolved.python} -m pip install {PACKAGE}; or choose another environment",
        )
    return resolved


def has_jupyter(environment: Environment, architecture: str, accelerator: str) -> bool:
    """Return whether `resolve` succeeds."""
    try:
        resolve(environment, architecture, accelerator)
    except LossiError:
        return False
    return True

"""Registers an environment as a Jupyter kernel for a site's existing Jupyter: writes ``kernel.json`` in the kernel's folder.

The command is fixed at registration; the kernel starts without Lossi.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lossi.contract.records import ResolvedEnvironment
from lossi.environments.command import RUNTIME, command
from lossi.environments.models import Environment
from lossi.errors import NotSupported
from lossi.files import atomic

CONNECTION_FILE = "{connection_file}"
"""Replaced by Jupyter in every argument of the command."""
HERE = f'here=$(pwd -P) && exec {RUNTIME} exec --bind "$here" --pwd "$here" "$@"'
"""Jupyter starts a kernel in its notebook's folder, which a container would not see. The arguments follow unchanged."""
_REPLACED = re.compile(r"\{[A-Za-z0-9_]+\}")


def kernelspec(environment: Environment, resolved: ResolvedEnvironment, binds: Iterable[str | Path] = ()) -> dict[str, Any]:
    """Return the content of ``kernel.json``.

    Parameters
    ----------
    environment
        Its title is the kernel's name in Jupyter.
    resolved
        The resolved environment.
    binds
        Folders that a container sees in addition to the catalogue's and the home folder of the user. It also sees the
        connection file, wherever Jupyter puts it.

    Raises
    ------
    NotSupported
        When Jupyter would replace a part of a path.
    InvalidInput
        When a folder cannot be bound in a container.
    """
    argv = command(resolved, ["python3", "-m", "ipykernel_launcher", "-f"], binds=binds)
    replaced = next((argument for argument in argv if _REPLACED.search(argument)), None)
    if replaced is not None:
        raise NotSupported(
            f"{replaced[:200]!r} cannot be part of a kernel's command",
            why="Jupyter replaces names in braces",
            hint="rename the folder",
        )
    argv.append(CONNECTION_FILE)
    if resolved.kind == "local":
        variables = {**resolved.variables, "PYTHONNOUSERSITE": "1"}
    else:
        argv = ["/bin/sh", "-c", HERE, "lossi", "--bind", CONNECTION_FILE, *argv[argv.index("exec") + 1 :]]
        # Jupyter replaces it with the user's: several users may share a kernel.
        variables = {"APPTAINER_BIND": "${HOME}"}
    return {
        "argv": argv,
        "display_name": f"{environment.title} (Lossi)",
        "language": "python",
        "interrupt_mode": "signal",
        "env": variables,
        "metadata": {"debugger": True, "lossi": {"environment": resolved.name, "variant": resolved.variant}},
    }


def kernel_name(resolved: ResolvedEnvironment) -> str:
    """Return the name of the kernel's folder: ``lossi-sklearn``, and ``-cuda`` or ``-rocm`` for GPUs."""
    accelerator = resolved.variant.rpartition("-")[2]
    return f"lossi-{resolved.name}" + (f"-{accelerator}" if accelerator in ("cuda", "rocm") else "")


def install(spec: dict[str, Any], name: str, prefix: Path | None = None) -> Path:
    """Write a kernel where Jupyter finds it and return its folder; a kernel of the same name is replaced.

    Parameters
    ----------
    spec
        From `kernelspec`.
    name
        From `kernel_name`.
    prefix
        As Jupyter's ``--prefix``: the kernel goes to ``share/jupyter/kernels`` in it. None: the user's own kernels.

    Raises
    ------
    Forbidden, Unavailable
        When it cannot be written.
    """
    data = Path(os.environ.get("JUPYTER_DATA_DIR") or Path.home() / ".local" / "share" / "jupyter")
    folder = (prefix / "share" / "jupyter" if prefix is not None else data) / "kernels" / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise atomic.explained(error, folder) from None
    atomic.write(folder / "kernel.json", json.dumps(spec, indent=1, ensure_ascii=False).encode("utf-8"), mode=0o644)
    return folder

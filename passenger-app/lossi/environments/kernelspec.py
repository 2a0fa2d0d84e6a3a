"""An environment as a Jupyter kernel, so that a site's existing Jupyter gains it: ``kernel.json`` and the folder that it lies in.

The command is fixed when it is registered: nothing of Lossi is needed where the kernel starts. Writes the kernel's folder only.
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
"""What Jupyter replaces in every word of the command."""
HERE = f'here=$(pwd -P) && exec {RUNTIME} exec --bind "$here" --pwd "$here" "$@"'
"""Jupyter starts a kernel in its notebook's folder, which a container neither sees nor enters by itself. The words follow as they are."""
_REPLACED = re.compile(r"\{[A-Za-z0-9_]+\}")


def kernelspec(environment: Environment, resolved: ResolvedEnvironment, binds: Iterable[str | Path] = ()) -> dict[str, Any]:
    """Return the content of ``kernel.json``.

    Parameters
    ----------
    environment
        What people choose, by its title.
    resolved
        What is started for it.
    binds
        Folders that a container sees besides those of the catalogue and the home folder of whoever starts the kernel. The file
        with the kernel's ports is shown to it wherever Jupyter puts it.

    Raises
    ------
    NotSupported
        When Jupyter would replace something in a path.
    InvalidInput
        When a folder cannot be shown in a container.
    """
    argv = command(resolved, ["python3", "-m", "ipykernel_launcher", "-f"], binds=binds)
    changed = next((word for word in argv if _REPLACED.search(word)), None)
    if changed is not None:
        raise NotSupported(
            f"{changed[:200]!r} cannot be part of a kernel's command",
            why="Jupyter replaces names in braces",
            hint="rename the folder",
        )
    argv.append(CONNECTION_FILE)
    if resolved.kind == "local":
        variables = {**resolved.variables, "PYTHONNOUSERSITE": "1"}
    else:
        argv = ["/bin/sh", "-c", HERE, "lossi", "--bind", CONNECTION_FILE, *argv[argv.index("exec") + 1 :]]
        # Jupyter replaces it by the user's: a kernel may be there for many.
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
    """Write a kernel where Jupyter finds it, and return its folder; one of the same name is replaced.

    Parameters
    ----------
    spec
        From `kernelspec`.
    name
        From `kernel_name`.
    prefix
        As Jupyter's own ``--prefix``: below ``share/jupyter/kernels``. None: the user's own kernels.

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
